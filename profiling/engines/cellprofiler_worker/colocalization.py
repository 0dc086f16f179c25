# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""MeasureColocalization inside objects: Pearson, Manders, rank-weighted and overlap, for all pairs of channels.

The module sorts, averages and thresholds each channel anew for each pair it is in, and sums with a general labelled
sum; here that is done once a channel, and one compiled pass over the pixels sums a pair. The definitions are the
module's: ranks run over the pixels of all objects of the field, thresholds are a share of each object's maximum.
Annotations stay away from the compiled function on purpose: numba compiles it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from centrosome.cpmorphology import fixup_scipy_ndimage_result as fix
from numba import njit


@dataclass
class _Channel:
    """One channel inside one kind of object; pixels in raster order."""

    pixels: np.ndarray
    centred: np.ndarray  # pixel minus its object's mean, float64
    deviation: np.ndarray  # [objects] square root of the sum of squares of `centred`
    above: np.ndarray  # pixel reaches its object's threshold
    total: np.ndarray  # [objects] sum of the pixels above
    rank: np.ndarray


def _channel(pixels: np.ndarray, labels: np.ndarray, index: np.ndarray, share: float) -> _Channel:
    mean = fix(scipy.ndimage.mean(pixels, labels, index))
    centred = pixels - mean[labels - 1]
    deviation = np.sqrt(fix(scipy.ndimage.sum(centred**2, labels, index)))
    threshold = share * fix(scipy.ndimage.maximum(pixels, labels, index))
    above = pixels >= threshold[labels - 1]
    total = np.asarray(scipy.ndimage.sum(pixels[above], labels[above], index))
    # Dense ranks: equal values share one. The module sorts by value, then by label, which gives the same ranks.
    order = np.argsort(pixels, kind="stable")
    steps = np.hstack([[False], pixels[order[:-1]] != pixels[order[1:]]])
    rank = np.empty(pixels.shape, np.int64)
    rank[order] = np.cumsum(steps)
    return _Channel(pixels, centred, deviation, above, total, rank)


@njit(cache=True, error_model="numpy")
def sum_pair(labels, x, cx, dx, above_x, rank_x, y, cy, dy, above_y, rank_y, out):
    """Per object: correlation, x and y above both thresholds, the same weighted by ranks, xx, yy and xy; out [8, n]."""
    top = max(rank_x.max(), rank_y.max()) + 1
    both = False
    for i in range(labels.size):
        k = labels[i] - 1
        out[0, k] += cx[i] * cy[i] / (dx[k] * dy[k])
        if above_x[i] and above_y[i]:
            both = True
            weight = (top - abs(rank_x[i] - rank_y[i])) * 1.0 / top
            out[1, k] += x[i]
            out[2, k] += y[i]
            out[3, k] += x[i] * weight
            out[4, k] += y[i] * weight
            out[5, k] += np.float32(x[i] * x[i])
            out[6, k] += np.float32(y[i] * y[i])
            out[7, k] += np.float32(x[i] * y[i])
    return both


def run(module: Any, workspace: Any) -> bool:
    """Does `MeasureColocalization.run`; False, with nothing done, where it does not cover the settings or pictures."""
    wanted = (module.do_corr_and_slope, module.do_manders, module.do_rwc, module.do_overlap)
    if module.wants_images() or module.do_costes or not all(option.value for option in wanted):
        return False
    names = list(module.images_list.value)
    images = [workspace.image_set.get_image(name, must_be_grayscale=True) for name in names]
    found = [(name, workspace.object_set.get_objects(name)) for name in module.objects_list.value]
    shapes = {image.pixel_data.shape for image in images} | {objects.segmented.shape for _, objects in found}
    plain = all(image.pixel_data.dtype == np.float32 and not image.has_mask for image in images)
    if not plain or len(shapes) != 1 or len(next(iter(shapes))) != 2:
        return False
    if any(np.isnan(image.pixel_data).any() for image in images):
        return False
    for object_name, objects in found:
        index = np.arange(objects.count, dtype=np.int32) + 1
        inside = objects.segmented > 0
        labels = objects.segmented[inside].astype(np.int64)
        share = module.thr.value / 100
        channels = [_channel(image.pixel_data[inside], labels, index, share) for image in images] if len(index) else []
        for i, j in itertools.combinations(range(len(names)), 2):
            features = _pair(channels[i], channels[j], labels, len(index)) if channels else [np.zeros(0)] * 8
            _store(workspace.measurements, object_name, names[i], names[j], features)
    return True


def _pair(a: _Channel, b: _Channel, labels: np.ndarray, n: int) -> list[np.ndarray]:
    """Correlation, Manders a and b, RWC a and b, overlap, K a and b: each [objects]."""
    s = np.zeros((8, n))
    of_a, of_b = (
        (a.pixels, a.centred, a.deviation, a.above, a.rank),
        (b.pixels, b.centred, b.deviation, b.above, b.rank),
    )
    both = sum_pair(labels, *of_a, *of_b, s)
    correlation = s[0]
    correlation[np.bincount(labels, minlength=n + 1)[1:] == 0] = np.nan
    if not both:
        return [correlation, *(np.zeros(n) for _ in range(7))]
    manders, ranked = [s[1] / a.total, s[2] / b.total], [s[3] / a.total, s[4] / b.total]
    return [correlation, *manders, *ranked, s[7] / np.sqrt(s[5] * s[6]), s[7] / s[5], s[7] / s[6]]


def _store(measurements: Any, object_name: str, a: str, b: str, features: list[np.ndarray]) -> None:
    ab, ba = f"{a}_{b}", f"{b}_{a}"
    names = (
        "Correlation_" + ab,
        "Manders_" + ab,
        "Manders_" + ba,
        "RWC_" + ab,
        "RWC_" + ba,
        "Overlap_" + ab,
        "K_" + ab,
    )
    for name, values in zip((*names, "K_" + ba), features, strict=True):
        measurements.add_measurement(object_name, "Correlation_" + name, values)
