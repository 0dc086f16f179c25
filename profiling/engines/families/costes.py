"""Costes's automatic thresholds of two channels of a whole picture, as MeasureColocalization finds them.

Pixels below both thresholds should not correlate. Thresholds lie on the line y = a x + b of orthogonal regression, with
a = ((v_y − v_x) + √((v_y − v_x)² + 4c²)) / 2c for variances v and covariance c of the pixels that are not 0 in both.
"Faster" searches the camera's counts 1 to 65,535 by sections of one sixth for the last one below which Pearson's
correlation is not negative; "Fast" and "Accurate" walk down from the maximum, in larger steps while the correlation is
high, or one count at a time, until it is no longer positive. Costes et al., Biophys. J. 86, 3993 (2004); CellProfiler
4.2.8, `bisection_costes` and `linear_costes`.

Artefact: near zero correlation its sign is rounding noise, and the search is not monotone, so a threshold can jump.

Only the sign of a correlation decides in the first method, and a correlation over the pixels x < t or y < s needs five
sums; each step is one pass over the picture. Cost: about 60 passes a pair of channels.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

from profiling.engines.families import float32_sums
from profiling.engines.settings import InvalidSettings

CAMERA_MAXIMUM = 65535.0  # counts that 1 stands for
METHODS = ("Fast", "Faster", "Accurate")


def threshold(x: Float32[np.ndarray, "h w"], y: Float32[np.ndarray, "h w"], method: str) -> tuple[float, float]:
    """Thresholds of x and y, in their units.

    Raises:
        InvalidSettings: an unknown method.
    """
    if method not in METHODS:
        raise InvalidSettings(f"Costes method: got {method!r}, expected one of {', '.join(METHODS)}")
    x, y = np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = _line(x, y)
    return _sections(x, y, a, b) if method == "Faster" else _walk(x, y, a, b, method)


def _line(x: Float32[np.ndarray, " p"], y: Float32[np.ndarray, " p"]) -> tuple[float, float]:
    """Slope and intercept; variances and means in float32, the rest in float64, as numpy 1.24 rounds scalars."""
    some = (x > 0) | (y > 0)
    x, y = x[some], y[some]
    of_x, of_y = float32_sums.variance(x, 1), float32_sums.variance(y, 1)
    of_sum = float32_sums.variance(x + y, 1)
    covariance = np.float64(0.5) * np.float64(of_sum - (of_x + of_y))
    difference = of_y - of_x
    numerator = np.float64(difference) + np.sqrt(np.float64(difference * difference) + 4 * (covariance * covariance))
    a = numerator / (2 * covariance)
    b = np.float64(float32_sums.mean(y)) - a * np.float64(float32_sums.mean(x))
    return float(a), float(b)


def _sections(x: Float32[np.ndarray, " p"], y: Float32[np.ndarray, " p"], a: float, b: float) -> tuple[float, float]:
    left, right = 1.0, CAMERA_MAXIMUM
    middle = ((right - left) // (6 / 5)) + left
    before, valid = 0.0, 1.0
    while before != middle:
        limit = middle / CAMERA_MAXIMUM
        count, r = _below(x, y, np.float32(limit), np.float32(a * limit + b))
        if count <= 2 or r < 0:
            left = middle - 1
        elif r >= 0:
            right = middle + 1
            valid = middle
        before = middle
        middle = ((right - left) // (6 / 5 if right - left > 6 else 2)) + left
    limit = (valid - 1) / CAMERA_MAXIMUM
    return limit, a * limit + b


def _walk(
    x: Float32[np.ndarray, " p"], y: Float32[np.ndarray, " p"], a: float, b: float, method: str
) -> tuple[float, float]:
    step = 1 / CAMERA_MAXIMUM
    top_x, top_y = float(x.max()), float(y.max())
    i = step * ((max(top_x, top_y) // step) + 1)
    limits = i, a * i + b
    while i > top_x and a * i + b > top_y:
        i -= step
    last, r = -1, float("nan")
    while i > step:
        limits = i, a * i + b
        count, new = _below(x, y, np.float32(limits[0]), np.float32(limits[1]))
        if count < 2:  # pearsonr refuses, and the module stops there
            break
        r = new if count != last else r
        last = count
        if r <= 0:
            break
        steps = 1
        if method == "Fast" and i >= step * 10:
            steps = 10 if r > 0.45 else 5 if r > 0.35 else 2 if r > 0.25 else 1
        i -= step * steps
    return limits


def _below(
    x: Float32[np.ndarray, " p"], y: Float32[np.ndarray, " p"], limit_x: np.float32, limit_y: np.float32
) -> tuple[int, float]:
    """Pixels with x or y below its threshold, and their correlation; NaN where one channel is even there."""
    sums = _moments(x, y, limit_x, limit_y, float(limit_x), float(limit_y))
    count = int(sums[0])
    if count < 2 or sums[6] == sums[7] or sums[8] == sums[9]:
        return count, float("nan")
    _, sx, sy, sxx, syy, sxy = sums[:6].tolist()
    covariance = sxy - sx * sy / count
    spread = (sxx - sx * sx / count) * (syy - sy * sy / count)
    return count, float(covariance / np.sqrt(spread)) if spread > 0 else float("nan")


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
@no_type_check
def _moments(x, y, limit_x, limit_y, shift_x, shift_y):
    """Count, Σx, Σy, Σx², Σy², Σxy of values less the thresholds, and the extremes of x and y."""
    count = sx = sy = sxx = syy = sxy = 0.0
    low_x, high_x, low_y, high_y = np.float32(2.0), np.float32(-1.0), np.float32(2.0), np.float32(-1.0)
    for p in range(x.size):
        if x[p] < limit_x or y[p] < limit_y:
            u, v = x[p] - shift_x, y[p] - shift_y
            count += 1.0
            sx += u
            sy += v
            sxx += u * u
            syy += v * v
            sxy += u * v
            low_x, high_x = min(low_x, x[p]), max(high_x, x[p])
            low_y, high_y = min(low_y, y[p]), max(high_y, y[p])
    return np.array([count, sx, sy, sxx, syy, sxy, low_x, high_x, low_y, high_y])
