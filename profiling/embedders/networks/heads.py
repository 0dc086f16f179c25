"""Heads that exist in training only: DINO's prototypes, the projectors of SimCLR and Barlow Twins."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from profiling.embedders.networks.vit import initialise


class DinoHead(nn.Module):
    """Three linear layers with GELU, unit length, then cosines to `prototypes` learned directions (Caron et al. 2021,
    their head with the last layer's norm fixed at 1)."""

    def __init__(self, dim: int, prototypes: int, hidden: int = 256, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.last = nn.Linear(bottleneck, prototypes, bias=False)
        initialise(self)

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Cosines in [-1, 1]."""
        return F.linear(F.normalize(self.mlp(x), dim=-1), F.normalize(self.last.weight, dim=-1))


class Projector(nn.Module):
    """Linear layers with batch norm and ReLU between (the projectors of SimCLR and Barlow Twins)."""

    def __init__(self, dim: int, hidden: int, out: int, layers: int = 2) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for i in range(layers - 1):
            inside = dim if not i else hidden
            parts += [nn.Linear(inside, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
        self.layers = nn.Sequential(*parts, nn.Linear(hidden if layers > 1 else dim, out, bias=False))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Vectors to projections."""
        return self.layers(x)
