"""Masked autoencoding: hide patches, predict them (MAE, He et al. 2022), and whole channels (ChA-MAEViT, Pham et al.
2025, arXiv 2503.19331).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b c n q"]:
    """The pixels of each patch, in the order of the tokens: q = patch²."""
    b, c, h, w = x.shape
    rows, columns = h // patch, w // patch
    cut = x.reshape(b, c, rows, patch, columns, patch).permute(0, 1, 2, 4, 3, 5)
    return cut.reshape(b, c, rows * columns, patch * patch)


def unpatchify(patches: Float[Tensor, "b c n q"], patch: int, height: int, width: int) -> Float[Tensor, "b c h w"]:
    """The picture of its patches."""
    b, c = patches.shape[:2]
    rows, columns = height // patch, width // patch
    cut = patches.reshape(b, c, rows, columns, patch, patch).permute(0, 1, 2, 4, 3, 5)
    return cut.reshape(b, c, height, width)


def random_mask(b: int, n: int, share: float, generator: torch.Generator) -> Bool[Tensor, "b n"]:
    """True for round(share n) random tokens of each row: hidden."""
    hidden = round(share * n)
    order = torch.rand(b, n, generator=generator).argsort(dim=1)
    mask = torch.zeros(b, n, dtype=torch.bool)
    return mask.scatter(1, order[:, :hidden], True)


def channel_patch_mask(
    b: int, c: int, n: int, share: float, channel_share: float, generator: torch.Generator
) -> Bool[Tensor, "b c n"]:
    """Dynamic channel-patch masking: a row has whole channels hidden with probability `channel_share` (a uniform number
    of them, 1 to c - 1), or random patches of every channel; never every token of all channels.
    """
    mask = random_mask(b * c, n, share, generator).reshape(b, c, n)
    if c > 1:
        whole = torch.rand(b, generator=generator) < channel_share
        count = torch.randint(1, c, (b,), generator=generator)
        order = torch.rand(b, c, generator=generator).argsort(dim=1).argsort(dim=1)
        hidden = order < count[:, None]
        mask = torch.where(whole[:, None, None], hidden[:, :, None].expand(b, c, n), mask)
    return mask


def masked_loss(
    said: Float[Tensor, "b c n q"],
    pixels: Float[Tensor, "b c n q"],
    hidden: Bool[Tensor, "b c n"],
    normalised: bool = True,
    epsilon: float = 1e-6,
) -> Float[Tensor, ""]:
    """Mean squared error of the hidden patches; `normalised`: of each patch with its own mean and deviation taken out
    (MAE's normalised pixels)."""
    if normalised:
        mean = pixels.mean(dim=-1, keepdim=True)
        pixels = (pixels - mean) / (pixels.var(dim=-1, keepdim=True) + epsilon).sqrt()
    error = (said - pixels).pow(2).mean(dim=-1)
    return (error * hidden).sum() / hidden.sum().clamp(min=1)
