"""Compiled loops of segmentation: maxima inside objects, watershed, propagation, holes. Each finishes in CellProfiler's
order, ties included, so that labels agree pixel by pixel.

Annotations stay away from the compiled functions on purpose: numba compiles them.
"""

from __future__ import annotations

from functools import cache
from typing import no_type_check

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Int32, Integer, Num
from numba import njit

#: Neighbours in the order of scikit-image's watershed: by distance, then by place.
_ROWS = np.array([-1, 0, 0, 1, -1, -1, 1, 1])
_COLUMNS = np.array([0, -1, 1, 0, -1, 1, -1, 1])


def local_maxima(
    picture: Num[np.ndarray, "h w"], labels: Integer[np.ndarray, "h w"], footprint: Bool[np.ndarray, "a b"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels that no pixel of the same object under the footprint exceeds (centrosome `is_local_maximum`)."""
    dy, dx = np.nonzero(footprint)
    dy, dx = dy - footprint.shape[0] // 2, dx - footprint.shape[1] // 2
    order = np.argsort(dy**2 + dx**2, kind="stable")
    return np.asarray(_local_maxima(picture, labels, dy[order], dx[order]))


@njit(cache=True, nogil=True)
@no_type_check
def _local_maxima(picture, labels, dy, dx):
    height, width = labels.shape
    out = np.zeros(labels.shape, np.bool_)
    for y in range(height):
        for x in range(width):
            k = labels[y, x]
            if k <= 0:
                continue
            top = True
            for t in range(dy.size):
                yy, xx = y + dy[t], x + dx[t]
                if 0 <= yy < height and 0 <= xx < width and labels[yy, xx] == k and picture[y, x] < picture[yy, xx]:
                    top = False
                    break
            out[y, x] = top
    return out


@cache
def _shrink_tables() -> np.ndarray:
    """Which 3 x 3 patterns (bit k = place k in raster order) keep their centre, for each of four directions."""
    patterns = ((np.arange(512)[:, None] >> np.arange(9)) & 1).astype(bool)
    whole = np.zeros(512, bool)
    for index in range(512):
        if patterns[index, 4]:
            rest = patterns[index].reshape(3, 3).copy()
            rest[1, 1] = False
            whole[index] = scipy.ndimage.label(rest)[1] != 1
    whole[511] = True

    def without(edge: str, edge_care: str, corner: str, corner_care: str) -> np.ndarray:
        """Patterns that match neither of two (a pattern keeps its centre if it matches none)."""
        kept = whole.copy()
        matches = []
        for pattern, care in ((edge, edge_care), (corner, corner_care)):
            want = np.array([c == "1" for c in pattern])
            cared = np.array([c == "1" for c in care])
            matches.append(((patterns == want) | ~cared).all(axis=1))
        return np.asarray(kept | (~matches[0] & ~matches[1]))

    return np.stack(
        [
            without("000110000", "000111000", "100010000", "100011011"),
            without("010010000", "010010010", "001010000", "001110110"),
            without("000011000", "000111000", "000010001", "110110001"),
            without("000010010", "010010010", "000010100", "011011100"),
        ]
    )


def shrink(picture: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Erodes blobs to points without changing their number (centrosome `binary_shrink`)."""
    return np.asarray(_shrink(np.pad(picture, 1), _shrink_tables())[1:-1, 1:-1])


@njit(cache=True, nogil=True)
@no_type_check
def _shrink(padded, tables):
    ys, xs = np.nonzero(padded)
    n = ys.size
    drop = np.empty(n, np.bool_)
    while True:
        before = n
        for t in range(4):
            for k in range(n):
                y, x = ys[k], xs[k]
                index = 0
                for a in range(3):
                    for b in range(3):
                        if padded[y + a - 1, x + b - 1]:
                            index |= 1 << (3 * a + b)
                drop[k] = not tables[t, index]
            m = 0
            for k in range(n):
                if drop[k]:
                    padded[ys[k], xs[k]] = False
                else:
                    ys[m], xs[m] = ys[k], xs[k]
                    m += 1
            n = m
        if n == before:
            return padded


@njit(cache=True, nogil=True)
@no_type_check
def _push(key, tie, load, n, k, t, v):
    """Adds an entry to a binary heap of `n`, smallest (key, tie) first; the caller keeps room."""
    child = n
    while child > 0:
        parent = (child + 1) // 2 - 1
        if not (k < key[parent] or (k == key[parent] and t < tie[parent])):
            break
        key[child], tie[child], load[child] = key[parent], tie[parent], load[parent]
        child = parent
    key[child], tie[child], load[child] = k, t, v


@njit(cache=True, nogil=True)
@no_type_check
def _pop(key, tie, load, n):
    """Moves the smallest entry of a heap of `n` to place n - 1."""
    n -= 1
    k, t, v = key[n], tie[n], load[n]
    key[n], tie[n], load[n] = key[0], tie[0], load[0]
    i = 0
    while 2 * i + 1 < n:
        least, right = 2 * i + 1, 2 * i + 2
        if right < n and (key[right] < key[least] or (key[right] == key[least] and tie[right] < tie[least])):
            least = right
        if not (key[least] < k or (key[least] == k and tie[least] < t)):
            break
        key[i], tie[i], load[i] = key[least], tie[least], load[least]
        i = least
    if n > 0:
        key[i], tie[i], load[i] = k, t, v


def watershed(
    picture: Num[np.ndarray, "h w"], markers: Integer[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> Int32[np.ndarray, "h w"]:
    """8-connected watershed from markers inside a mask, as `skimage.segmentation.watershed` 0.20 (Soille and Ansoult
    1990): a pixel takes the label of the neighbour that pushed it first; equal heights come out in order of age."""
    out = np.where(mask, markers, 0).astype(np.int32)
    _watershed(picture.astype(np.float64), mask, out, _ROWS, _COLUMNS)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _watershed(picture, mask, out, rows, columns):
    height, width = out.shape
    room = height * width + 1
    key, age, place = np.empty(room), np.empty(room, np.int64), np.empty(room, np.int64)
    n = 0
    for y in range(height):
        for x in range(width):
            if out[y, x] != 0:
                _push(key, age, place, n, picture[y, x], 0, y * width + x)
                n += 1
    time = 1
    while n > 0:
        _pop(key, age, place, n)
        n -= 1
        y, x = place[n] // width, place[n] % width
        for t in range(8):
            yy, xx = y + rows[t], x + columns[t]
            if 0 <= yy < height and 0 <= xx < width and mask[yy, xx] and out[yy, xx] == 0:
                time += 1
                out[yy, xx] = out[y, x]
                _push(key, age, place, n, picture[yy, xx], time, yy * width + xx)
                n += 1


def propagate(
    picture: Num[np.ndarray, "h w"],
    seeds: Integer[np.ndarray, "h w"],
    mask: Bool[np.ndarray, "h w"],
    regularization: float,
) -> tuple[Int32[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Each pixel of the mask takes the label of the nearest seed, and its distance; -1 where none reaches it.

    A step costs sqrt(D^2 + m w^2): D is the sum of absolute differences of the two 3 x 3 neighbourhoods, m is 1 for a
    straight and 2 for a diagonal step, w the regularization (Jones, Carpenter and Golland 2005; centrosome
    `propagate`, whose queue drops the last bit of a distance and then orders by label, row and column).
    """
    seeds = np.ascontiguousarray(seeds, np.int32)
    return _propagate(picture.astype(np.float64), seeds, mask, float(regularization))


@njit(cache=True, nogil=True)
@no_type_check
def _propagate(picture, seeds, mask, weight):
    height, width = seeds.shape
    out = np.zeros((height, width), np.int32)
    distance = np.where(seeds > 0, 0.0, -1.0)
    room = 1024
    for y in range(height):
        for x in range(width):
            room += seeds[y, x] != 0 and mask[y, x]
    key, tie, load = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32)
    n = 0
    size = height * width
    for y in range(height):
        for x in range(width):
            if seeds[y, x] != 0 and mask[y, x]:
                _push(key, tie, load, n, 0, seeds[y, x] * size + y * width + x, seeds[y, x])
                n += 1
    value = np.zeros(1)
    bits = value.view(np.int64)
    while n > 0:
        _pop(key, tie, load, n)
        n -= 1
        label, spot = load[n], tie[n] % size
        y, x = spot // width, spot % width
        if out[y, x] != 0:
            continue
        out[y, x] = label
        for a in range(-1, 2):
            for b in range(-1, 2):
                yy, xx = y + a, x + b
                if (a == 0 and b == 0) or yy < 0 or yy >= height or xx < 0 or xx >= width:
                    continue
                if out[yy, xx] > 0 or not mask[yy, xx]:
                    continue
                change = 0.0
                for c in range(-1, 2):
                    y1, y2 = min(max(y + c, 0), height - 1), min(max(yy + c, 0), height - 1)
                    for d in range(-1, 2):
                        x1, x2 = min(max(x + d, 0), width - 1), min(max(xx + d, 0), width - 1)
                        change += abs(picture[y1, x1] - picture[y2, x2])
                steps = float(abs(a) + abs(b))
                far = np.sqrt(change * change + steps * weight * weight) + distance[y, x]
                if distance[yy, xx] == -1.0 or distance[yy, xx] > far:
                    distance[yy, xx] = far
                    if n == key.size:
                        key, tie, load = np.append(key, key), np.append(tie, tie), np.append(load, load)
                    value[0] = far
                    _push(key, tie, load, n, bits[0] >> 1, label * size + yy * width + xx, label)
                    n += 1
    for y in range(height):
        for x in range(width):
            if seeds[y, x] > 0:
                out[y, x] = seeds[y, x]
    return out, distance


@njit(cache=True, nogil=True)
@no_type_check
def highest(labels, values, n):
    """The largest value under each label 1 to n, 0 for the background: int64 [n + 1]."""
    out = np.zeros(n + 1, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            out[labels[y, x]] = max(out[labels[y, x]], values[y, x])
    out[0] = 0
    return out


def fill_holes(
    labels: Integer[np.ndarray, "h w"], largest: float = np.inf, *, objects: bool = True
) -> Int32[np.ndarray, "h w"]:
    """Fills background that one object alone encloses, and `objects` in it too (centrosome `fill_labeled_holes`).

    Neither kind is a hole if it touches the picture's edge, or has `largest` pixels or more.
    """
    labels = np.ascontiguousarray(labels, np.int32)
    top = int(labels.max(initial=0))
    background, count = scipy.ndimage.label(labels == 0)
    regions = np.where(labels == 0, background + top + 1, labels).astype(np.int64)
    total = top + count + 2
    edges = np.unique(_edges(regions, total))  # of the graph of touching regions, both ways
    start = np.searchsorted(edges // total, np.arange(total + 1))
    outside = np.zeros(total, bool)
    frame = np.unique(np.concatenate([regions[0], regions[:, 0], regions[-1], regions[:, -1]]))
    outside[frame] = True
    if np.isfinite(largest) and len(edges):
        outside |= np.bincount(regions.ravel(), minlength=total) >= largest
    outside[0] = False
    owner = np.arange(total)
    owner[top + 1 :] = 0
    if len(edges):
        inside, nearest = _walk(edges % total, start, outside, top)
        owner[inside] = nearest[inside]
    filled = owner[regions].astype(np.int32)
    return filled if objects else np.where(labels == 0, filled, labels)


@njit(cache=True, nogil=True)
@no_type_check
def _edges(regions, total):
    """a * total + b for each pair of 4-neighbours in different regions a and b."""
    height, width = regions.shape
    out = np.empty(4096, np.int64)
    n = 0
    for y in range(height):
        for x in range(width):
            a = regions[y, x]
            for t in range(2):
                yy, xx = y + (t == 0), x + (t == 1)
                if yy >= height or xx >= width or regions[yy, xx] == a:
                    continue
                if n + 2 > out.size:
                    out = np.append(out, out)
                out[n], out[n + 1] = a * total + regions[yy, xx], regions[yy, xx] * total + a
                n += 2
    return out[:n]


@njit(cache=True, nogil=True)
@no_type_check
def _walk(to, start, outside, top):
    """Regions that no path links to the outside, and the object that encloses each."""
    total = outside.size
    nearest = np.zeros(total, np.int64)
    stack = np.empty(total + to.size, np.int64)
    n = 0
    for i in range(total):
        if outside[i]:
            stack[n] = i
            n += 1
    while n > 0:
        n -= 1
        i = stack[n]
        for e in range(start[i], start[i + 1]):
            j = to[e]
            if outside[j]:
                continue
            if i <= top:
                if nearest[j] == 0:
                    nearest[j] = i
                if nearest[j] == i:
                    continue
            elif j > top:
                continue
            outside[j] = True
            stack[n] = j
            n += 1
    n = 0
    for j in range(total):
        if not outside[j] and nearest[j] != 0:
            stack[n] = j
            n += 1
    while n > 0:
        n -= 1
        i = stack[n]
        for e in range(start[i], start[i + 1]):
            j = to[e]
            if not outside[j] and nearest[j] == 0:
                nearest[j] = nearest[i]
                stack[n] = j
                n += 1
    return ~outside, nearest


@njit(cache=True, nogil=True)
@no_type_check
def outline(labels):
    """Pixels of objects with an 8-neighbour of another value, or on the picture's edge (centrosome `outline`)."""
    height, width = labels.shape
    out = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            k = labels[y, x]
            if k == 0:
                continue
            if y == 0 or x == 0 or y == height - 1 or x == width - 1:
                out[y, x] = True
                continue
            for a in range(-1, 2):
                for b in range(-1, 2):
                    if labels[y + a, x + b] != k:
                        out[y, x] = True
    return out
