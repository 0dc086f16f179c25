"""MeasureObjectIntensity of a batch: definitions in `families.intensity`.

Quantiles come from one sort a channel of (object, value) as whole numbers, the median deviation from a second one.
Which of several equal maxima CellProfiler takes follows from a sort of the whole field that no batch repeats; those
places come with the prepared fields, unless `stable` asks for the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from profiling.engines.families_torch.batch import Lists, bits, first_maxima, reduce, sorted_within, values_of

WIDTH = 21


def measure(
    of: Lists,
    pictures: Mapping[str, Float32[Tensor, "f h w"]],
    images: Sequence[str],
    brightest: Int64[Tensor, "n c"] | None,
) -> Float64[Tensor, "n k"]:
    """Values of `families.intensity.names`. brightest: place in its field of each object's maximum, None: the first."""
    edge = edge_pixels(of)
    blocks = []
    for c, image in enumerate(images):
        x = of.gather(pictures[image])
        place = first_maxima(of, x) if brightest is None else brightest[:, c]
        blocks.append(_channel(of, x, edge, place))
    out = torch.cat(blocks, dim=1) if blocks else torch.zeros(of.n, 0, dtype=torch.float64, device=of.device)
    out[of.area == 0] = torch.nan
    return out


def edge_pixels(of: Lists) -> Bool[Tensor, " p"]:
    """Pixels with a 4-neighbour in the picture that bears another label."""
    height, width = of.ids.shape[1:]
    edge = torch.zeros_like(of.owner, dtype=torch.bool)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (of.y + dy >= 0) & (of.y + dy < height) & (of.x + dx >= 0) & (of.x + dx < width)
        edge |= inside & ~of.same(dy, dx)
    return edge


def _channel(
    of: Lists, x: Float32[Tensor, " p"], edge: Bool[Tensor, " p"], place: Int64[Tensor, " n"]
) -> Float64[Tensor, "n k"]:
    v, n = x.double(), of.area.double()
    on = edge.double()
    total, by_y, by_x, sum_y, sum_x, edges, edge_total = of.sums(
        torch.stack([v, of.y * v, of.x * v, of.y.double(), of.x.double(), on, on * v], dim=1)
    ).unbind(1)
    mean, edge_mean = total / n, edge_total / edges
    square, edge_square = of.sums(
        torch.stack([(v - mean[of.owner]) ** 2, on * (v - torch.nan_to_num(edge_mean)[of.owner]) ** 2], dim=1)
    ).unbind(1)
    low, high = reduce(v, "min", of.runs), reduce(v, "max", of.runs)
    rim = [
        edge_total,
        edge_mean,
        (edge_square / edges).sqrt(),
        reduce(torch.where(edge, v, torch.inf), "min", of.runs),
        reduce(torch.where(edge, v, -torch.inf), "max", of.runs),
    ]
    rim = [torch.where(edges > 0, column, 0.0) for column in rim]  # one object covers the picture: it has no edge
    centre_x, centre_y, centre_z = by_x / total, by_y / total, 0.0 / total
    off = ((sum_x / n - centre_x) ** 2 + (sum_y / n - centre_y) ** 2 + (0.0 - centre_z) ** 2).sqrt()
    lower, median, upper, deviation = _quantiles(of, x)
    width = of.ids.shape[2]
    known = place >= 0
    places = [torch.where(known, at.double(), torch.nan) for at in (place % width, place // width, 0 * place)]
    columns = [total, mean, (square / n).sqrt(), low, high, *rim, off, lower, median, deviation, upper]
    return torch.stack([*columns, centre_x, centre_y, centre_z, *places], dim=1)


def _quantiles(of: Lists, x: Float32[Tensor, " p"]) -> tuple[Float64[Tensor, " n"], ...]:
    """At one, two and three quarters, and the median of the distance from the median."""
    rising = values_of(sorted_within(of.owner, bits(x))[0]).double()
    lower, median, upper = (_quantile(of, rising, quarters / 4.0) for quarters in (1, 2, 3))
    off, order = (rising - median[of.owner]).abs().sort(stable=True)
    return lower, median, upper, _quantile(of, off[of.owner[order].sort(stable=True)[1]], 0.5)


def _quantile(of: Lists, rising: Float64[Tensor, " p"], share: float) -> Float64[Tensor, " n"]:
    if not len(rising):
        return torch.full((of.n,), torch.nan, dtype=torch.float64, device=of.device)
    place = of.area.double() * share
    i = place.long()
    fraction = place - i
    last = len(rising) - 1
    here = rising[(of.start + i).clamp(max=last)]
    ahead = rising[(of.start + i + 1).clamp(max=last)]
    return torch.where(i < of.area - 1, here * (1.0 - fraction) + ahead * fraction, here)
