"""MeasureColocalization inside objects: do two channels rise together, and do they lie in the same places?

For channels x, y inside an object, with thresholds t_x, t_y = share × maximum of the object (CellProfiler 4.2.8,
`measurecolocalization.py`) and "both" the pixels with x ≥ t_x and y ≥ t_y:

* Correlation: Pearson's;
* Manders_x_y = Σ_both x / Σ_{x ≥ t_x} x (Manders et al. 1993);
* RWC_x_y: the same with each x of the numerator weighted by 1 − |rank x − rank y| / R (Singan et al. 2011). Ranks are
  dense and run over the pixels of *all* objects of this kind in the field, R the larger number of ranks: an object's
  RWC depends on every other object (CellProfiler issue 4967). `stable` ranks within each object;
* Overlap = Σ_both xy / √(Σ_both x² Σ_both y²), K_x_y = Σ_both xy / Σ_both x²;
* Costes_x_y: as Manders with the thresholds of `costes`, from the whole picture, > for both and ≥ in the denominator.

Manders, RWC and overlap are 0 for all objects where no object has a pixel in both. Products and thresholds are rounded
to float32, as numpy does with float32 pictures. Cost: one walk in rising order a channel for the ranks, then one pass
over the pixels a pair of channels: C(C − 1)/2 p with eight sums each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32
from numba import njit

from profiling.engines.families import colocalization_image, pixel_order
from profiling.engines.families.costes import threshold
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import Colocalization

_WHOLE, _INSIDE = "Across entire image", "Within objects"


@dataclass(frozen=True)
class Channel:
    """One channel at the pixels of the lists.

    bright: x where it reaches its object's threshold, else 0. above: where it does. total: Σ bright, an object each.
    """

    x: Float32[np.ndarray, " p"]
    centred: Float64[np.ndarray, " p"]
    deviation: Float64[np.ndarray, " n"]
    above: Bool[np.ndarray, " p"]
    bright: Float32[np.ndarray, " p"]
    total: Float64[np.ndarray, " n"]
    rank: Int32[np.ndarray, " p"]
    ranks: Int32[np.ndarray, " n"]


def pair_names(a: str, b: str, settings: Colocalization) -> list[str]:
    """Features of one pair of channels inside objects."""
    found = [f"Correlation_{a}_{b}"] if settings.correlation else []
    found += [f"Overlap_{a}_{b}", f"K_{a}_{b}", f"K_{b}_{a}"] if settings.overlap else []
    for wanted, name in ((settings.manders, "Manders"), (settings.rwc, "RWC"), (settings.costes, "Costes")):
        found += [f"{name}_{a}_{b}", f"{name}_{b}_{a}"] if wanted else []
    return [f"Correlation_{name}" for name in found]


def names(settings: Colocalization) -> tuple[str, ...]:
    """Features of each object table; none where only pictures are measured."""
    if settings.where == _WHOLE:
        return ()
    pairs = itertools.combinations(settings.images, 2)
    return tuple(name for a, b in pairs for name in pair_names(a, b, settings))


def image_names(settings: Colocalization) -> tuple[str, ...]:
    """Features of the table Image; none where only objects are measured."""
    return () if settings.where == _INSIDE else colocalization_image.names(settings)


def measure_image(
    pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Colocalization
) -> Float[np.ndarray, " k"]:
    """Values of `image_names(settings)`."""
    return np.zeros(0) if settings.where == _INSIDE else colocalization_image.measure(pictures, settings)


def thresholds(
    pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Colocalization
) -> dict[tuple[str, str], tuple[float, float]]:
    """Costes's thresholds of every pair of channels; empty where they are not asked for."""
    if not settings.costes:
        return {}
    pairs = itertools.combinations(settings.images, 2)
    return {(a, b): threshold(pictures[a], pictures[b], settings.costes_method) for a, b in pairs}


def measure(
    regions: Regions,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    settings: Colocalization,
    *,
    orders: pixel_order.Orders | None = None,
    costes: Mapping[tuple[str, str], tuple[float, float]] | None = None,
    stable: bool = False,
) -> Float[np.ndarray, "n k"]:
    """Values of `names(settings)`. `orders`, `costes`: `pixel_order.rising` and `thresholds`, where already known."""
    if settings.where == _WHOLE:
        return np.zeros((regions.n, 0))
    if settings.costes and costes is None:
        costes = thresholds(pictures, settings)
    sorts = pixel_order.of_channels(pictures, settings.images, orders) if settings.rwc else {}
    channels = {name: _channel(regions, pictures[name], settings, sorts.get(name), stable) for name in settings.images}
    blocks = [np.zeros((regions.n, 0))]
    for a, b in itertools.combinations(settings.images, 2):
        blocks.append(_pair(regions, channels[a], channels[b], settings))
        if costes:
            blocks.append(_costes(regions, channels[a].x, channels[b].x, *costes[a, b]))
    return np.concatenate(blocks, axis=1)


