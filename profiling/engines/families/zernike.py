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
    powers = _powers(regions.start, regions.y, regions.x, centres, radii, degree)
    out = np.empty((regions.n, len(pairs)))
    with np.errstate(divide="ignore", invalid="ignore"):
        area = np.pi * radii * radii
        for z, ((n, m), row) in enumerate(zip(pairs, table, strict=True)):
            terms = (n - m) // 2 + 1
            real, imaginary = np.einsum("nkp,k->pn", powers[:, m, :terms], row[:terms][::-1])
            out[:, z] = np.sqrt(real**2 + imaginary**2) / area
    out[radii == 0] = np.nan
    return out


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _powers(start, y, x, centres, radii, degree):
    """Sum over each object of r^(2 k) (v + i u)^m, v and u the pixel's place on the unit disk, u^2 + v^2 = r^2 <= 1:
    float64 [n, m, k, 2]. Every moment is a combination of them."""
    count = start.size - 1
    out = np.zeros((count, degree + 1, degree // 2 + 1, 2))
    for k in range(count):
        for p in range(start[k], start[k + 1]):
            v = (y[p] - centres[k, 0]) / radii[k]
            u = (x[p] - centres[k, 1]) / radii[k]
            square = u * u + v * v
            if square > 1:
                continue
            real, imaginary = 1.0, 0.0
            for m in range(degree + 1):
                a, b = real, imaginary
                for t in range((degree - m) // 2 + 1):
                    out[k, m, t, 0] += a
                    out[k, m, t, 1] += b
                    a *= square
                    b *= square
                real, imaginary = real * v - imaginary * u, real * u + imaginary * v
    return out
