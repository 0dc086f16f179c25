"""Size and shape of objects, as MeasureObjectSizeShape measures them through scikit-image 0.20 and centrosome.

Orders and signs are scikit-image's: moments are taken over (row, column) from the corner of the bounding box; the
perimeter weights border pixels by the way they meet (Benkrid and Crookes 2000); radii are Euclidean distances to the
nearest pixel outside; Hu's invariants (1962) follow from the normalised moments.

Artefacts of the definition. The first central moments are zero in exact arithmetic: CellProfiler reports rounding
noise; with `stable` they are 0. Where rows and columns vary alike the module turns the sign of the orientation of a
diagonal shape (45 for -45), and gives 45 to a shape without a longer axis; which of these it meets hangs on rounding.
Here the comparison is exact, and with `stable` the orientation is the axis's own, in (-90, 90], 0 without an axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

from profiling.engines.families import zernike
from profiling.engines.families.edge_distance import squared_to_edge
from profiling.engines.families.hull import convex_areas, enclosing_circles, feret, hulls
from profiling.engines.families.regions import Regions
from profiling.engines.pipeline_settings import SizeShape

STANDARD = (
    "Extent", "EulerNumber", "EquivalentDiameter", "MajorAxisLength", "MinorAxisLength", "Center_X", "Center_Y",
    "BoundingBoxMinimum_X", "BoundingBoxMinimum_Y", "BoundingBoxMaximum_X", "BoundingBoxMaximum_Y", "Area",
    "Perimeter", "MaximumRadius", "MeanRadius", "MedianRadius", "MinFeretDiameter", "MaxFeretDiameter", "Orientation",
    "Eccentricity", "FormFactor", "Solidity", "ConvexArea", "Compactness", "BoundingBoxArea",
)  # fmt: skip
ADVANCED = (
    *(f"SpatialMoment_{p}_{q}" for p in range(3) for q in range(4)),
    *(f"CentralMoment_{p}_{q}" for p in range(3) for q in range(4)),
    *(f"NormalizedMoment_{p}_{q}" for p in range(4) for q in range(4)),
    *(f"HuMoment_{k}" for k in range(7)),
    "InertiaTensor_0_0", "InertiaTensor_0_1", "InertiaTensor_1_0", "InertiaTensor_1_1",
    "InertiaTensorEigenvalues_0", "InertiaTensorEigenvalues_1",
)  # fmt: skip


def names(settings: SizeShape) -> tuple[str, ...]:
    """Features of one object table."""
    return (
        *(f"AreaShape_{name}" for name in STANDARD),
        *(zernike.names() if settings.zernikes else ()),
        *(f"AreaShape_{name}" for name in ADVANCED if settings.advanced),
    )


@dataclass(frozen=True)
class Parts:
    """What is measured of each object, before the formulas.

    area: pixels. box: first row, first column, one behind the last. raw, central: moments, (row, column) powers up to
    3. outline: border pixels by kind and the Euler number. radii: greatest, mean, median. centre: column, row. hull:
    `hull_parts`. zernikes: None where not asked for.
    """

    area: Float[np.ndarray, " n"]
    box: Float[np.ndarray, "n 4"]
    raw: Float[np.ndarray, "n 4 4"]
    central: Float[np.ndarray, "n 4 4"]
    outline: Float[np.ndarray, "n 4"]
    radii: Float[np.ndarray, "n 3"]
    centre: Float[np.ndarray, "n 2"]
    hull: Float[np.ndarray, "n 6"]
    zernikes: Float[np.ndarray, "n z"] | None


def measure(regions: Regions, settings: SizeShape, *, stable: bool = False) -> Float[np.ndarray, "n k"]:
    """Values of `names`, pixels and degrees; NaN for an absent object. `stable`: see the artefacts above."""
    if not regions.n:
        return np.zeros((0, len(names(settings))))
    area = regions.area.astype(float)
    raw, central = _moments(regions.start, regions.y, regions.x, regions.box, 4 if settings.advanced else 3)
    # A ring of background: the frame of the picture is an edge here.
    padded = replace(regions, labels=np.pad(regions.labels, 1))
    squares = squared_to_edge(padded)[1:-1, 1:-1].ravel()[regions.index]
    with np.errstate(divide="ignore", invalid="ignore"):
        places = [regions.sums(at.astype(float)) / area for at in (regions.x, regions.y)]
    parts = Parts(
        area=area,
        box=regions.box.astype(float),
        raw=raw,
        central=central,
        outline=_outlines(regions.labels, regions.start, regions.y, regions.x),
        radii=_radii(regions.start, squares),
        centre=np.stack(places, axis=1),
        hull=hull_parts(regions),
        zernikes=zernike.measure(regions) if settings.zernikes else None,
    )
    return together(parts, settings, stable)


def hull_parts(regions: Regions) -> Float[np.ndarray, "n 6"]:
    """Least and greatest Feret diameter, convex area, and centre (row, column) and radius of the smallest circle."""
    h = hulls(regions)
    convex = convex_areas(regions.start, regions.y, regions.x, regions.box)
    centres, radii = enclosing_circles(regions)
    return np.column_stack([feret(h.start, h.y, h.x), convex, centres, radii])


def together(parts: Parts, settings: SizeShape, stable: bool) -> Float[np.ndarray, "n k"]:
    """The columns of `names` from what was measured."""
    central = parts.central
    if stable:
        central = central.copy()
        central[:, 0, 1] = central[:, 1, 0] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        tensor, values = _inertia(central)
        standard = _standard(parts, values, stable)
        blocks = [np.stack([standard[name] for name in STANDARD], axis=1)]
        if parts.zernikes is not None:
            blocks.append(parts.zernikes)
        if settings.advanced:
            normalised = _normalised(central)
            blocks += [parts.raw[:, :3].reshape(-1, 12), central[:, :3].reshape(-1, 12), normalised.reshape(-1, 16)]
            blocks += [_hu(normalised), tensor.reshape(-1, 4), values]
    out = np.concatenate(blocks, axis=1)
    out[parts.area == 0] = np.nan
    return out


def _standard(parts: Parts, values: Float[np.ndarray, "n 2"], stable: bool) -> dict[str, Float[np.ndarray, " n"]]:
    area, box, outline, radii, hull = parts.area, parts.box, parts.outline, parts.radii, parts.hull
    box_area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    perimeter = outline[:, 0] + np.sqrt(2) * outline[:, 1] + (1 + np.sqrt(2)) / 2 * outline[:, 2]
    a, b, c = _covariance(parts.raw)
    orientation = 0.5 * np.arctan2(-2 * b, c - a)
    if not stable:
        orientation = np.where(a == c, np.where(b < 0, -np.pi / 4, np.pi / 4), orientation)
    return {
        "Extent": area / box_area,
        "EulerNumber": outline[:, 3],
        "EquivalentDiameter": np.sqrt(4 * area / np.pi),
        "MajorAxisLength": 4 * np.sqrt(values[:, 0]),
        "MinorAxisLength": 4 * np.sqrt(values[:, 1]),
        "Center_X": parts.centre[:, 0],
        "Center_Y": parts.centre[:, 1],
        "BoundingBoxMinimum_X": box[:, 1],
        "BoundingBoxMinimum_Y": box[:, 0],
        "BoundingBoxMaximum_X": box[:, 3],
        "BoundingBoxMaximum_Y": box[:, 2],
        "Area": area,
        "Perimeter": perimeter,
        "MaximumRadius": radii[:, 0],
        "MeanRadius": radii[:, 1],
        "MedianRadius": radii[:, 2],
        "MinFeretDiameter": hull[:, 0],
        "MaxFeretDiameter": hull[:, 1],
        "Orientation": orientation * (180 / np.pi),
        "Eccentricity": np.where(values[:, 0] == 0, 0.0, np.sqrt(1 - values[:, 1] / values[:, 0])),
        "FormFactor": 4.0 * np.pi * area / perimeter**2,
        "Solidity": area / hull[:, 2],
        "ConvexArea": hull[:, 2],
        "Compactness": perimeter**2 / np.maximum(4.0 * np.pi * area, 1),
        "BoundingBoxArea": box_area,
    }


@njit(cache=True, nogil=True)
@no_type_check
def _moments(start, y, x, box, orders):
    """Raw moments over the bounding box and central moments, powers below `orders` in both axes: [n, 4, 4] each."""
    count = start.size - 1
    raw, central = np.zeros((count, 4, 4)), np.zeros((count, 4, 4))
    for k in range(count):
        for p in range(start[k], start[k + 1]):
            v, u = float(y[p] - box[k, 0]), float(x[p] - box[k, 1])
            by_row = 1.0
            for i in range(orders):
                term = by_row
                for j in range(orders):
                    raw[k, i, j] += term
                    term *= u
                by_row *= v
        if raw[k, 0, 0] == 0:
            continue
        cy, cx = raw[k, 1, 0] / raw[k, 0, 0], raw[k, 0, 1] / raw[k, 0, 0]
        for p in range(start[k], start[k + 1]):
            v, u = y[p] - box[k, 0] - cy, x[p] - box[k, 1] - cx
            by_row = 1.0
            for i in range(orders):
                term = by_row
                for j in range(orders):
                    central[k, i, j] += term
                    term *= u
                by_row *= v
    return raw, central


def _covariance(raw: Float[np.ndarray, "n 4 4"]) -> tuple[Float[np.ndarray, " n"], ...]:
    """The inertia tensor's entries (0, 0), (0, 1) and (1, 1), times the squared area: differences of whole numbers,
    so that equal ones are equal."""
    mass = raw[:, 0, 0]
    a = raw[:, 0, 2] * mass - raw[:, 0, 1] ** 2
    b = -(raw[:, 1, 1] * mass - raw[:, 0, 1] * raw[:, 1, 0])
    c = raw[:, 2, 0] * mass - raw[:, 1, 0] ** 2
    return a, b, c


def _inertia(central: Float[np.ndarray, "n 4 4"]) -> tuple[Float[np.ndarray, "n 2 2"], Float[np.ndarray, "n 2"]]:
    """Covariance of the pixels turned by 90 degrees, and its eigenvalues, the larger first."""
    mass = central[:, 0, 0]
    tensor = np.zeros((len(central), 2, 2))
    tensor[:, 0, 0] = central[:, 0, 2] / mass
    tensor[:, 1, 1] = central[:, 2, 0] / mass
    tensor[:, 0, 1] = tensor[:, 1, 0] = -central[:, 1, 1] / mass
    values = np.clip(np.linalg.eigvalsh(np.where(np.isfinite(tensor), tensor, 0.0)), 0, None)[:, ::-1]
    return tensor, values


def _normalised(central: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 4 4"]:
    """mu_pq / mu_00^((p + q) / 2 + 1); NaN below order 2."""
    order = np.add.outer(np.arange(4), np.arange(4))
    out = central / central[:, :1, :1] ** (order / 2 + 1)
    out[:, order < 2] = np.nan
    return np.asarray(out)


def _hu(nu: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 7"]:
    """Hu's seven invariants of translation, scale and rotation (Hu 1962)."""
    n02, n03, n11, n12 = nu[:, 0, 2], nu[:, 0, 3], nu[:, 1, 1], nu[:, 1, 2]
    n20, n21, n30 = nu[:, 2, 0], nu[:, 2, 1], nu[:, 3, 0]
    t0, t1 = n30 + n12, n21 + n03
    q0, q1 = t0 * t0, t1 * t1
    d = n20 - n02
    s0, s1 = t0 * (q0 - 3 * q1), t1 * (3 * q0 - q1)
    r0, r1 = n30 - 3 * n12, 3 * n21 - n03
    invariants = (
        n20 + n02,
        d * d + 4 * n11 * n11,
        r0 * r0 + r1 * r1,
        q0 + q1,
        r0 * s0 + r1 * s1,
        d * (q0 - q1) + 4 * n11 * t0 * t1,
        r1 * s0 - r0 * s1,
    )
    return np.stack(invariants, axis=1)


