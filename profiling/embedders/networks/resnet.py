"""Residual networks with bottlenecks (He et al. 2016), with torchvision's parameter names; ResNet-50 is (3, 4, 6, 3)
at width 64."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EXPANSION = 4


@dataclass(frozen=True)
class ResNetConfig:
    """`width`: channels of the first stage; `blocks`: bottlenecks of each stage; `stem`: stride of the first
    convolution (2 with pooling, 1 without either for small pictures)."""

    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    channels: int = 3
    stem: int = 2

    @property
    def out(self) -> int:
        """Channels of the last stage: 2048 for ResNet-50."""
        return self.width * 2 ** (len(self.blocks) - 1) * EXPANSION


class Bottleneck(nn.Module):
    """relu(x + conv1(conv3(conv1 x))), the stride in the middle one."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride != 1 or inside != out
            else None
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o y x"]:
        """Feature map to feature map."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Pictures [b, channels, h, w] to feature maps [b, out, h / 32, w / 32] (stem 2) and their mean."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(config.channels, config.width, 7, config.stem, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        inside = config.width
        for stage, count in enumerate(config.blocks):
            width = config.width * 2**stage
            parts = []
            for i in range(count):
                parts.append(Bottleneck(inside, width, 2 if stage and not i else 1))
                inside = width * EXPANSION
            setattr(self, f"layer{stage + 1}", nn.Sequential(*parts))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o y x"]:
        """The last feature map."""
        x = F.relu(self.bn1(self.conv1(x)))
        if self.config.stem > 1:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(len(self.config.blocks)):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b o"]:
        """The mean of the last feature map."""
        return self.maps(x).mean(dim=(2, 3))
