"""Views of crops, as tensors: cut, resized, turned, blurred; every number drawn from a generator that is given.

Pictures come clipped to [0, 1] (`clipped`); a view ends standardised by itself, channel by channel (self-normalised:
mean 0, deviation 1), as CHAMMI-75's models are fed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

LOW, HIGH = 0.1, 99.9  # per cent: CHAMMI-75 trims both tails of a channel's histogram


@dataclass(frozen=True)
class Augmentation:
    """`area`: share of the crop's area that is cut out; `aspect`: greatest ratio of its sides; `flips`: mirrored both
    ways; `turns`: by quarters; `blur`: share of the views blurred, by a deviation of `sigma` pixels; `gamma`: greatest
    exponent (its inverse is the least); `noise`: greatest deviation of noise added, in the range [0, 1].
    """

    area: tuple[float, ...] = (0.4, 1.0)
    aspect: float = 1.333
    flips: bool = True
    turns: bool = True
    blur: float = 0.0
    sigma: tuple[float, ...] = (0.1, 1.5)
    gamma: float = 1.0
    noise: float = 0.0


PLAIN = Augmentation(area=(1.0, 1.0), aspect=1.0, flips=False, turns=False)


def clipped(picture: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    """Each channel between its own 0.1 and 99.9 percentiles, as [0, 1]; a flat channel is 0."""
    low, high = np.percentile(picture.reshape(len(picture), -1), [LOW, HIGH], axis=1).astype(np.float32)
    spread = np.where(high > low, high - low, 1.0).astype(np.float32)
    return np.clip((picture - low[:, None, None]) / spread[:, None, None], 0.0, 1.0).astype(np.float32)


def self_normalised(x: Float[Tensor, "b c h w"], epsilon: float = 1e-5) -> Float[Tensor, "b c h w"]:
    """Mean 0 and deviation 1 of every channel of every row by itself."""
    centred = x - x.mean(dim=(2, 3), keepdim=True)
    return centred / (centred.pow(2).mean(dim=(2, 3), keepdim=True) + epsilon).sqrt()


def cut(
    pictures: Float[Tensor, "b c h w"],
    centres: Float[Tensor, "b 2"],
    sides: Float[Tensor, "b 2"],
    size: int,
    turn: Float[Tensor, "b 2 2"] | None = None,
) -> Float[Tensor, "b c size size"]:
    """Windows around `centres` (row, column; pixel 0 is the centre of the first) of `sides` pixels, resampled to `size`
    pixels a side (bilinear); outside the picture it is mirrored. `turn`: a matrix on (column, row) directions.
    """
    b, _, h, w = pictures.shape
    scale = torch.stack([sides[:, 1] / w, sides[:, 0] / h], dim=1)
    shift = torch.stack([(2 * centres[:, 1] + 1) / w - 1, (2 * centres[:, 0] + 1) / h - 1], dim=1)
    turn = torch.eye(2, dtype=pictures.dtype).expand(b, 2, 2) if turn is None else turn
    theta = torch.cat([scale[:, :, None] * turn, shift[:, :, None]], dim=2).to(pictures.dtype)
    grid = F.affine_grid(theta, [b, 1, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def blurred(x: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Every row smoothed by a Gaussian of its own deviation in pixels (0: as it is), mirrored at the edge."""
    reach = int(np.ceil(3.0 * float(sigma.max()))) if len(sigma) else 0
    if reach == 0:
        return x
    reach = min(reach, x.shape[-1] - 1)
    b, c, h, w = x.shape
    steps = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma.to(x.dtype).clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)
    flat = F.pad(x.reshape(1, b * c, h, w), (reach, reach, reach, reach), mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=b * c)
    return F.conv2d(flat, kernel[:, None, :, None], groups=b * c).reshape(b, c, h, w)


def view(
    pictures: Float[Tensor, "b c h w"],
    centres: Float[np.ndarray, "b 2"],
    sides: Float[np.ndarray, " b"],
    size: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Float[Tensor, "b c size size"]:
    """One random view a row of the square crop of `sides` around `centres`, standardised by itself.

    All randomness is drawn here, in one order, so a view is a function of `rng`'s state.
    """
    b, a = len(centres), augmentation
    area = rng.uniform(a.area[0], a.area[1], b)
    ratio = np.exp(rng.uniform(-np.log(a.aspect), np.log(a.aspect), b))
    share = np.minimum(np.stack([np.sqrt(area / ratio), np.sqrt(area * ratio)], axis=1), 1.0)
    place = rng.uniform(-0.5, 0.5, (b, 2))
    middle = centres + place * (1.0 - share) * sides[:, None]
    flips, turns = rng.integers(0, 2, (b, 2)), rng.integers(0, 4, b)
    sharp, sigma = rng.random(b) >= a.blur, rng.uniform(a.sigma[0], a.sigma[1], b)
    gamma = np.exp(rng.uniform(-1.0, 1.0, b) * np.log(a.gamma))
    noise = rng.uniform(0.0, a.noise, b)
    turn = np.tile(np.eye(2), (b, 1, 1))
    if a.turns:
        angle = turns * np.pi / 2
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(b, 2, 2).round()
    if a.flips:
        turn = turn * (1 - 2 * flips)[:, :, None]
    lengths = share * sides[:, None]
    x = cut(
        pictures,
        torch.from_numpy(middle).to(pictures.dtype),
        torch.from_numpy(lengths).to(pictures.dtype),
        size,
        torch.from_numpy(turn).to(pictures.dtype),
    )
    if a.blur > 0.0:
        x = blurred(x, torch.from_numpy(np.where(sharp, 0.0, sigma)))
    if a.gamma > 1.0:
        x = x.clamp(min=0.0).pow(torch.from_numpy(gamma).to(x.dtype)[:, None, None, None])
    if a.noise > 0.0:
        grain = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32)).to(x.dtype)
        x = x + grain * torch.from_numpy(noise).to(x.dtype)[:, None, None, None]
    return self_normalised(x)