@njit(cache=True, nogil=True)
@no_type_check
def _is(labels, y, x, k):
    return 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1] and labels[y, x] == k


@njit(cache=True, nogil=True)
@no_type_check
def _border(labels, y, x, k):
    """Whether a pixel of object k has a 4-neighbour outside it."""
    return _is(labels, y, x, k) and not (
        _is(labels, y - 1, x, k) and _is(labels, y + 1, x, k) and _is(labels, y, x - 1, k) and _is(labels, y, x + 1, k)
    )


@njit(cache=True, nogil=True)
@no_type_check
def _outlines(labels, start, y, x):
    """Border pixels by weight 1, sqrt 2 and (1 + sqrt 2) / 2, and the Euler number (8-connected): [n, 4].

    The Euler number counts 2 x 2 windows: (one pixel - three pixels - 2 diagonals) / 4.
    """
    count = start.size - 1
    out = np.zeros((count, 4))
    for o in range(count):
        k = o + 1
        quads = 0
        for p in range(start[o], start[o + 1]):
            i, j = y[p], x[p]
            inner = 0 < i < labels.shape[0] - 1 and 0 < j < labels.shape[1] - 1
            for a in range(-1, 2):
                for b in range(-1, 2):
                    inner = inner and labels[i + a, j + b] == k
            if inner:
                continue
            # Every window that holds the pixel; a window is seen once for each of its pixels.
            for a in range(-1, 1):
                for b in range(-1, 1):
                    n00, n01 = _is(labels, i + a, j + b, k), _is(labels, i + a, j + b + 1, k)
                    n10, n11 = _is(labels, i + a + 1, j + b, k), _is(labels, i + a + 1, j + b + 1, k)
                    total = int(n00) + int(n01) + int(n10) + int(n11)
                    if total == 1:
                        quads += 12
                    elif total == 3:
                        quads -= 4
                    elif total == 2 and n00 == n11:
                        quads -= 12
            if not _border(labels, i, j, k):
                continue
            code = 1
            for a in range(-1, 2):
                for b in range(-1, 2):
                    if (a != 0 or b != 0) and _border(labels, i + a, j + b, k):
                        code += 10 if a != 0 and b != 0 else 2
            if code in (5, 7, 15, 17, 25, 27):
                out[o, 0] += 1
            elif code in (21, 33):
                out[o, 1] += 1
            elif code in (13, 23):
                out[o, 2] += 1
        out[o, 3] = quads // 48
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _radii(start, squares):
    """Greatest, mean and median distance to the edge, from squared distances: [n, 3]."""
    count = start.size - 1
    out = np.zeros((count, 3))
    for k in range(count):
        a, b = start[k], start[k + 1]
        n = b - a
        if n == 0:
            continue
        most, total = 0, 0.0
        for p in range(a, b):
            most = max(most, squares[p])
            total += np.sqrt(float(squares[p]))
        out[k, 0] = np.sqrt(float(most))
        out[k, 1] = total / n
        tally = np.zeros(most + 1, np.int64)
        for p in range(a, b):
            tally[squares[p]] += 1
        seen, low, high = 0, -1, -1
        for d in range(most + 1):
            seen += tally[d]
            if low < 0 and seen > (n - 1) // 2:
                low = d
            if seen > n // 2:
                high = d
                break
        out[k, 2] = (np.sqrt(float(low)) + np.sqrt(float(high))) / 2
    return out
