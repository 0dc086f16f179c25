"""Global thresholds as CellProfiler takes them: which pixels of a picture are foreground.

Otsu's threshold is that of scikit-image 0.20 (256 bins over the range of the picture, counts and class means summed in
single precision); the picture may be smoothed before it is compared with the corrected threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import no_type_check

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Num
from numba import njit

BINS = 256
METHODS = ("Otsu", "Minimum Cross-Entropy", "Robust Background", "Manual")


class InvalidThreshold(ValueError):
    """A kind of threshold that is not built."""


@dataclass(frozen=True)
class Threshold:
    """The threshold of one Identify module; `smoothing` is CellProfiler's scale, sigma = scale / 1.3488."""

    strategy: str = "Global"
    method: str = "Otsu"
    classes: str = "Two classes"
    middle: str = "Foreground"
    log: bool = False
    smoothing: float = 0.0
    correction: float = 1.0
    low: float = 0.0
    high: float = 1.0
    manual: float = 0.0

    def __post_init__(self) -> None:
        if self.strategy != "Global" or self.method not in METHODS or self.log:
            raise InvalidThreshold(
                f"threshold: got {self.strategy} {self.method}{' of logarithms' if self.log else ''}, expected Global, "
                f"without logarithms, {', '.join(METHODS)}: use engine cellprofiler for this pipeline"
            )
        if self.method == "Otsu" and self.classes != "Two classes":
            raise InvalidThreshold("threshold: Otsu with three classes; only two are built: use engine cellprofiler")


#: What CellProfiler takes where the advanced settings are switched off.
AUTOMATIC = Threshold(method="Minimum Cross-Entropy", smoothing=1.3488)


@dataclass(frozen=True)
class Foreground:
    """A thresholded picture, the threshold as compared and as found."""

    mask: Bool[np.ndarray, "h w"]
    final: float
    found: float


def foreground(picture: Num[np.ndarray, "h w"], settings: Threshold) -> Foreground:
    """Pixels at or above the corrected threshold; `picture` float32 in [0, 1]."""
    found = find(picture, settings)
    final = float(found)
    if settings.method != "Manual":
        # In the picture's precision, as the module does.
        final = min(max(float(type(found)(found * settings.correction)), settings.low), settings.high)
    compared = picture if settings.smoothing == 0 else smooth(picture, settings.smoothing / 0.6744 / 2.0)
    return Foreground(compared >= final, final, float(found))


