"""Zernike moments of object shapes: magnitudes of order 0 to 9, on the smallest circle around the object.

|sum over the object of R_nm(r) e^(i m phi)| / (pi radius^2) (Boland and Murphy 2001; centrosome `zernike`: a pixel
outside the unit circle counts nothing). Rotation changes a magnitude by no more than resampling does.
"""

from __future__ import annotations

from math import factorial
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int64
from numba import njit

from profiling.engines.families.hull import enclosing_circles
from profiling.engines.families.regions import Regions

DEGREE = 9


def indices(degree: int = DEGREE) -> tuple[tuple[int, int], ...]:
    """(n, m) of all polynomials up to a degree, in CellProfiler's order."""
    return tuple((n, m) for n in range(degree + 1) for m in range(n % 2, n + 1, 2))


def names(prefix: str = "AreaShape_Zernike_") -> tuple[str, ...]:
    """Feature names."""
    return tuple(f"{prefix}{n}_{m}" for n, m in indices())


def coefficients(degree: int = DEGREE) -> tuple[Int64[np.ndarray, "z 2"], Float[np.ndarray, "z w"]]:
    """(n, m), and the coefficients of the radial polynomials over r^m, highest power of r^2 first."""
    pairs = indices(degree)
    table = np.zeros((len(pairs), degree // 2 + 1))
    for row, (n, m) in zip(table, pairs, strict=True):
        half, other = (n + m) // 2, (n - m) // 2
        for k in range(other + 1):
            row[k] = (-1) ** k * factorial(n - k) / (factorial(k) * factorial(half - k) * factorial(other - k))
    return np.array(pairs), table


def measure(regions: Regions, degree: int = DEGREE) -> Float[np.ndarray, "n z"]:
    """Magnitudes of each object; NaN for an object of one pixel (its circle has no area)."""
    centres, radii = enclosing_circles(regions)
    pairs, table = coefficients(degree)
    sums = moments(regions.start, regions.y, regions.x, centres, radii, np.zeros(0, np.float32), pairs, table)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(sums[..., 0] ** 2 + sums[..., 1] ** 2) / (np.pi * radii * radii)[:, None])


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def moments(start, y, x, centres, radii, weights, pairs, table):
    """Sum of weight * V_nm over the pixels of each object; float64 [n, z, 2]: real and imaginary part.

    `weights` holds one number a pixel, or nothing for 1. V_nm = R_nm(r) (y + i x)^m / r^m, as centrosome has it.
    """
    count, kinds = start.size - 1, pairs.shape[0]
    degree = 0
    for z in range(kinds):
        degree = max(degree, pairs[z, 0])
    out = np.zeros((count, kinds, 2))
    real, imaginary = np.empty(degree + 1), np.empty(degree + 1)
    for k in range(count):
        for p in range(start[k], start[k + 1]):
            v = (y[p] - centres[k, 0]) / radii[k]
            u = (x[p] - centres[k, 1]) / radii[k]
            square = u * u + v * v
            if square > 1:
                continue
            weight = weights[p] if weights.size else 1.0
            real[0], imaginary[0] = 1.0, 0.0
            for m in range(1, degree + 1):
                real[m] = real[m - 1] * v - imaginary[m - 1] * u
                imaginary[m] = real[m - 1] * u + imaginary[m - 1] * v
            for z in range(kinds):
                n, m = pairs[z, 0], pairs[z, 1]
                s = 0.0
                for t in range((n - m) // 2 + 1):
                    s = s * square + table[z, t]
                s *= weight
                out[k, z, 0] += s * real[m]
                out[k, z, 1] += s * imaginary[m]
    return out
