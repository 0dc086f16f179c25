"""MeasureColocalization inside the objects of a batch: definitions in `families.colocalization`.

Ranks run over all objects of one kind in a field: one sort a channel of (field, value), and a count of the steps.
Whole pictures are measured with the prepared fields, as are Costes's thresholds, which are searched step by step.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from profiling.engines.families_torch.batch import Lists, bits, reduce, sorted_within
from profiling.engines.pipeline_settings import Colocalization

Thresholds = Mapping[tuple[str, str], Float64[Tensor, "f 2"]]


@dataclass(frozen=True)
class _Channel:
    """One channel at the pixels of the lists; see `families.colocalization.Channel`."""

    x: Float32[Tensor, " p"]
    centred: Float64[Tensor, " p"]
    deviation: Float64[Tensor, " n"]
    above: Bool[Tensor, " p"]
    total: Float64[Tensor, " n"]
    rank: Int64[Tensor, " p"]
    ranks: Int64[Tensor, " n"]


def measure(
    of: Lists,
    pictures: Mapping[str, Float32[Tensor, "f h w"]],
    settings: Colocalization,
    costes: Thresholds,
    *,
    stable: bool = False,
) -> Float64[Tensor, "n k"]:
    """Values of `families.colocalization.names`; costes: thresholds of each pair of channels in each field."""
    channels = {image: _channel(of, of.gather(pictures[image]), settings, stable) for image in settings.images}
    columns: list[Float64[Tensor, " n"]] = []
    for a, b in itertools.combinations(settings.images, 2):
        columns += _pair(of, channels[a], channels[b], settings)
        if settings.costes:
            columns += _costes(of, channels[a].x, channels[b].x, costes[a, b].float())
    if not columns:
        return torch.zeros(of.n, 0, dtype=torch.float64, device=of.device)
    return torch.stack(columns, dim=1)


def _channel(of: Lists, x: Float32[Tensor, " p"], settings: Colocalization, stable: bool) -> _Channel:
    centred = x - (of.sums(x) / of.area)[of.owner]
    # float32, as numpy multiplies an array of float32 by a Python number
    top = reduce(x.double(), "max", of.runs).clamp(min=0.0).float()
    above = x >= (top * settings.share)[of.owner]
    total = of.sums(torch.where(above, x, 0.0))
    rank, ranks = _ranks(of, x, stable) if settings.rwc else (torch.zeros_like(of.owner), torch.ones_like(of.area))
    return _Channel(x, centred, of.sums(centred**2).sqrt(), above, total, rank, ranks)


def _ranks(of: Lists, x: Float32[Tensor, " p"], stable: bool) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " n"]]:
    """Dense rank of each pixel within its field (`stable`: its object), and how many ranks its object's field has."""
    group = of.owner if stable else of.field[of.owner]
    groups = of.n if stable else len(of.first) - 1
    keys, order = sorted_within(group, bits(x))
    sorted_group = group[order]
    new = torch.ones_like(keys)
    new[1:] = ((keys[1:] != keys[:-1]) | (sorted_group[1:] != sorted_group[:-1])).long()
    steps = new.cumsum(0)
    count = torch.bincount(sorted_group[new.bool()], minlength=groups)
    rank = torch.empty_like(steps)
    rank[order] = steps - 1 - (count.cumsum(0) - count)[sorted_group]
    return rank, (count if stable else count[of.field]).clamp(min=1)


def _pair(of: Lists, a: _Channel, b: _Channel, settings: Colocalization) -> list[Float64[Tensor, " n"]]:
    inside = (a.above & b.above).double()
    top = torch.maximum(a.ranks, b.ranks).double()[of.owner]
    weight = inside * ((top - (a.rank - b.rank).abs()) / top)
    x, y = a.x.double(), b.x.double()
    product, light_x, light_y, ranked_x, ranked_y, square_x, square_y, cross, both = of.sums(
        torch.stack(
            [
                a.centred * b.centred,
                inside * x,
                inside * y,
                weight * x,
                weight * y,
                inside * (a.x * a.x),  # float32 products
                inside * (b.x * b.x),
                inside * (a.x * b.x),
                inside,
            ],
            dim=1,
        )
    ).unbind(1)
    any_both = _any(of, both > 0)
    columns = [torch.where(of.area > 0, product / (a.deviation * b.deviation), torch.nan)] * settings.correlation
    if settings.overlap:
        columns += [torch.where(any_both, v, 0.0) for v in (cross / (square_x * square_y).sqrt(), cross / square_x)]
        columns += [torch.where(any_both, cross / square_y, 0.0)]
    for wanted, of_x, of_y in ((settings.manders, light_x, light_y), (settings.rwc, ranked_x, ranked_y)):
        columns += [torch.where(any_both, v, 0.0) for v in (of_x / a.total, of_y / b.total)] if wanted else []
    return columns


def _any(of: Lists, objects: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether any object of the same field is meant."""
    fields = torch.bincount(of.field[objects], minlength=len(of.first) - 1)
    return (fields > 0)[of.field]


def _costes(
    of: Lists, x: Float32[Tensor, " p"], y: Float32[Tensor, " p"], limits: Float32[Tensor, "f 2"]
) -> list[Float64[Tensor, " n"]]:
    limit_x, limit_y = limits[of.field[of.owner]].unbind(1)
    both = (x > limit_x) & (y > limit_y)
    columns = []
    for z, limit in ((x, limit_x), (y, limit_y)):
        over = _any(of, of.sums(z > limit) > 0)
        above = torch.where(over, of.sums(torch.where(z >= limit, z, 0.0)), 0.0)
        columns.append(of.sums(torch.where(both, z, 0.0)) / above)
    some = _any(of, of.sums(both) > 0)
    return [torch.where(some, column, 0.0) for column in columns]
