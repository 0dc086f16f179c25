"""PhenoProfiler's gradient encoder: two branches of difference convolution, deep and shallow (Equations 1 to 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class DifferenceConv(nn.Module):
    """Σ_i w_i (x_i - θ x_0) over a 3 x 3 neighbourhood: convolution for θ = 0, differences to the centre for θ = 1.

    Written as conv(x) - θ conv_1x1(x) with the kernels' sums, which is the same (Equation 1; Yu et al. 2020).
    """

    def __init__(self, inside: int, out: int, theta: float) -> None:
        super().__init__()
        self.theta = theta
        self.conv = nn.Conv2d(inside, out, 3, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Outside the picture the neighbours are 0, not the differences."""
        centre = self.conv.weight.sum(dim=(2, 3), keepdim=True)
        return self.conv(x) - self.theta * F.conv2d(x, centre)


class GradientEncoder(nn.Module):
    """H1 = BN(ReLU(MLP([BN(ReLU(DG x)), BN(ReLU(SG x))]))), the MLP pixel by pixel to `out` channels."""

    def __init__(self, inside: int, out: int = 3, branch: int = 8, theta: tuple[float, float] = (0.7, 0.3)) -> None:
        super().__init__()
        self.deep = DifferenceConv(inside, branch, theta[0])
        self.shallow = DifferenceConv(inside, branch, theta[1])
        self.norm_deep, self.norm_shallow = nn.BatchNorm2d(branch), nn.BatchNorm2d(branch)
        self.mlp = nn.Conv2d(2 * branch, out, 1)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o h w"]:
        """Pictures to enhanced pictures of the same size."""
        deep = self.norm_deep(F.relu(self.deep(x)))
        shallow = self.norm_shallow(F.relu(self.shallow(x)))
        return self.norm(F.relu(self.mlp(torch.cat([deep, shallow], dim=1))))
