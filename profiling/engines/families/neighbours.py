"""Neighbours of objects, as MeasureObjectNeighbors counts them.

An object's neighbours are those with a pixel under a disk around one of its pixels; the share of its outline that
touches others is taken under a disk half a pixel larger; the closest are those with the closest centres. Objects that
were dropped for their size or at the frame still count as neighbours, under numbers of their own, if the pipeline says
so. Two centres at the same distance are a tie: the lower number is the closer.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import scipy.ndimage
from jaxtyping import Float
from numba import njit

from profiling.engines.families.location import centres, parents
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Neighbours
from profiling.segment import Objects, outline

FEATURES = (
    "NumberOfNeighbors", "PercentTouching", "FirstClosestObjectNumber", "FirstClosestDistance",
    "SecondClosestObjectNumber", "SecondClosestDistance", "AngleBetweenNeighbors",
)  # fmt: skip
SCALES = {"Expand until adjacent": "Expanded", "Adjacent": "Adjacent"}


def names(settings: Neighbours) -> tuple[str, ...]:
    """Features of the table of `settings.objects`."""
    scale = SCALES.get(settings.method, str(settings.distance))
    other = () if settings.objects == settings.neighbours else (settings.neighbours,)
    return tuple("_".join(("Neighbors", feature, *other, scale)) for feature in FEATURES)


def measure(objects: Objects, others: Objects, settings: Neighbours) -> Float[np.ndarray, "n 7"]:
    """Values of `names`: counts, per cent, object numbers, pixels and degrees."""
    same = settings.objects == settings.neighbours
    n = objects.count
    out = np.zeros((n, len(FEATURES)))
    labels, other_labels = objects.small_removed, others.small_removed
    if not settings.count_discarded:
        other_labels = np.where(others.labels > 0, other_labels, 0).astype(np.int32)
        labels = other_labels if same else labels
    total, other_total = int(labels.max(initial=0)), int(other_labels.max(initial=0))
    number = parents(labels, objects.labels, total, n)[0]
    if other_total <= (1 if same else 0) or not n:
        return out
    other_number = number if same else parents(other_labels, others.labels, other_total, others.count)[0]
    place, other_place = centres(regions(labels)), centres(regions(other_labels))
    distance = settings.distance
    if settings.method in SCALES:
        distance = 1
    if settings.method == "Expand until adjacent":
        i, j = scipy.ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        labels = labels[i, j]
        other_labels = labels if same else other_labels
    counts, touching = _touching(labels, other_labels, outline(labels), total, other_total, distance, same)
    vectors = _closest(place, other_place, 1 if same else 0)
    closest = _closest_kept(place, other_place, number, other_number, 1 if same else 0)
    found = number > 0
    row = np.where(found, number - 1, 0)
    first, second = vectors[row, 0], vectors[row, 1]
    out[:, 0], out[:, 1] = counts[row], touching[row]
    out[:, 2], out[:, 4] = closest[:, 0], closest[:, 1]
    out[:, 3], out[:, 5] = np.sqrt((first**2).sum(axis=1)), np.sqrt((second**2).sum(axis=1))
    if other_total > (2 if same else 1):
        with np.errstate(invalid="ignore", divide="ignore"):
            dot = (first * second).sum(axis=1) / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
            out[:, 6] = np.arccos(dot) * 180.0 / np.pi
    out[~found] = 0.0
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _touching(labels, others, outlines, total, other_total, distance, same):
    """Number of neighbours, and per cent of outline pixels near another object: [total] each."""
    height, width = labels.shape
    counts, touching = np.zeros(total), np.zeros(total)
    length = np.zeros(total)
    near = np.zeros((total, other_total + 1), np.bool_)
    inner, outer = distance * distance, (distance + 0.5) * (distance + 0.5)
    for y in range(height):
        for x in range(width):
            k = labels[y, x]
            if k == 0 or not outlines[y, x]:
                continue
            length[k - 1] += 1
            touched = False
            for a in range(-distance, distance + 1):
                yy = y + a
                if yy < 0 or yy >= height:
                    continue
                for b in range(-distance, distance + 1):
                    xx = x + b
                    if xx < 0 or xx >= width:
                        continue
                    far = a * a + b * b
                    if far > outer:
                        continue
                    other = others[yy, xx]
                    if far <= inner and other > 0:
                        near[k - 1, other] = True
                    if same:
                        touched |= labels[yy, xx] != 0 and labels[yy, xx] != k
                    else:
                        touched |= other != 0
            if touched:
                touching[k - 1] += 1
    for k in range(total):
        for other in range(1, other_total + 1):
            if near[k, other] and not (same and other == k + 1):
                counts[k] += 1
        touching[k] = touching[k] * 100 / length[k] if length[k] > 0 else np.nan
    return counts, touching


@njit(cache=True, nogil=True)
@no_type_check
def _closest(place, others, skip):
    """Vectors (x, y) from each centre to the first and second closest after leaving out `skip` (the object itself):
    [n, 2, 2]; zeros where there are too few numbers, NaN where only numbers of dropped objects are left."""
    out = np.zeros((place.shape[0], 2, 2))
    for k in range(place.shape[0]):
        best = np.full(skip + 2, np.inf)
        who = np.full(skip + 2, -1)
        for j in range(others.shape[0]):
            d = np.sqrt((place[k, 1] - others[j, 1]) ** 2 + (place[k, 0] - others[j, 0]) ** 2)
            _insert(best, who, d, j)
        for t in range(2):
            if who[skip + t] >= 0:
                out[k, t, 0] = others[who[skip + t], 0] - place[k, 0]
                out[k, t, 1] = others[who[skip + t], 1] - place[k, 1]
            elif others.shape[0] > skip + t:
                out[k, t] = np.nan
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _insert(best, who, d, j):
    """Keeps the smallest distances in order; NaN never enters."""
    for t in range(best.size):
        if d < best[t]:
            for s in range(best.size - 1, t, -1):
                best[s], who[s] = best[s - 1], who[s - 1]
            best[t], who[t] = d, j
            return


@njit(cache=True, nogil=True)
@no_type_check
def _closest_kept(place, others, number, other_number, skip):
    """Numbers of the first and second closest objects that were kept: [n, 2]; 0 where there is none."""
    out = np.zeros((number.size, 2))
    if number.size <= skip:
        return out
    for k in range(number.size):
        if number[k] == 0:
            continue
        best = np.full(skip + 2, np.inf)
        who = np.full(skip + 2, -1)
        for j in range(other_number.size):
            if other_number[j] == 0:
                continue
            a, b = number[k] - 1, other_number[j] - 1
            d = np.sqrt((place[a, 1] - others[b, 1]) ** 2 + (place[a, 0] - others[b, 0]) ** 2)
            _insert(best, who, d, j)
        for t in range(2):
            out[k, t] = who[skip + t] + 1
    return out
