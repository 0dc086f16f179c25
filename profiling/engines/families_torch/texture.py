"""MeasureTexture of a batch: definitions in `families.texture`.

A pixel pair knows its cell of the co-occurrence matrix, and how often that cell, its sum, its difference and its two
levels occur is one count (whole numbers, scattered) that every pair then reads back. As Σ over cells of c log₂ c is Σ
over pairs of log₂ c, all 13 features are sums over the pairs of an object: no matrix is ever walked, and an object's
matrix is only as large as its own range of levels.

Cost: a pair is counted five times and read back five times, by each channel, distance and direction. Floor: 80 bytes of
levels, keys and counts a pair from the memory of the device: 14 million pairs (384², `jump`) are 1.1 GB a field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from profiling.engines.families import texture_counts
from profiling.engines.families.texture import FEATURES
from profiling.engines.families_torch.batch import Lists, Runs, reduce, runs

_CELLS = 1 << 26  # counters of co-occurrence at once: 512 MiB
_OFFSETS = tuple(zip(texture_counts.ROWS.tolist(), texture_counts.COLUMNS.tolist(), strict=True))


def quantise(pictures: Float32[Tensor, "f h w"], levels: int) -> Int64[Tensor, "f h w"]:
    """As `families.texture.quantise`."""
    eight_bits = (pictures * 255.0).round().clamp(0.0, 255.0).long()
    if levels == 256:
        return eight_bits
    table = torch.arange(256, dtype=torch.float64, device=pictures.device) / 255 * (levels - 1)
    return table.to(torch.uint8).long()[eight_bits]


def measure(
    of: Lists,
    pictures: Mapping[str, Float32[Tensor, "f h w"]],
    images: Sequence[str],
    scales: Sequence[int],
    levels: int,
    *,
    whole: bool = False,
) -> Float64[Tensor, "n k"]:
    """Values of `families.texture.names`, or of `image_names` where `of` is each whole picture as one object.

    Inside objects level 0 counts as outside, in whole pictures it does not.
    """
    directions = len(_OFFSETS)
    out = torch.zeros(of.n, len(FEATURES), len(images), len(scales), directions, dtype=torch.float64, device=of.device)
    quantised = [quantise(pictures[image], levels).reshape(-1) for image in images]
    for s, scale in enumerate(scales):
        for d, (dy, dx) in enumerate(_OFFSETS):
            there, same = of.at(scale * dy, scale * dx)
            here, there, owner = of.index[same], there[same], of.owner[same]
            pairs = runs(torch.bincount(owner, minlength=of.n))
            for c, level in enumerate(quantised):
                out[:, :, c, s, d] = _features(of, level, here, there, owner, pairs, whole)
    # No pair in one direction: 0 in all, as mahotas leaves it.
    alone = torch.isnan(out[:, 0]).any(dim=-1)[:, None, :, :, None]
    return torch.where(alone, 0.0, out).flatten(1)


def _features(
    of: Lists,
    level: Int64[Tensor, " q"],
    here: Int64[Tensor, " p"],
    there: Int64[Tensor, " p"],
    owner: Int64[Tensor, " p"],
    over: Runs,
    whole: bool,
) -> Float64[Tensor, "n 13"]:
    """NaN for an object without a pair."""
    own = level[of.index]
    seen = own.double() if whole else torch.where(own > 0, own.double(), torch.inf)
    low = reduce(seen, "min", of.runs)
    low = torch.where(torch.isfinite(low), low, 0.0).long()
    high = reduce(own.double(), "max", of.runs).clamp(min=0.0).long()
    span = high - low + 1
    a, b = level[here], level[there]
    kept = torch.ones_like(a, dtype=torch.bool) if whole else (a > 0) & (b > 0)
    a, b = (a - low[owner]).clamp(min=0), (b - low[owner]).clamp(min=0)
    weight = kept.double()
    difference, both = (a - b).abs(), a + b
    pairs = reduce(weight, "sum", over)
    mean = reduce(weight * both, "sum", over) / (2.0 * pairs)

    first = span.cumsum(0) - span
    width = int(span.sum())
    single = torch.bincount(_kept((first[owner] + a), kept, width), minlength=width + 1)
    single += torch.bincount(_kept((first[owner] + b), kept, width), minlength=width + 1)
    minus = _count(first[owner] + difference, kept, width)
    plus = _count(2 * first[owner] + both, kept, 2 * width)
    cell = _cells(torch.minimum(a, b) * span[owner] + torch.maximum(a, b), kept, owner, span, over.lengths)
    on = difference == 0
    twice = torch.where(on, 2.0, 1.0) * cell
    m = mean[owner]
    columns = [
        2.0 * twice,
        2.0 * twice.log2(),
        (a - m) ** 2 + (b - m) ** 2,
        single[first[owner] + a].double().log2() + single[first[owner] + b].double().log2(),
        difference.double() ** 2,
        1.0 / (1.0 + difference.double() ** 2),
        minus.log2(),
        minus,
        (both - 2.0 * m) ** 2,
        plus.log2(),
    ]
    sums = reduce(torch.stack([torch.where(kept, c.double(), 0.0) for c in columns], dim=1), "sum", over)
    return _finish(sums, pairs, mean, low, high + 1)


def _kept(keys: Int64[Tensor, " p"], kept: Bool[Tensor, " p"], size: int) -> Int64[Tensor, " p"]:
    """Keys, those of pairs that do not count behind the last."""
    return torch.where(kept, keys, size)


def _count(keys: Int64[Tensor, " p"], kept: Bool[Tensor, " p"], size: int) -> Float64[Tensor, " p"]:
    """How many pairs have the key of each pair."""
    at = _kept(keys, kept, size)
    return torch.bincount(at, minlength=size + 1)[at].double()


def _cells(
    within: Int64[Tensor, " p"],
    kept: Bool[Tensor, " p"],
    owner: Int64[Tensor, " p"],
    span: Int64[Tensor, " n"],
    lengths: Int64[Tensor, " n"],
) -> Float64[Tensor, " p"]:
    """How many pairs of its object lie in the cell of each pair; objects in portions that `_CELLS` counters hold."""
    size = span * span
    first = size.cumsum(0) - size
    ends, pairs = (size.cumsum(0)).tolist(), [0, *lengths.cumsum(0).tolist()]
    found, begin, used = [], 0, 0
    for k in range(len(ends)):
        if k + 1 == len(ends) or ends[k + 1] - used > _CELLS:
            part = slice(pairs[begin], pairs[k + 1])
            keys = within[part] + first[owner[part]] - used
            found.append(_count(keys, kept[part], ends[k] - used))
            begin, used = k + 1, ends[k]
    return torch.cat(found) if found else within.double()


def _finish(
    sums: Float64[Tensor, "n 10"],
    pairs: Float64[Tensor, " n"],
    mean: Float64[Tensor, " n"],
    low: Int64[Tensor, " n"],
    levels: Int64[Tensor, " n"],
) -> Float64[Tensor, "n 13"]:
    """From sums over pairs; T = 2 pairs ordered ones. See `families.texture_counts`."""
    square, clog, spread, of_single, contrast, homogeneity, of_minus, square_minus, of_plus2, of_plus = sums.unbind(1)
    total = 2.0 * pairs
    variance, contrast, sum_variance = spread / total, contrast / pairs, of_plus2 / pairs
    entropy, single = _entropy(total, clog), _entropy(total, of_single)
    correlation = torch.where(variance > 0, (sum_variance - contrast) / (4.0 * variance), 1.0)
    information = torch.where(single > 0, (entropy - 2.0 * single) / single, 0.0)
    features = [
        square / (total * total),
        contrast,
        correlation,
        variance,
        homogeneity / pairs,
        2.0 * (mean + low),
        sum_variance,
        _entropy(pairs, of_plus),
        entropy,
        (levels * (square_minus / (pairs * pairs)) - 1.0) / (levels * levels),
        _entropy(pairs, of_minus),
        information,
        (1.0 - (-2.0 * (2.0 * single - entropy)).exp()).clamp(min=0.0).sqrt(),
    ]
    return torch.where(pairs[:, None] > 0, torch.stack(features, dim=1), torch.nan)


def _entropy(total: Float64[Tensor, " n"], clog: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """log₂ T − Σ c log₂ c / T; exactly 0 where one count holds all."""
    h = total.log2() - clog / total
    return torch.where(h > 1e-13, h, 0.0)
