"""MeasureColocalization across whole pictures: the coefficients of `colocalization` for all pixels, and a slope.

As inside objects, but with thresholds as a share of the picture's maximum, > instead of ≥, and Slope: of the least
squares line of y on x. CellProfiler sums float32 pixels in float32 here; these are sums in float64, so values differ by
about 1e-6 relative from CellProfiler's rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32

from profiling.engines.families import pixel_order
from profiling.engines.families.costes import threshold
from profiling.engines.pipeline_settings import Colocalization


def names(settings: Colocalization) -> tuple[str, ...]:
    """Features of the table Image."""
    found: list[str] = []
    for a, b in itertools.combinations(settings.images, 2):
        found += [f"Correlation_{a}_{b}", f"Slope_{a}_{b}"] if settings.correlation else []
        found += [f"Overlap_{a}_{b}", f"K_{a}_{b}", f"K_{b}_{a}"] if settings.overlap else []
        for wanted, name in ((settings.manders, "Manders"), (settings.rwc, "RWC"), (settings.costes, "Costes")):
            found += [f"{name}_{a}_{b}", f"{name}_{b}_{a}"] if wanted else []
    return tuple(f"Correlation_{name}" for name in found)


def measure(pictures: Mapping[str, Float32[np.ndarray, "h w"]], settings: Colocalization) -> Float[np.ndarray, " k"]:
    """Values of `names(settings)`."""
    found: list[float] = []
    for a, b in itertools.combinations(settings.images, 2):
        with np.errstate(invalid="ignore", divide="ignore"):
            found += _pair(pictures[a], pictures[b], settings)
    return np.array(found)


def _pair(a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"], settings: Colocalization) -> list[float]:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    found: list[float] = []
    if settings.correlation:
        u, v = x - x.mean(), y - y.mean()
        found += [float(u @ v / np.sqrt((u @ u) * (v @ v))), float(u @ v / (u @ u))]
    bright_x, bright_y = (
        a.ravel() > np.float32(settings.share * a.max()),
        b.ravel() > np.float32(settings.share * b.max()),
    )
    both = bright_x & bright_y
    total_x, total_y = x[bright_x].sum(), y[bright_y].sum()
    x_in, y_in = x[both], y[both]
    if settings.overlap:
        cross, of_x, of_y = x_in @ y_in, x_in @ x_in, y_in @ y_in
        found += [float(cross / np.sqrt(of_x * of_y)), float(cross / of_x), float(cross / of_y)]
    if settings.manders:
        found += [float(x_in.sum() / total_x), float(y_in.sum() / total_y)]
    if settings.rwc:
        ranks = [_ranks(plane) for plane in (a, b)]
        top = max(int(r.max()) for r in ranks) + 1
        weight = (top - np.abs(ranks[0] - ranks[1])[both]) / top
        found += [float(x_in @ weight / total_x), float(y_in @ weight / total_y)]
    if settings.costes:
        limit_x, limit_y = (np.float32(t) for t in threshold(a, b, settings.costes_method))
        bright_x, bright_y = a.ravel() > limit_x, b.ravel() > limit_y
        both = bright_x & bright_y
        found += [float(x[both].sum() / x[bright_x].sum()), float(y[both].sum() / y[bright_y].sum())]
    return found


def _ranks(plane: Float32[np.ndarray, "h w"]) -> np.ndarray:
    ranks = np.empty(plane.size, np.int32)
    everywhere = np.ones(plane.size, np.int32)
    pixel_order.dense_ranks(pixel_order.rising(plane), np.ascontiguousarray(plane).ravel(), everywhere, ranks)
    return ranks.astype(np.int64)
