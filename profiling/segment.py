"""Nuclei, cells and cytoplasm of a field, as CellProfiler's three Identify modules find them.

Nuclei: threshold, fill holes, split clumps at the maxima of distance or intensity, drop what is cut by the frame or has
the wrong size. Cells: grow from nuclei by propagation, watershed or distance. Cytoplasm: cells minus shrunken nuclei.
Labels are CellProfiler 4.2.8's pixel by pixel (docs/fast_parity.md says on what this was shown).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Int32, Integer, Num

from profiling import segment_kernels as kernels
from profiling.threshold import AUTOMATIC, Foreground, Threshold, foreground

NEVER = "Never"
THRESHOLDING = "After both thresholding and declumping"
_SQUARE = np.ones((3, 3), bool)


class InvalidSegmentation(ValueError):
    """A setting that segmentation does not know."""


@dataclass(frozen=True)
class Primary:
    """IdentifyPrimaryObjects; lengths in pixels."""

    image: str
    objects: str
    diameter: tuple[float, float]
    exclude_size: bool
    exclude_border: bool
    maxima: str
    watershed: str
    smoothing: float | None  # None: automatic
    suppression: float | None  # None: automatic
    low_resolution: bool
    fill_holes: str
    most_objects: int | None  # more than this: none at all
    advanced: bool
    threshold: Threshold


@dataclass(frozen=True)
class Secondary:
    """IdentifySecondaryObjects."""

    primary: str
    objects: str
    image: str
    method: str
    distance: float
    regularization: float
    discard_edge: bool
    discard_primary: bool
    new_primary: str
    fill_holes: bool
    threshold: Threshold


@dataclass(frozen=True)
class Tertiary:
    """IdentifyTertiaryObjects: larger minus smaller."""

    larger: str
    smaller: str
    objects: str
    shrink: bool


@dataclass(frozen=True)
class Objects:
    """Label images of one kind of object, int32 [h, w].

    labels: the objects, 1 to n. unedited: before any was dropped. small_removed: with those that touch the frame or are
    too large, without those that are too small.
    """

    labels: Int32[np.ndarray, "h w"]
    unedited: Int32[np.ndarray, "h w"]
    small_removed: Int32[np.ndarray, "h w"]

    @classmethod
    def of(cls, labels: Integer[np.ndarray, "h w"]) -> Objects:
        """Given masks: nothing was dropped."""
        same = np.ascontiguousarray(labels, np.int32)
        return cls(same, same, same)

    @property
    def count(self) -> int:
        """The largest label."""
        return int(self.labels.max(initial=0))


def identify_primary(picture: Float[np.ndarray, "h w"], settings: Primary) -> tuple[Objects, Foreground]:
    """Nuclei of a float32 picture in [0, 1], and the thresholded picture.

    Raises:
        InvalidSegmentation: an unknown method.
    """
    fore = foreground(picture, settings.threshold if settings.advanced else AUTOMATIC)
    mask = fore.mask
    if not settings.advanced or settings.fill_holes == THRESHOLDING:
        mask = kernels.fill_holes(mask.astype(np.int32), settings.diameter[1] ** 2) > 0
    labels = scipy.ndimage.label(mask, _SQUARE)[0].astype(np.int32)
    labels = _declump(picture, labels, settings)
    unedited = labels.copy()
    if settings.exclude_border:
        labels = _without(labels, _touching(labels))
    small_removed = labels
    if settings.exclude_size and unedited.any():
        area = np.bincount(labels.ravel(), minlength=int(unedited.max()) + 1)
        least, most = (int_pi(d) for d in settings.diameter)
        small_removed = np.where((area < least)[labels], 0, labels).astype(np.int32)
        labels = np.where((area > most)[labels], 0, small_removed).astype(np.int32)
    if not settings.advanced or settings.fill_holes != NEVER:
        labels = kernels.fill_holes(labels)
    labels = _consecutive(labels)
    if settings.advanced and settings.most_objects is not None and labels.max(initial=0) > settings.most_objects:
        labels = np.zeros_like(labels)
    return Objects(labels, unedited, small_removed), fore


def int_pi(diameter: float) -> float:
    """Area of a disk, pixels."""
    return float(np.pi * (diameter * diameter) / 4)


def _declump(
    picture: Float[np.ndarray, "h w"], labels: Int32[np.ndarray, "h w"], settings: Primary
) -> Int32[np.ndarray, "h w"]:
    maxima, lines = ("Intensity", "Intensity") if not settings.advanced else (settings.maxima, settings.watershed)
    if maxima == "None" or lines == "None":
        return labels
    least = settings.diameter[0]
    automatic = not settings.advanced or settings.suppression is None
    coarse = least > 10 and (not settings.advanced or settings.low_resolution)
    factor = 10.0 / least if coarse else 1.0
    if automatic:
        suppression = 7.0 if coarse else least / 1.5
    else:
        suppression = (settings.suppression or 0.0) * factor + 0.5 if coarse else settings.suppression or 0.0
    footprint = _disk(max(1.0, suppression - 0.5))
    distance = None
    if maxima == "Intensity":
        peaks = _peaks(_blurred(picture, settings), labels, footprint, factor)
    elif maxima == "Shape":
        filled = kernels.fill_holes(labels) if settings.fill_holes == NEVER else labels
        distance = scipy.ndimage.distance_transform_edt(filled > 0)
        # A little noise makes maxima unique; it is the module's own, from NumPy's legacy generator.
        distance += _unique_maxima(distance.shape)
        peaks = _peaks(distance, labels, footprint, factor)
    else:
        raise InvalidSegmentation(f"maxima: got {maxima!r}, expected Intensity, Shape or None")
    markers = scipy.ndimage.label(peaks, _SQUARE)[0].astype(np.int32)
    inside = labels != 0
    if lines == "Propagate":
        return kernels.propagate(np.zeros(labels.shape), markers, inside, 1.0)[0]
    if lines == "Intensity":
        relief: Num[np.ndarray, "h w"] = 1 - picture
    elif lines == "Shape":
        distance = scipy.ndimage.distance_transform_edt(inside) if distance is None else distance
        relief = -distance
        relief = relief - relief.min()
    else:
        raise InvalidSegmentation(f"watershed: got {lines!r}, expected Intensity, Shape, Propagate or None")
    return kernels.watershed(relief, markers, inside)


@lru_cache(maxsize=4)
def _unique_maxima(shape: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    return np.random.RandomState(0).uniform(0, 0.001, shape)


def _disk(radius: float) -> Bool[np.ndarray, "a a"]:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.asarray(x * x + y * y <= radius * radius)


def _blurred(picture: Float[np.ndarray, "h w"], settings: Primary) -> Float[np.ndarray, "h w"]:
    """Gaussian smoothing with taps up to half the filter size, the picture's edge corrected for."""
    size = 2.35 * settings.diameter[0] / 3.5 if settings.smoothing is None else settings.smoothing
    if size == 0:
        return picture
    sigma = size / 2.35
    reach = np.arange(-max(int(size / 2.0), 1), max(int(size / 2.0), 1) + 1)
    taps = 1 / np.sqrt(2.0 * np.pi) / sigma * np.exp(-0.5 * reach**2 / sigma**2)

    def blur(plane: np.ndarray) -> np.ndarray:
        rows = scipy.ndimage.convolve1d(plane, taps, axis=0, mode="constant")
        return np.asarray(scipy.ndimage.convolve1d(rows, taps, axis=1, mode="constant"))

    return (blur(picture) / blur(np.ones(picture.shape))).astype(picture.dtype)