def _channel(
    regions: Regions,
    picture: Float32[np.ndarray, "h w"],
    settings: Colocalization,
    order: Int32[np.ndarray, " q"] | None,
    stable: bool,
) -> Channel:
    x = regions.gather(picture)
    p, n = x.size, regions.n
    centred, deviation, total = np.empty(p), np.empty(n), np.empty(n)
    above, bright = np.empty(p, np.bool_), np.empty(p, np.float32)
    rank, ranks = np.zeros(p, np.int32), np.ones(n, np.int32)
    _describe(regions.start, x, np.float32(settings.share), centred, deviation, above, bright, total)
    if order is not None and stable:
        flat, labels = np.ascontiguousarray(picture).ravel(), regions.labels.ravel()
        at = np.empty(labels.size, np.int32)
        ranks = pixel_order.ranks_of_objects(order, flat, labels, n, at).astype(np.int32)
        rank = at[regions.index]
    elif order is not None:
        flat, labels = np.ascontiguousarray(picture).ravel(), regions.labels.ravel()
        at = np.empty(labels.size, np.int32)
        ranks = np.full(n, pixel_order.dense_ranks(order, flat, labels, at) + 1, np.int32)
        rank = at[regions.index]
    return Channel(x, centred, deviation, above, bright, total, rank, ranks)


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _describe(start, x, share, centred, deviation, above, bright, total):
    for k in range(start.size - 1):
        first, last = start[k], start[k + 1]
        mean = 0.0
        top = np.float32(0.0)
        for p in range(first, last):
            mean += x[p]
            top = max(top, x[p])
        mean /= last - first
        limit = share * top  # float32, as numpy multiplies an array of float32 by a Python number
        square = light = 0.0
        for p in range(first, last):
            centred[p] = x[p] - mean
            square += centred[p] * centred[p]
            above[p] = x[p] >= limit
            bright[p] = x[p] if above[p] else np.float32(0.0)
            light += bright[p]
        deviation[k] = np.sqrt(square)
        total[k] = light


def _pair(regions: Regions, a: Channel, b: Channel, settings: Colocalization) -> Float[np.ndarray, "n k"]:
    s = np.zeros((9, regions.n))
    _sums(
        regions.start, a.centred, a.above, a.bright, a.rank, b.centred, b.above, b.bright, b.rank,
        np.maximum(a.ranks, b.ranks), s,
    )  # fmt: skip
    columns = []
    with np.errstate(invalid="ignore", divide="ignore"):
        if settings.correlation:
            correlation = s[0] / (a.deviation * b.deviation)
            columns.append(np.where(regions.area == 0, np.nan, correlation))
        if s[8].any():
            overlap = [s[7] / np.sqrt(s[5] * s[6]), s[7] / s[5], s[7] / s[6]]
            manders, ranked = [s[1] / a.total, s[2] / b.total], [s[3] / a.total, s[4] / b.total]
        else:
            overlap, manders, ranked = ([np.zeros(regions.n)] * k for k in (3, 2, 2))
    columns += overlap if settings.overlap else []
    columns += manders if settings.manders else []
    columns += ranked if settings.rwc else []
    return np.stack(columns, axis=1) if columns else np.zeros((regions.n, 0))


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
@no_type_check
def _sums(start, cx, above_x, x, rank_x, cy, above_y, y, rank_y, ranks, out):
    """Rows of `out` [9, n]: Σ of centred products; in both: x, y, x and y weighted by ranks, x², y², xy, pixels."""
    for k in range(start.size - 1):
        top = float(ranks[k])
        product = light_x = light_y = ranked_x = ranked_y = square_x = square_y = cross = both = 0.0
        for p in range(start[k], start[k + 1]):
            product += cx[p] * cy[p]
            inside = 1.0 if above_x[p] and above_y[p] else 0.0
            weight = inside * ((top - abs(rank_x[p] - rank_y[p])) / top)
            light_x += inside * x[p]
            light_y += inside * y[p]
            ranked_x += weight * x[p]
            ranked_y += weight * y[p]
            square_x += inside * np.float32(x[p] * x[p])
            square_y += inside * np.float32(y[p] * y[p])
            cross += inside * np.float32(x[p] * y[p])
            both += inside
        out[0, k], out[1, k], out[2, k] = product, light_x, light_y
        out[3, k], out[4, k] = ranked_x, ranked_y
        out[5, k], out[6, k], out[7, k], out[8, k] = square_x, square_y, cross, both


def _costes(
    regions: Regions, x: Float32[np.ndarray, " p"], y: Float32[np.ndarray, " p"], limit_x: float, limit_y: float
) -> Float[np.ndarray, "n 2"]:
    """Costes_x_y and Costes_y_x; thresholds are compared in float32, as numpy does."""
    low = np.float32(limit_x), np.float32(limit_y)
    both = (x > low[0]) & (y > low[1])
    if not both.any():
        return np.zeros((regions.n, 2))
    found = []
    for z, limit in ((x, low[0]), (y, low[1])):
        above = (
            regions.sums(np.where(z >= limit, z, 0).astype(np.float64)) if (z > limit).any() else np.zeros(regions.n)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            found.append(regions.sums(np.where(both, z, 0).astype(np.float64)) / above)
    return np.stack(found, axis=1)
