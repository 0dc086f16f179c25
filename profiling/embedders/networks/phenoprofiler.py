"""PhenoProfiler (its paper of 2025): gradient encoder, residual trunk, a transformer layer over the tokens of one
picture, projection; and its baselines, a plain trunk behind a convolution from the picture's channels to three.

The paper's text lets the transformer run over a vector of 2048 a picture, [B, 2048]; taken literally its attention
would run across the pictures of a batch. Here the tokens are the places of the trunk's last feature map, and attention
stays inside a picture; their mean goes on to the projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from profiling.embedders.networks.efficientnet import EfficientNet, EfficientNetConfig
from profiling.embedders.networks.gradient import GradientEncoder
from profiling.embedders.networks.resnet import ResNet, ResNetConfig
from profiling.embedders.networks.vit import VisionTransformer, VitConfig
from profiling.embedders.recipe import InvalidRecipe

PHENOPROFILER, RESNET, VIT, EFFICIENTNET = "phenoprofiler", "resnet50", "vit_b32", "efficientnet_b0"
KINDS = (PHENOPROFILER, RESNET, VIT, EFFICIENTNET)


@dataclass(frozen=True)
class PhenoConfig:
    """`kind`: PhenoProfiler or a baseline. `side`: pixels that pictures are resized to. `width`, `blocks`, `stem`: of
    the residual trunk (64, 3-4-6-3 and 2 are ResNet-50). `gradient`: the gradient encoder, or a plain convolution in
    its place (their ablation). `scale`: widths of the other trunks relative to the published ones. `out`: length of
    the representation; 0 takes that of the profiles it is to regress (672 in the paper)."""

    kind: str = PHENOPROFILER
    side: int = 448
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    stem: int = 2
    gradient: bool = True
    theta: tuple[float, ...] = (0.7, 0.3)
    branch: int = 8
    heads: int = 8
    dropout: float = 0.1
    scale: float = 1.0
    out: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or len(self.theta) != 2 or self.out < 0:
            raise InvalidRecipe(
                f"network: kind {self.kind!r}, theta {self.theta}, out {self.out}; expected one of {', '.join(KINDS)}, "
                "two numbers, and 0 or more"
            )


class TokenEncoder(nn.Module):
    """Equations 5 to 8 over the tokens of one picture."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, h2: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """H2 to H6."""
        h3, _ = self.attention(h2, h2, h2, need_weights=False)
        h4 = self.norm1(h2 + self.drop(h3))
        h5 = F.relu(self.fc2(F.relu(self.fc1(h4))))
        return self.norm2(h4 + self.drop(h5))


class Projection(nn.Module):
    """LayerNorm(z1 + dropout(W4 gelu(z1) + b4)), z1 = W3 h + b3 (Equations 9 to 11)."""

    def __init__(self, dim: int, out: int, dropout: float) -> None:
        super().__init__()
        self.fc3, self.fc4 = nn.Linear(dim, out), nn.Linear(out, out)
        self.drop, self.norm = nn.Dropout(dropout), nn.LayerNorm(out)

    def forward(self, h: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """The representation of each picture."""
        z1 = self.fc3(h)
        return self.norm(z1 + self.drop(self.fc4(F.gelu(z1))))


class PhenoNetwork(nn.Module):
    """Pictures [b, c, side, side] to representations [b, out]."""

    def __init__(self, config: PhenoConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.tokens: nn.Module | None = None
        if config.kind == PHENOPROFILER and config.gradient:
            self.front: nn.Module = GradientEncoder(channels, 3, config.branch, (config.theta[0], config.theta[1]))
        else:
            self.front = nn.Conv2d(channels, 3, 3, padding=1)
        if config.kind == EFFICIENTNET:
            self.trunk: nn.Module = EfficientNet(EfficientNetConfig(config.scale))
            dim = self.trunk.config.out
        elif config.kind == VIT:
            dim = max(64, round(768 * config.scale) // 64 * 64)
            depth = max(1, round(12 * config.scale))
            self.trunk = VisionTransformer(VitConfig(config.side, config.side // 7, dim, depth, dim // 64, channels=3))
        else:
            self.trunk = ResNet(ResNetConfig(config.width, config.blocks, 3, config.stem))
            dim = self.trunk.config.out
        if config.kind == PHENOPROFILER:
            self.tokens = TokenEncoder(dim, config.heads, config.dropout)
        self.projection = Projection(dim, config.out, config.dropout)

    def forward(self, x: Float[Tensor, "b c s s"]) -> Float[Tensor, "b k"]:
        """The representation of each picture, from that picture alone (in evaluation)."""
        h1 = self.front(x)
        if self.tokens is not None:
            maps = self.trunk.maps(h1)  # type: ignore[operator]
            return self.projection(self.tokens(maps.flatten(2).transpose(1, 2)).mean(dim=1))
        seen = self.trunk(h1)
        return self.projection(seen[:, 0] if self.config.kind == VIT else seen)


def resized(x: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, "b c side side"]:
    """Pictures brought to `side` pixels a side, averaging over what falls together."""
    if x.shape[-2:] == (side, side):
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