def _peaks(
    relief: Num[np.ndarray, "h w"], labels: Int32[np.ndarray, "h w"], footprint: Bool[np.ndarray, "a b"], factor: float
) -> Bool[np.ndarray, "h w"]:
    """One pixel for each group of touching maxima; sought at a lower resolution where `factor` is below 1."""
    small, small_labels = relief, labels
    if factor < 1.0:
        shape = np.array(relief.shape) * factor
        grid = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float) / factor
        small = scipy.ndimage.map_coordinates(relief, grid)
        small_labels = scipy.ndimage.map_coordinates(labels, grid, order=0).astype(labels.dtype)
    peaks = kernels.local_maxima(small, small_labels, footprint)
    peaks[small <= 0] = False
    if factor < 1.0:
        back = float(relief.shape[0]) / float(peaks.shape[0])
        grid = np.mgrid[0 : relief.shape[0], 0 : relief.shape[1]].astype(float) / back
        peaks = scipy.ndimage.map_coordinates(peaks.astype(float), grid) > 0.5
    return kernels.shrink(peaks)


def identify_secondary(
    picture: Float[np.ndarray, "h w"], nuclei: Objects, settings: Secondary
) -> tuple[Objects, Objects | None, Foreground | None]:
    """Cells; the nuclei that remain where cells at the frame are dropped with theirs; the thresholded picture.

    Raises:
        InvalidSegmentation: an unknown method.
    """
    fore = None if settings.method == "Distance - N" else foreground(picture, settings.threshold)
    seeds = nuclei.unedited.copy()
    # Objects that were dropped stay as seeds if the frame cuts them, so that no neighbour grows into them.
    seeds[~np.isin(seeds, _touching(seeds)) & (nuclei.labels == 0)] = 0
    grown = _grow(picture, seeds, fore, settings)
    if settings.fill_holes:
        grown = kernels.fill_holes(grown, objects=False)
    top = int(grown.max(initial=0))
    cells = grown
    if top:
        lookup = kernels.highest(grown, nuclei.labels, top)
        cells = lookup[grown].astype(np.int32)
    left = None
    if settings.discard_edge:
        cells = _without(cells, _touching(cells))
        lookup = kernels.highest(nuclei.labels, cells, nuclei.count)
        lookup[lookup != 0] = np.arange(1, np.count_nonzero(lookup) + 1)
        cells = lookup[cells].astype(np.int32)
        if settings.discard_primary:
            left = Objects(lookup[nuclei.labels].astype(np.int32), nuclei.unedited, nuclei.small_removed)
    return Objects(cells, grown, grown), left, fore


