# mypy: disable-error-code="no-untyped-call"
"""MeasureGranularity's spectrum of one picture, without work that cannot change its numbers.

The module resamples the reconstructed picture to the size it has already, sums each kind of object through scipy's
general labelled mean, and formats a table for a window. Here the resampling is done only where sizes differ, the
labelled sums are single bincounts (the same additions in the same order), and erosion and reconstruction are compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.ndimage
from centrosome.cpmorphology import fixup_scipy_ndimage_result as fix

from profiling.engines.cellprofiler_worker import morphology

_EPSILON = np.finfo(float).eps


def _grid(shape: Any, scale: Any) -> np.ndarray:
    grid = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    grid *= np.asarray(scale, float)[:, None, None]
    return grid


def _shrink(picture: np.ndarray, factor: float) -> np.ndarray:
    shape = np.array(picture.shape) * factor
    grid = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float) / factor
    return np.asarray(scipy.ndimage.map_coordinates(picture, grid, order=1))


def _stretch(picture: np.ndarray, shape: Any, from_shape: Any) -> np.ndarray:
    """To `shape`; `from_shape` is the size as the module computes it, which may be a fraction."""
    scale = [float(old - 1) / float(new - 1) for old, new in zip(from_shape, shape, strict=True)]
    return np.asarray(scipy.ndimage.map_coordinates(picture, _grid(shape, scale), order=1))


def _without_background(pixels: np.ndarray, factor: float, radius: int, shape: np.ndarray) -> np.ndarray:
    """The picture minus its opening by a disk, both at the background's scale; never negative."""
    back = _shrink(pixels, factor) if factor < 1 else pixels
    back = morphology.open_disk(back, radius)
    if factor < 1:
        back = _stretch(back, shape, shape * factor)
    out = pixels - back
    out[out < 0] = 0
    return out


class _Labelled:
    """Mean of a picture over each object, and the mean before it."""

    def __init__(self, name: str, labels: np.ndarray, picture: np.ndarray) -> None:
        self.name, self.labels = name, labels.astype(np.intp).ravel()
        self.counts = np.bincount(self.labels)[1:].astype(float)
        self.current = self.mean(picture)
        self.start = np.maximum(self.current, _EPSILON)

    def mean(self, picture: np.ndarray) -> np.ndarray:
        if not len(self.counts):
            return np.zeros(0)
        return np.asarray(fix(np.bincount(self.labels, weights=picture.ravel())[1:] / self.counts))

    def step(self, picture: np.ndarray) -> np.ndarray:
        mean = self.mean(picture)
        spectrum = (self.current - mean) * 100 / self.start
        self.current = mean
        return np.asarray(spectrum)


def run_on_picture(module: Any, workspace: Any, image_name: str) -> list[str] | None:
    """Does `MeasureGranularity.run_on_image_setting` for a plain 2-D picture; None where it does not cover the case."""
    image = workspace.image_set.get_image(image_name, must_be_grayscale=True)
    found = [(name, workspace.object_set.get_objects(name).segmented) for name in module.objects_list.value]
    if image.dimensions != 2 or image.has_mask or any(labels.shape != image.pixel_data.shape for _, labels in found):
        return None
    original = image.pixel_data
    subsample, length = module.subsample_size.value, module.granular_spectrum_length.value
    shape = np.array(original.shape)
    pixels = original.copy()
    if subsample < 1:
        shape = shape * subsample
        pixels = _shrink(original, subsample)
    pixels = _without_background(pixels, module.image_sample_size.value, module.element_size.value, shape)
    objects = [_Labelled(name, labels, original) for name, labels in found]

    current = np.mean(pixels.ravel())
    start = max(current, _EPSILON)
    mask = np.asarray(pixels, float)
    eroded = pixels
    for i in range(1, length + 1):
        before = current
        eroded = morphology.erode_cross(eroded, np.empty_like(eroded))
        spectrum = morphology.reconstruct(eroded.astype(float), mask)
        current = np.mean(spectrum.ravel())
        feature = module.granularity_feature(i, image_name)
        workspace.measurements.add_image_measurement(feature, (before - current) * 100 / start)
        if tuple(shape) != original.shape:
            spectrum = _stretch(spectrum, original.shape, shape)
        for one in objects:
            workspace.measurements.add_measurement(one.name, feature, one.step(spectrum))
    return [image_name]
