"""MeasureObjectIntensityDistribution of a batch: definitions in `families.radial`.

Rings and wedges are found once a kind of object; each channel is then two sums over runs of pixels sorted by ring and
by wedge, in float32 and raster order as CellProfiler adds them up (float64 with `stable`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from profiling.engines.families_torch import distance, zernike
from profiling.engines.families_torch.batch import Lists, first_maxima, reduce, runs
from profiling.engines.pipeline_settings import Bins, Distribution


def measure(
    of: Lists,
    pictures: Mapping[str, Float32[Tensor, "f h w"]],
    settings: Distribution,
    centres: Int64[Tensor, " n"] | None,
    circles: Float64[Tensor, "n 3"],
) -> Float64[Tensor, "n k"]:
    """Values of `families.radial.names`. centres: place of each object's centre in its field; None: the first of the
    pixels farthest from the edge (`stable`, and sums in float64). circles: smallest enclosing (row, column, radius).
    """
    stable = centres is None
    squared = of.gather(distance.squared_to_edge(of.ids))
    middle = first_maxima(of, squared) if centres is None else centres
    from_centre = distance.path_from(of, middle)
    rings = [_code(of, bins, middle, from_centre, squared.double().sqrt()) for bins in settings.bins]
    x = of.stack([pictures[image] for image in settings.images]).to(torch.float64 if stable else torch.float32)
    by_bins = [_of_bins(of, x, bins, code) for bins, code in zip(settings.bins, rings, strict=True)]
    moments = zernike.of_intensity(of, x.double(), settings.degree, settings.zernikes, circles)
    blocks = [torch.zeros(of.n, 0, dtype=torch.float64, device=of.device)]
    for c in range(len(settings.images)):
        blocks += [block[:, c] for block in by_bins]
        blocks += [moments[:, c]] if moments is not None else []
    return torch.cat(blocks, dim=1)


def _code(
    of: Lists,
    bins: Bins,
    centres: Int64[Tensor, " n"],
    from_centre: Float64[Tensor, " p"],
    to_edge: Float64[Tensor, " p"],
) -> Int64[Tensor, " p"]:
    """8 × ring + wedge of each pixel, -1 in no ring."""
    width = of.ids.shape[2]
    reached = torch.isfinite(from_centre)
    d = torch.where(reached, from_centre, 0.0)
    share = d / (d + to_edge + 0.001) if bins.scaled else d / float(bins.radius)
    ring = (share * bins.count).long().clamp(max=bins.count)
    dy, dx = of.y - (centres // width)[of.owner], of.x - (centres % width)[of.owner]
    wedge = (dy > 0).long() + 2 * (dx > 0) + 4 * (dy.abs() > dx.abs())
    return torch.where(reached, 8 * ring + wedge, -1)


def _of_bins(
    of: Lists, x: Float32[Tensor, "p c"] | Float64[Tensor, "p c"], bins: Bins, code: Int64[Tensor, " p"]
) -> Float64[Tensor, "n c k"]:
    """FracAtD, MeanFrac and RadialCV of all rings, channel by channel."""
    n, rings, channels = of.n, bins.count + 1, x.shape[1]
    light, area = _grouped(of, x, torch.where(code >= 0, code // 8, -1), rings)
    wedges, pixels = _grouped(of, x, code, 8 * rings)
    total = light[:, 0]
    for ring in range(1, rings):  # one after the other, as few float32 values are added
        total = total + light[:, ring]
    fraction = (light / total[:, None]).double()
    share = area / area.sum(dim=1, keepdim=True)
    mean_fraction = fraction / (share + torch.finfo(torch.float64).eps)[:, :, None]
    used = pixels.reshape(n, rings, 8, 1) > 0
    wedge = torch.where(used, wedges.double().reshape(n, rings, 8, channels) / pixels.reshape(n, rings, 8, 1), 0.0)
    number = used.sum(dim=2).double()
    mean = wedge.sum(dim=2) / number
    square = (torch.where(used, wedge - mean[:, :, None], 0.0) ** 2).sum(dim=2)
    spread = torch.where((number > 0) & (wedge.sum(dim=2) != 0), (square / number).sqrt() / mean, 0.0)
    kept = bins.count + (0 if bins.scaled else 1)
    out = torch.cat([part[:, :kept] for part in (fraction, mean_fraction, spread)], dim=1)
    return out.transpose(1, 2)


def _grouped(
    of: Lists, x: Float32[Tensor, "p c"] | Float64[Tensor, "p c"], code: Int64[Tensor, " p"], codes: int
) -> tuple[Float32[Tensor, "n k c"] | Float64[Tensor, "n k c"], Float64[Tensor, "n k"]]:
    """Sums of x over the pixels of each code (below 0: left out), and how many there are."""
    group = torch.where(code >= 0, of.owner * codes + code, of.n * codes)
    order = group.sort(stable=True)[1]
    count = torch.bincount(group, minlength=of.n * codes + 1)[:-1]
    total = int(count.sum())
    light = reduce(x[order[:total]], "sum", runs(count))
    return light.reshape(of.n, codes, x.shape[1]), count.reshape(of.n, codes).double()
