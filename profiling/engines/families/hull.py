"""Convex hulls of objects, and what follows from them: smallest enclosing circles, Feret diameters, convex areas.

Hull vertices are pixel centres, in centrosome's order (along the lowest rows by column, then back along the highest).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int64
from numba import njit

from profiling.engines.families.regions import Regions


@dataclass(frozen=True)
class Hulls:
    """Vertices of object i: places start[i] to start[i + 1] of y and x."""

    start: Int64[np.ndarray, " m"]
    y: Int64[np.ndarray, " v"]
    x: Int64[np.ndarray, " v"]


def hulls(regions: Regions) -> Hulls:
    """The convex hull of the pixel centres of each object; an absent object has no vertex."""
    return Hulls(*_hulls(regions.start, regions.y, regions.x, regions.box))


@njit(cache=True, nogil=True)
@no_type_check
def _turns(ay, ax, by, bx, cy, cx):
    """Whether a → b → c turns the hull's way; a U-turn at the right end counts (centrosome `CONVEX`)."""
    cross = (bx - ax) * (cy - by) - (cx - bx) * (by - ay)
    if cross != 0:
        return cross > 0
    return bx > ax and bx > cx


@njit(cache=True, nogil=True)
@no_type_check
def _add(ys, xs, base, n, y, x):
    while n >= 2 and not _turns(ys[base + n - 2], xs[base + n - 2], ys[base + n - 1], xs[base + n - 1], y, x):
        n -= 1
    ys[base + n], xs[base + n] = y, x
    return n + 1


@njit(cache=True, nogil=True)
@no_type_check
def _hulls(start, y, x, box):
    count = start.size - 1
    room = 2
    for k in range(count):
        room += 2 * (box[k, 3] - box[k, 1]) + 2
    ys, xs = np.empty(room, np.int64), np.empty(room, np.int64)
    where = np.zeros(count + 1, np.int64)
    for k in range(count):
        base, n = where[k], 0
        if start[k] < start[k + 1]:
            left, width = box[k, 1], box[k, 3] - box[k, 1]
            low = np.full(width, np.iinfo(np.int64).max)
            high = np.full(width, -1)
            for p in range(start[k], start[k + 1]):
                j = x[p] - left
                low[j] = min(low[j], y[p])
                high[j] = max(high[j], y[p])
            for j in range(width):
                if high[j] >= 0:
                    n = _add(ys, xs, base, n, low[j], left + j)
            for j in range(width - 1, 0, -1):
                if high[j] >= 0:
                    n = _add(ys, xs, base, n, high[j], left + j)
            # The first column's highest pixel closes the hull; if it is the first vertex itself, only pruning is left.
            last = _add(ys, xs, base, n, high[0], left)
            n = last if low[0] != high[0] else last - 1
        where[k + 1] = base + n
    return where, ys[: where[count]].copy(), xs[: where[count]].copy()


