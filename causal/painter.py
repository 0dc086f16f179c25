"""Paint one field of cells from per-cell states: the step state → picture of the simulator.

Everything random comes in as arrays, so the same exogenous noise painted under two interventions gives a counterfactual
twin. Kernels are compiled by numba, so the test-time type checker leaves them alone.
"""

from __future__ import annotations

import functools
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy import ndimage

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")

# Axes of the cell state, in units of one "visible step" (about the cell-to-cell standard deviation).
STATE = (
    "count",  # cells in the field
    "cell_area",
    "cell_elongation",
    "nucleus_area",
    "nucleus_elongation",
    "binucleate",  # share of cells with two nuclei
    "dna_intensity",
    "dna_texture",  # chromatin condensation
    "er_intensity",
    "er_perinuclear",  # how far the ER gathers around the nucleus
    "rna_intensity",
    "nucleoli",  # brightness of nucleoli
    "agp_intensity",
    "agp_rim",  # actin and membrane at the edge, against fibres inside
    "mito_intensity",
    "mito_fragmentation",  # network against fragments
)

MAX_CELLS = 76  # placed in the field and its margin
MARGIN = 14.0  # pixels around the picture in which cells may be centred, so that the frame cuts some
CELLS = 46.0  # cells in field and margin at state 0
CELL_RADIUS = 11.6  # pixels
NUCLEUS_RADIUS = 6.7  # pixels
N_UNIFORM = 16  # uniform numbers a cell
TILE = 256  # side of a noise tile


@functools.cache
def noise_tiles(seed: int = 7) -> Float[np.ndarray, "4 tile tile"]:
    """Four periodic noise tiles (zero mean, unit variance): fine, middle, coarse and fibrous."""
    rng = np.random.default_rng(seed)
    white = [rng.standard_normal((TILE, TILE)) for _ in range(3)]
    tiles = [ndimage.gaussian_filter(w, sigma, mode="wrap") for w, sigma in zip(white, (0.7, 1.5, 3.0), strict=True)]
    base = ndimage.gaussian_filter(rng.standard_normal((TILE, TILE)), 2.2, mode="wrap")
    tiles.append(-np.abs(base))  # ridges: the zero crossings of smooth noise
    out = np.stack([(t - t.mean()) / t.std() for t in tiles])
    return out.astype(np.float32)


@njit(cache=True, fastmath=True)
@no_type_check
def place_cells(uniform, size, margin):
    """Best-candidate sampling: cell i depends on the cells before it only, so another count keeps the first ones."""
    n = uniform.shape[0]
    tries = uniform.shape[1] // 2
    span = size + 2.0 * margin
    xy = np.empty((n, 2), np.float32)
    for i in range(n):
        best = -1.0
        for k in range(tries):
            y = uniform[i, 2 * k] * span - margin
            x = uniform[i, 2 * k + 1] * span - margin
            near = 1e9
            for j in range(i):
                d = (xy[j, 0] - y) ** 2 + (xy[j, 1] - x) ** 2
                if d < near:
                    near = d
            if near > best:
                best = near
                xy[i, 0] = y
                xy[i, 1] = x
    return xy


