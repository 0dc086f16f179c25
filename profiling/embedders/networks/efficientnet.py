"""EfficientNet (Tan and Le 2019): inverted bottlenecks with squeeze and excitation; `width` and `depth` scale B0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

#: Of B0, stage by stage: expansion, channels, blocks, stride, side of the kernel (their Table 1).
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, HEAD = 32, 1280


@dataclass(frozen=True)
class EfficientNetConfig:
    """Scales of B0 (1, 1): DeepProfiler's trunk."""

    width: float = 1.0
    depth: float = 1.0
    channels: int = 3

    def scaled(self, channels: int) -> int:
        """Channels times the width, to a multiple of 8, never more than 10 % below."""
        wanted = channels * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    @property
    def out(self) -> int:
        """Channels of the head."""
        return self.scaled(HEAD)


class MbConv(nn.Module):
    """Expand, filter each channel by itself, weigh channels by squeeze and excitation, project; residual where shapes
    agree."""

    def __init__(self, inside: int, out: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide, squeezed = inside * expansion, max(1, inside // 4)
        self.expand = (
            nn.Sequential(nn.Conv2d(inside, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())
            if expansion > 1
            else nn.Identity()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.SiLU()
        )
        self.squeeze = nn.Conv2d(wide, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, wide, 1)
        self.project = nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))
        self.residual = stride == 1 and inside == out

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o y x"]:
        """Feature map to feature map."""
        y = self.depthwise(self.expand(x))
        gate = self.excite(F.silu(self.squeeze(y.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        y = self.project(y * gate)
        return x + y if self.residual else y


class EfficientNet(nn.Module):
    """Pictures [b, channels, h, w] to feature maps [b, out, h / 32, w / 32] and their mean."""

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        self.config = config
        inside = config.scaled(STEM)
        parts: list[nn.Module] = [
            nn.Conv2d(config.channels, inside, 3, 2, 1, bias=False), nn.BatchNorm2d(inside), nn.SiLU()
        ]  # fmt: skip
        for expansion, channels, blocks, stride, kernel in STAGES:
            for i in range(math.ceil(blocks * config.depth)):
                parts.append(MbConv(inside, config.scaled(channels), expansion, stride if not i else 1, kernel))
                inside = config.scaled(channels)
        parts += [nn.Conv2d(inside, config.out, 1, bias=False), nn.BatchNorm2d(config.out), nn.SiLU()]
        self.features = nn.Sequential(*parts)

    def maps(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o y x"]:
        """The last feature map."""
        return self.features(x)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o"]:
        """The mean of the last feature map."""
        return self.maps(x).mean(dim=(2, 3))
