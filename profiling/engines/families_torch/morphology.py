"""Grey-scale morphology of a batch of planes: erosion by a cross, opening by a disk, reconstruction by dilation.

Minima and maxima are exact, so the planes are those of `families.grey_morphology` to the bit. Reconstruction, one pixel
after the other on a core, is here a dilation under the mask, of all planes at once, until nothing changes; planes that
are done leave the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

_CHECK = 8  # dilations between two looks at which planes still change


def erode_cross(planes: Float32[Tensor, "n h w"]) -> Float32[Tensor, "n h w"]:
    """Minimum over a pixel and its 4 neighbours inside the picture."""
    out = planes.clone()
    torch.minimum(out[:, 1:], planes[:, :-1], out=out[:, 1:])
    torch.minimum(out[:, :-1], planes[:, 1:], out=out[:, :-1])
    torch.minimum(out[:, :, 1:], planes[:, :, :-1], out=out[:, :, 1:])
    torch.minimum(out[:, :, :-1], planes[:, :, 1:], out=out[:, :, :-1])
    return out


def open_disk(planes: Float32[Tensor, "n h w"], radius: int) -> Float32[Tensor, "n h w"]:
    """Opening by skimage's disk; beyond the frame is nothing."""
    return -_erode_disk(-_erode_disk(planes, radius), radius)


def _erode_disk(planes: Float32[Tensor, "n h w"], radius: int) -> Float32[Tensor, "n h w"]:
    reach = np.floor(np.sqrt(radius**2 - np.arange(radius + 1) ** 2)).astype(int).tolist()
    height = planes.shape[1]
    out, window = planes.clone(), planes
    for r in range(radius + 1):
        if r > 0:  # minimum over x − r to x + r
            wider = window.clone()
            torch.minimum(wider[:, :, :-1], window[:, :, 1:], out=wider[:, :, :-1])
            torch.minimum(wider[:, :, 1:], window[:, :, :-1], out=wider[:, :, 1:])
            window = wider
        for d in (d for d in range(radius + 1) if reach[d] == r and d < height):
            torch.minimum(out[:, d:], window[:, : height - d], out=out[:, d:])
            torch.minimum(out[:, : height - d], window[:, d:], out=out[:, : height - d])
    return out


def reconstruct(seed: Float32[Tensor, "n h w"], mask: Float32[Tensor, "n h w"]) -> Float32[Tensor, "n h w"]:
    """Reconstruction of `mask` by dilation from `seed` ≤ `mask`, 4-connected."""
    out = seed.clone()
    alive = torch.arange(len(seed), device=seed.device)
    now, limit = seed.clone(), mask
    while len(alive):
        before = now
        for _ in range(_CHECK):
            wide = now.clone()
            torch.maximum(wide[:, 1:], now[:, :-1], out=wide[:, 1:])
            torch.maximum(wide[:, :-1], now[:, 1:], out=wide[:, :-1])
            torch.maximum(wide[:, :, 1:], now[:, :, :-1], out=wide[:, :, 1:])
            torch.maximum(wide[:, :, :-1], now[:, :, 1:], out=wide[:, :, :-1])
            now = torch.minimum(wide, limit)
        out[alive] = now
        changed = (now != before).flatten(1).any(dim=1)
        alive, now, limit = alive[changed], now[changed], limit[changed]
    return out