def enclosing_circles(regions: Regions) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Centre (row, column) and radius of the smallest circle around each object's pixel centres.

    Chrystal 1884, in centrosome's order of operations: Zernike moments leave out pixels outside the circle, and those
    that define it lie on it to the last bit. NaN and 0 for an absent object.
    """
    h = hulls(regions)
    centres, radii = _circles(h.start, h.y, h.x)
    return centres, radii


@njit(cache=True, nogil=True)
@no_type_check
def _circles(start, ys, xs):
    count = start.size - 1
    centres, radii = np.full((count, 2), np.nan), np.zeros(count)
    most = 1
    for k in range(count):
        most = max(most, start[k + 1] - start[k])
    place = np.empty(most, np.int64)
    for k in range(count):
        a, n = start[k], start[k + 1] - start[k]
        if n == 0:
            continue
        if n == 1:
            centres[k, 0], centres[k, 1] = ys[a], xs[a]
            continue
        for i in range(n):
            place[i] = i
        s0, s1 = 0, 1
        while True:
            y0, x0, y1, x1 = float(ys[a + s0]), float(xs[a + s0]), float(ys[a + s1]), float(xs[a + s1])
            dy, dx = y0 - y1, x0 - x1
            length = dy * dy + dx * dx
            best, vertex, best1, best0 = np.inf, -1, 0.0, 0.0
            for i in range(n):
                if place[i] < 2:
                    continue
                ay, ax = ys[a + i] - y0, xs[a + i] - x0
                by, bx = ys[a + i] - y1, xs[a + i] - x1
                at1 = abs(np.arccos((dy * by + dx * bx) / np.sqrt(length * (by * by + bx * bx))))
                at0 = abs(np.arccos((-dy * ay + -dx * ax) / np.sqrt(length * (ay * ay + ax * ax))))
                angle = np.pi - at1 - at0
                if angle < best:
                    best, vertex, best1, best0 = angle, i, at1, at0
            half = np.pi / 2
            if vertex < 0 or best >= half:
                centres[k, 0], centres[k, 1] = (y0 + y1) / 2, (x0 + x1) / 2
                radii[k] = np.sqrt(length) / 2
                break
            if best1 <= half and best0 <= half:
                vy, vx = float(ys[a + vertex]), float(xs[a + vertex])
                double = 2 * (x0 * (y1 - vy) + x1 * (vy - y0) + vx * (y0 - y1))
                q0, q1, qv = y0 * y0 + x0 * x0, y1 * y1 + x1 * x1, vy * vy + vx * vx
                cx = (q0 * (y1 - vy) + q1 * (vy - y0) + qv * (y0 - y1)) / double
                cy = (q0 * (vx - x1) + q1 * (x0 - vx) + qv * (x1 - x0)) / double
                centres[k, 0], centres[k, 1] = cy, cx
                radii[k] = np.sqrt((y0 - cy) ** 2 + (x0 - cx) ** 2)
                break
            if best0 > half:
                place[s0], s0 = place[vertex], vertex
                place[vertex] = 0
            else:
                place[s1], s1 = place[vertex], vertex
                place[vertex] = 1
    return centres, radii


@njit(cache=True, nogil=True)
@no_type_check
def feret(start, ys, xs):
    """Least and greatest distance between two parallel lines of support of each hull; float64 [n, 2]."""
    count = start.size - 1
    out = np.zeros((count, 2))
    for k in range(count):
        a, b = start[k], start[k + 1]
        n = b - a
        most = 0
        for i in range(a, b):
            for j in range(i + 1, b):
                most = max(most, (ys[i] - ys[j]) ** 2 + (xs[i] - xs[j]) ** 2)
        out[k, 1] = np.sqrt(float(most))
        if n < 3:
            continue
        least = np.inf
        for i in range(n):
            j = (i + 1) % n
            ey, ex = ys[a + j] - ys[a + i], xs[a + j] - xs[a + i]
            far = 0
            for t in range(a, b):
                far = max(far, abs(ey * (xs[t] - xs[a + i]) - ex * (ys[t] - ys[a + i])))
            least = min(least, float(far) * float(far) / float(ey * ey + ex * ex))
        out[k, 0] = np.sqrt(least)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def convex_areas(start, y, x, box):
    """Pixels whose centre lies in the hull of the pixels' edge midpoints, or on it (scikit-image `convex_hull_image`).

    In doubled coordinates the midpoints are whole numbers, so nothing is rounded.
    """
    count = start.size - 1
    out = np.zeros(count)
    for k in range(count):
        if start[k] == start[k + 1]:
            continue
        height = box[k, 2] - box[k, 0]
        rows = 2 * height + 1  # doubled rows -1 to 2 height - 1, stored one higher
        total = 0
        edges = np.empty((2, height), np.int64)
        for side in range(2):
            # Leftmost midpoint of every doubled row; the right side is the left one of the mirrored object.
            sign = 1 if side == 0 else -1
            reach = np.full(rows, np.iinfo(np.int64).max)
            for p in range(start[k], start[k + 1]):
                r, c = 2 * (y[p] - box[k, 0]) + 1, 2 * sign * x[p]
                reach[r] = min(reach[r], c - 1)
                reach[r - 1] = min(reach[r - 1], c)
                reach[r + 1] = min(reach[r + 1], c)
            stack = np.empty(rows, np.int64)
            n = 0
            for r in range(rows):
                if reach[r] == np.iinfo(np.int64).max:
                    continue
                while n >= 2:
                    r1, r2 = stack[n - 2], stack[n - 1]
                    # The middle one is left of the chord or it is no vertex.
                    if (reach[r2] - reach[r1]) * (r - r1) < (reach[r] - reach[r1]) * (r2 - r1):
                        break
                    n -= 1
                stack[n] = r
                n += 1
            t = 0
            for i in range(height):
                r = 2 * i + 1
                while stack[t + 1] < r:
                    t += 1
                r1, r2 = stack[t], stack[t + 1]
                # Smallest even column at or right of the chord.
                top = reach[r1] * (r2 - r1) + (reach[r2] - reach[r1]) * (r - r1)
                edges[side, i] = -((-top) // (2 * (r2 - r1)))
        for i in range(height):
            total += -edges[1, i] - edges[0, i] + 1
        out[k] = total
    return out
