"""TRex's network: 1024, 512, 512 with its input added, 256, head; each with batch norm, GELU and dropout."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Layer(nn.Module):
    """dropout(gelu(batch norm(W x + b)))."""

    def __init__(self, inside: int, out: int, dropout: float) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(inside, out), nn.BatchNorm1d(out), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Row by row, but for the batch's mean and variance in training."""
        return self.drop(F.gelu(self.norm(self.linear(x))))


class TrexNetwork(nn.Module):
    """`inside` features to `outputs` logits; `mean` and `sd` of the training rows standardise what goes in."""

    mean: Tensor
    sd: Tensor

    def __init__(
        self, inside: int, outputs: int, widths: tuple[int, int, int] = (1024, 512, 256), dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inside))
        self.register_buffer("sd", torch.ones(inside))
        self.layer1 = Layer(inside, widths[0], dropout)
        self.layer2 = Layer(widths[0], widths[1], dropout)
        self.layer3 = Layer(widths[1], widths[1], dropout)
        self.layer4 = Layer(widths[1], widths[2], dropout)
        self.head = nn.Linear(widths[2], outputs)

    def features(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The third layer, x2 + layer3(x2): TRex's representation."""
        x2 = self.layer2(self.layer1((x - self.mean) / self.sd))
        return x2 + self.layer3(x2)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """Logits of the labels."""
        return self.head(self.layer4(self.features(x)))
