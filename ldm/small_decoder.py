"""A small decoder, distilled from the autoencoder's: latents of all groups to all channels in one pass.

The autoencoder decodes every group by itself at full width up to the last pixel. This network does most of its work at
the size of the latents and widens the picture by rearranging channels (pixel shuffle, Shi et al. 2016,
arXiv:1609.05158), so it needs a small part of the arithmetic. What it loses is measured where it is used: PSNR against
the large decoder, and in profile space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape."""
        return x + self.two(torch.relu(self.one(torch.relu(x))))


class SmallDecoder(ModelMixin, ConfigMixin):
    """Normalised latents [b, z, y, x] to pictures [b, channels, y f, x f] in about [-1, 1].

    widths: channels at the size of the latents and after each doubling; len(widths) - 1 doublings make the factor f.
    blocks: residual blocks at each size.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        channels: int = 5,
        widths: Sequence[int] = (48, 24, 12, 8),
        blocks: Sequence[int] = (3, 1, 0, 0),
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        stages: list[nn.Module] = []
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if level:
                stages += [nn.Conv2d(widths[level - 1], 4 * width, 1), nn.PixelShuffle(2)]
            stages += [Residual(width) for _ in range(count)]
        self.body = nn.Sequential(*stages)
        self.leave = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, latents: Float[Tensor, "b z y x"]) -> Float[Tensor, "b c h w"]:
        """Pictures. Latents are softly kept within +-9, which normalised ones hardly reach."""
        return self.leave(torch.relu(self.body(self.enter(9.0 * torch.tanh(latents / 9.0)))))