def _grow(
    picture: Float[np.ndarray, "h w"], seeds: Int32[np.ndarray, "h w"], fore: Foreground | None, settings: Secondary
) -> Int32[np.ndarray, "h w"]:
    if fore is None:
        distance, (i, j) = scipy.ndimage.distance_transform_edt(seeds == 0, return_indices=True)
        return np.where(distance <= settings.distance, seeds[i, j], 0).astype(np.int32)
    if settings.method == "Distance - B":
        out, distance = kernels.propagate(picture, seeds, fore.mask, 1.0)
        out[distance > settings.distance] = 0
        out[seeds > 0] = seeds[seeds > 0]
        return out
    if settings.method == "Propagation":
        return kernels.propagate(picture, seeds, fore.mask, settings.regularization)[0]
    if settings.method == "Watershed - Gradient":
        relief = np.abs(scipy.ndimage.sobel(picture))
    elif settings.method == "Watershed - Image":
        relief = 1 - picture
    else:
        raise InvalidSegmentation(
            f"method: got {settings.method!r}, expected Propagation, Watershed - Gradient, Watershed - Image, "
            "Distance - N or Distance - B"
        )
    return kernels.watershed(relief, seeds, fore.mask | (seeds > 0))


def identify_tertiary(larger: Objects, smaller: Objects, settings: Tertiary) -> Objects:
    """The larger objects without the smaller ones; with `shrink`, the smaller ones keep their outline to the larger."""
    inner = smaller.labels != 0
    if settings.shrink:
        inner &= ~outline(smaller.labels)
    return Objects.of(np.where(inner, 0, larger.labels))


def outline(labels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of objects with an 8-neighbour of another value, or on the picture's edge."""
    return np.asarray(kernels.outline(np.ascontiguousarray(labels)))


def _touching(labels: Integer[np.ndarray, "h w"]) -> Integer[np.ndarray, " k"]:
    """Labels on the picture's edge; 0 may be among them."""
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))


def _without(labels: Int32[np.ndarray, "h w"], dropped: Integer[np.ndarray, " k"]) -> Int32[np.ndarray, "h w"]:
    lookup = np.arange(int(labels.max(initial=0)) + 1, dtype=np.int32)
    lookup[dropped] = 0
    return lookup[labels]


def _consecutive(labels: Integer[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    return np.where(present, np.cumsum(present), 0).astype(np.int32)[labels]
