"""The fast bilateral solver (Barron and Poole 2016, arXiv 1511.03296): a smooth map whose steps are those of a picture.

Minimises λ/2 Σ_ij Ŵ_ij (x_i - x_j)² + Σ_i c_i (x_i - t_i)² for a target t with confidence c, Ŵ the bistochastic
affinities of pixels that are near in place and in brightness. Pixels fall into a grid of (row, column, brightness);
W is slice (blur (splat)) on that grid, so the unknowns are its occupied vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse.linalg import cg


@dataclass(frozen=True)
class BilateralConfig:
    """`space`: pixels of a cell of the grid; `brightness`: its height, of a range of 1; `smooth`: λ."""

    space: float = 4.0
    brightness: float = 0.08
    smooth: float = 64.0
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Grid:
    """`vertex`: of each pixel; `blur`: affinities of the vertices; `n`, `mass`: scaling that makes it bistochastic."""

    vertex: Int[np.ndarray, " p"]
    blur: sparse.csr_matrix
    n: Float[np.ndarray, " v"]
    mass: Float[np.ndarray, " v"]


def make_grid(picture: Float[np.ndarray, "h w"], config: BilateralConfig) -> Grid:
    """The grid of one picture in [0, 1], and the bistochastised blur (their Algorithm 1)."""
    height, width = picture.shape
    y, x = np.mgrid[:height, :width]
    places = np.stack([y / config.space, x / config.space, picture / config.brightness], axis=-1)
    whole = np.round(places).astype(np.int64).reshape(-1, 3)
    span = whole.max(axis=0) + 3
    code = ((whole[:, 0] + 1) * span[1] + whole[:, 1] + 1) * span[2] + whole[:, 2] + 1
    codes, vertex = np.unique(code, return_inverse=True)
    v = len(codes)
    blur = 2.0 * 3 * sparse.identity(v, format="csr")
    for step in (span[1] * span[2], span[2], 1):
        for sign in (-1, 1):
            place = np.searchsorted(codes, codes + sign * step)
            there = (place < v) & (codes[np.minimum(place, v - 1)] == codes + sign * step)
            rows = np.flatnonzero(there)
            blur = blur + sparse.csr_matrix((np.ones(len(rows)), (rows, place[there])), shape=(v, v))
    mass = np.bincount(vertex, minlength=v).astype(np.float64)
    n = np.ones(v)
    for _ in range(20):
        n = np.sqrt(n * mass / (blur @ n))
    return Grid(vertex, blur, n, n * (blur @ n))


def solve(
    picture: Float[np.ndarray, "h w"],
    target: Float[np.ndarray, "h w"],
    confidence: Float[np.ndarray, "h w"],
    config: BilateralConfig | None = None,
) -> Float[np.ndarray, "h w"]:
    """The smoothed target, pixel by pixel: A y = b on the vertices with A = λ (D_m - D_n B D_n) + diag(splat c) and
    b = splat(c t) (their Equations 7 and 8)."""
    config = config or BilateralConfig()
    grid = make_grid(picture, config)
    v = len(grid.n)
    sums = np.bincount(grid.vertex, confidence.ravel(), v)
    b = np.bincount(grid.vertex, (confidence * target).ravel(), v)
    scaled = sparse.diags(grid.n) @ grid.blur @ sparse.diags(grid.n)
    a = config.smooth * (sparse.diags(grid.mass) - scaled) + sparse.diags(sums)
    start = b / np.maximum(sums, 1e-12)
    inverse = sparse.diags(1.0 / np.maximum(a.diagonal(), 1e-12))
    y, _ = cg(a, b, x0=start, rtol=config.tolerance, maxiter=500, M=inverse)
    return y[grid.vertex].reshape(picture.shape)