@njit(cache=True, fastmath=True)
@no_type_check
def paint_cells(xy, state, uniform, tiles, size, out):
    """Add cells to `out` [5, size, size]; `state` [n, 16]; `uniform` [n, 16] gives angle, phases and tile offsets."""
    n = xy.shape[0]
    mask = tiles.shape[1] - 1
    for i in range(n):
        s = state[i]
        u = uniform[i]
        radius = CELL_RADIUS * np.exp(0.09 * s[1])
        ratio = np.exp(max(0.12 + 0.13 * s[2], 0.0))
        a = radius * np.sqrt(ratio)
        b = radius / np.sqrt(ratio)
        nradius = NUCLEUS_RADIUS * np.exp(0.085 * s[3])
        nratio = np.exp(max(0.10 + 0.09 * s[4], 0.0))
        na = nradius * np.sqrt(nratio)
        nb = nradius / np.sqrt(nratio)
        theta = 2.0 * np.pi * u[0]
        ct = np.cos(theta)
        st = np.sin(theta)
        wob = 0.05 + 0.07 * u[1]
        ph1 = 2.0 * np.pi * u[2]
        ph2 = 2.0 * np.pi * u[3]
        lobes = 3 + int(3.0 * u[4])
        oy = int(u[5] * 255.0)
        ox = int(u[6] * 255.0)
        two = u[7] < 1.0 / (1.0 + np.exp(2.8 - 0.95 * s[5]))
        shift = 0.62 * na if two else 0.0
        if two:  # two smaller nuclei side by side
            na *= 0.78
            nb *= 0.78
        dna = np.exp(0.26 * s[6])
        chromatin = 0.16 * np.exp(0.45 * s[7])
        er = np.exp(0.26 * s[8])
        gather = 0.9 + 0.9 / (1.0 + np.exp(-0.9 * s[9])) * 2.0
        rna = np.exp(0.26 * s[10])
        nucleoli = 0.55 * np.exp(0.36 * s[11])
        agp = np.exp(0.26 * s[12])
        rim = 1.0 / (1.0 + np.exp(-0.8 * s[13]))
        mito = np.exp(0.26 * s[14])
        frag = 1.0 / (1.0 + np.exp(-0.9 * s[15]))
        reach = int(a * 1.25) + 3
        y0 = int(xy[i, 0])
        x0 = int(xy[i, 1])
        for y in range(max(0, y0 - reach), min(size, y0 + reach + 1)):
            for x in range(max(0, x0 - reach), min(size, x0 + reach + 1)):
                dy = y - xy[i, 0]
                dx = x - xy[i, 1]
                p = dx * ct + dy * st
                q = -dx * st + dy * ct
                r = np.sqrt((p / a) ** 2 + (q / b) ** 2)
                if r > 1.35:
                    continue
                ang = np.arctan2(q, p)
                edge = 1.0 + wob * np.sin(lobes * ang + ph1) + 0.5 * wob * np.sin((lobes + 2) * ang + ph2)
                rc = r / edge
                inside = 1.0 / (1.0 + np.exp((rc - 1.0) * 14.0))
                if inside < 0.004:
                    continue
                r1 = np.sqrt(((p - shift) / na) ** 2 + (q / nb) ** 2)
                rn = r1
                if two:
                    r2 = np.sqrt(((p + shift) / na) ** 2 + (q / nb) ** 2)
                    rn = min(r1, r2)
                nuc = 1.0 / (1.0 + np.exp((rn - 1.0) * 11.0))
                ty = (y + oy) & mask
                tx = (x + ox) & mask
                fine = tiles[0, ty, tx]
                mid = tiles[1, ty, tx]
                coarse = tiles[2, ty, tx]
                ridge = tiles[3, ty, tx]
                v = dna * nuc * max(0.15, 1.0 + chromatin * mid)
                if v > out[0, y, x]:
                    out[0, y, x] = v
                cyto = inside * (1.0 - 0.75 * nuc)
                v = er * cyto * np.exp(-gather * 0.9 * rc * rc) * 1.9 * max(0.2, 1.0 + 0.22 * mid + 0.15 * coarse)
                if v > out[1, y, x]:
                    out[1, y, x] = v
                spot = max(0.0, coarse * 0.6 + mid * 0.6 - 0.5)
                v = rna * (
                    0.75 * inside * (1.0 - 0.35 * nuc) * max(0.2, 1.0 + 0.14 * fine) + nucleoli * nuc * min(spot, 2.2)
                )
                if v > out[2, y, x]:
                    out[2, y, x] = v
                band = np.exp(-(((rc - 0.93) / 0.10) ** 2))
                fibre = max(0.0, 0.55 + 0.45 * ridge)
                golgi = np.exp(-(((p - 1.25 * na) / 3.2) ** 2) - ((q / 3.2) ** 2))
                v = agp * (
                    0.28 * inside + 1.35 * rim * band + 0.85 * (1.0 - rim) * inside * fibre + 0.55 * golgi * inside
                )
                if v > out[3, y, x]:
                    out[3, y, x] = v
                net = max(0.0, 0.75 + 0.6 * ridge)
                dots = max(0.0, 0.35 + 0.75 * mid)
                v = mito * cyto * ((1.0 - frag) * net + frag * dots) * (1.25 - 0.55 * rc)
                if v > out[4, y, x]:
                    out[4, y, x] = v


@njit(cache=True, fastmath=True)
@no_type_check
def expose(signal, taps, gain, background, vignette, centre, shot, read, normal, out):
    """Optics and camera: blur, vignette, gain, background, shot and read noise; `signal` and `out` are [5, h, w]."""
    channels, h, w = signal.shape
    half = taps.shape[1] // 2
    row = np.empty((h, w), np.float32)
    for c in range(channels):
        for y in range(h):
            for x in range(w):
                acc = 0.0
                for k in range(-half, half + 1):
                    xx = min(max(x + k, 0), w - 1)
                    acc += taps[c, k + half] * signal[c, y, xx]
                row[y, x] = acc
        for y in range(h):
            ry = (y - 0.5 * h - centre[0] * h) / (0.5 * h)
            for x in range(w):
                acc = 0.0
                for k in range(-half, half + 1):
                    yy = min(max(y + k, 0), h - 1)
                    acc += taps[c, k + half] * row[yy, x]
                rx = (x - 0.5 * w - centre[1] * w) / (0.5 * w)
                v = background[c] + gain[c] * acc * (1.0 - vignette * 0.5 * (ry * ry + rx * rx))
                v += normal[c, y, x] * np.sqrt(read * read + shot * max(v, 0.0))
                out[c, y, x] = min(max(v, 0.0), 1.0)


def gaussian_taps(sigma: Float[np.ndarray, " c"], half: int = 4) -> Float[np.ndarray, "c taps"]:
    """Normalised Gaussian kernels, one a channel; `sigma` in pixels."""
    k = np.arange(-half, half + 1)
    g = np.exp(-0.5 * (k[None, :] / np.maximum(sigma[:, None], 1e-3)) ** 2)
    return (g / g.sum(1, keepdims=True)).astype(np.float32)