def smooth(picture: Num[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    """Gaussian smoothing that takes the outside for missing, not for black (centrosome
    `smooth_with_function_and_mask`)."""
    blurred = scipy.ndimage.gaussian_filter(picture, sigma, mode="constant", cval=0)
    return np.asarray(blurred / _weight(picture.shape, sigma))


@lru_cache(maxsize=4)
def _weight(shape: tuple[int, ...], sigma: float) -> Float[np.ndarray, "h w"]:
    """The share of the Gaussian that lies inside the picture."""
    inside = scipy.ndimage.gaussian_filter(np.ones(shape), sigma, mode="constant", cval=0)
    return np.asarray(inside + np.finfo(float).eps)


def find(picture: Num[np.ndarray, "h w"], settings: Threshold) -> np.floating:
    """The threshold before correction, in the picture's precision."""
    if settings.method == "Manual":
        return np.float64(settings.manual)
    pixels = np.ascontiguousarray(picture).ravel()
    if not pixels.size:
        return np.float64(0.0)
    if (pixels == pixels[0]).all():
        return pixels.dtype.type(pixels[0])
    if settings.method == "Minimum Cross-Entropy":
        return _cross_entropy(pixels)
    if settings.method == "Robust Background":
        return _robust_background(pixels)
    return otsu(pixels)


def otsu(pixels: Float[np.ndarray, " p"]) -> np.floating:
    """Otsu 1979: the bin centre that maximises the variance between two classes; in the pixels' precision."""
    low, high = pixels.min(), pixels.max()
    # The edges are spaced in double precision and rounded to the pixels'.
    edges = np.linspace(np.float64(low), np.float64(high), BINS + 1).astype(pixels.dtype)
    counts = _histogram(pixels, edges).astype(np.float32)
    centres = (edges[:-1] + edges[1:]) / pixels.dtype.type(2)
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / below
    mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    best: np.floating = centres[np.argmax(between)]
    return best


@njit(cache=True, nogil=True)
@no_type_check
def _histogram(pixels, edges):
    """Counts between ascending edges, the last bin closed on both sides: numpy's, to the edge."""
    bins = edges.size - 1
    out = np.zeros(bins, np.int64)
    low, scale = edges[0], bins / (edges[bins] - edges[0])
    for v in pixels:
        k = min(int((v - low) * scale), bins - 1)
        if v < edges[k]:
            k -= 1
        elif k < bins - 1 and v >= edges[k + 1]:
            k += 1
        out[k] += 1
    return out


def _cross_entropy(pixels: Float[np.ndarray, " p"]) -> np.floating:
    """Li and Tam 1998, by iteration from the mean, to half the smallest step between grey values."""
    steps = np.diff(np.unique(pixels))
    tolerance = max(float(steps.min()) / 2, 0.5 / 65536)
    low = pixels.min()
    shifted = pixels - low
    after, now = np.mean(shifted), -2 * tolerance
    while abs(after - now) > tolerance:
        now = after
        bright = shifted > now
        fore, back = np.mean(shifted[bright]), np.mean(shifted[~bright])
        after = (back - fore) / (np.log(back) - np.log(fore))
    out: np.floating = after + low
    return out


def _robust_background(pixels: Float[np.ndarray, " p"]) -> np.floating:
    """Mean plus two standard deviations of the pixels between the 5th and 95th percentile."""
    ordered = np.sort(pixels)
    cut = round(len(ordered) * 0.05)
    kept = ordered[cut : len(ordered) - cut] if cut else ordered
    out: np.floating = kept.mean() + kept.std() * 2.0
    return out


def weighted_variance(picture: Num[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """Variance of log2 intensity inside foreground and background, weighted by pixels; the grey values below 1/256 of
    the brightest count as that (centrosome `weighted_variance`)."""
    floor = picture.max() / picture.dtype.type(256)
    if floor == 0:
        return 0.0
    logs = np.log2(np.maximum(picture, floor))
    fore, back = logs[mask], logs[~mask]
    if not len(fore) or not len(back):
        return float(np.var(back if not len(fore) else fore))
    return float((np.var(fore) * len(fore) + np.var(back) * len(back)) / (len(fore) + len(back)))


@lru_cache(maxsize=4)
def _noise(shape: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    return np.random.RandomState(0).normal(size=shape)


def sum_of_entropies(picture: Num[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """Entropy of the log intensities of foreground and background, in 256 bins, after noise of 8 bits below each pixel
    (centrosome `sum_of_entropies`; the noise is NumPy's legacy generator with seed 0)."""
    floor = picture.max() / picture.dtype.type(256)
    if floor == 0:
        return 0.0
    clamped = np.maximum(picture, floor)
    noise = _noise(picture.shape)
    delta = 2.0**-8
    kept = np.clip(clamped, picture.dtype.type(delta), picture.dtype.type(1))
    noisy = np.exp2(np.log2(kept + picture.dtype.type(delta)) * noise + (1 - noise) * np.log2(kept))
    noisy = np.clip(noisy, 0.0, 1.0)
    low, high = np.log2(noisy.min()), np.log2(noisy.max())
    if low == high:
        return float(np.log2(picture.size))
    if mask.all() or not mask.any():
        return 0.0
    total = 0.0
    for part in (noisy[mask], noisy[~mask]):
        counts = np.histogram(np.log2(part), BINS, range=(low, high))[0]
        share = counts[counts > 0] / max(counts.sum(), 1)
        total += float((share * np.log2(share)).sum())
    return total
