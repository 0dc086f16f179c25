"""Losses that see what L1 averages away: how channels vary together in small windows, and how large the grains are.

They carry the feature families Correlation, RadialDistribution, Texture and Granularity, which a decoder trained on L1
alone loses. Both compare statistics of windows, not pixels, so a grain in another place costs little and a missing
grain much; pictures on both sides must have the camera's noise (`with_grain`), or the decoder would learn to paint it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def with_grain(
    pictures: Float[Tensor, "b c h w"],
    low: Float[Tensor, "b c 1 1"],
    high: Float[Tensor, "b c 1 1"],
    floor: Float[Tensor, "b c 1 1"],
    slope: Float[Tensor, "b c 1 1"],
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """Pictures in [-1, 1] with the camera's noise, of variance floor + slope * signal in camera units
    (`ldm.intensity`); low and high are the camera units of -1 and 1, `noise` is standard normal.
    """
    half = 0.5 * (high - low)
    signal = (low + (pictures + 1.0) * half).clamp(min=0.0)
    # the root has no slope at 0: a dark pixel without read noise gets none
    sd = (floor + slope * signal).clamp(min=1e-12).sqrt()
    return pictures + sd / half * noise


def covariances(x: Float[Tensor, "b c h w"], window: int) -> Float[Tensor, "b c c y x"]:
    """Covariance of every pair of channels in windows of `window` pixels that overlap by half."""
    stride = max(window // 2, 1)
    mean = F.avg_pool2d(x, window, stride)
    b, c, h, w = x.shape
    products = (x[:, :, None] * x[:, None]).view(b, c * c, h, w)
    second = F.avg_pool2d(products, window, stride).view(b, c, c, *mean.shape[-2:])
    return second - mean[:, :, None] * mean[:, None]


def covariance_loss(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], windows: Sequence[int], flat: float = 1e-3
) -> Float[Tensor, ""]:
    """Mean distance of the covariances of windows, in units of the true standard deviations: of the correlation that
    the window would have, were the variances right. `flat` is the variance below which a window counts as flat.
    """
    total = x.new_zeros(())
    for window in windows:
        true, found = covariances(x, window), covariances(y, window)
        sd = torch.diagonal(true, dim1=1, dim2=2).permute(0, 3, 1, 2).clamp(min=0.0).add(flat).sqrt()
        total = total + ((true - found).abs() / (sd[:, :, None] * sd[:, None])).mean()
    return total / len(windows)


def dilate(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Largest value of a pixel and its four neighbours: dilation by CellProfiler's disk of radius 1."""
    return torch.maximum(F.max_pool2d(x, (3, 1), 1, (1, 0)), F.max_pool2d(x, (1, 3), 1, (0, 1)))


def erode(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Smallest value of a pixel and its four neighbours."""
    return -dilate(-x)


def opened(x: Float[Tensor, "b c h w"], steps: Sequence[int], more: int = 2) -> list[Float[Tensor, "b c h w"]]:
    """x after k erosions and k + `more` dilations under x, for each k of `steps` (rising): what is wider than 2 k
    pixels is left. CellProfiler dilates until nothing changes; `more` steps come near it where grains are compact.
    """
    out, now, before = [], x, 0
    for k in steps:
        for _ in range(k - before):
            now = erode(now)
        before, back = k, now
        for _ in range(k + more):
            back = torch.minimum(dilate(back), x)
        out.append(back)
    return out


def granular_loss(
    x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], steps: Sequence[int], window: int = 16
) -> Float[Tensor, ""]:
    """Mean distance of the local granular spectra (Ravkin and Temov 1988): what openings of rising size take away, as
    means over windows that overlap by half.
    """
    total = x.new_zeros(())
    for true, found in zip(opened(x, steps), opened(y, steps), strict=True):
        gone = [F.avg_pool2d(of - what, window, max(window // 2, 1)) for of, what in ((x, true), (y, found))]
        total = total + (gone[0] - gone[1]).abs().mean()
    return total / len(steps)
