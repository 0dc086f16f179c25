"""Zernike moments of a batch, of shapes and of intensities: definitions in `families.zernike`, `zernike_intensity`.

Every moment is a combination of Σ x r^(2k) (v + iu)^m over an object's pixels inside its circle.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

from profiling.engines.families import zernike, zernike_intensity
from profiling.engines.families_torch.batch import Lists, reduce


def of_shapes(of: Lists, circles: Float64[Tensor, "n 3"]) -> Float64[Tensor, "n z"]:
    """Magnitudes of order 0 to 9, over the circle's area; NaN for an object of one pixel."""
    one = torch.ones(len(of.index), 1, dtype=torch.float64, device=of.device)
    moments = _moments(of, one, circles, zernike.DEGREE)[:, 0]
    return moments.abs() / (torch.pi * circles[:, 2:] ** 2)


def of_intensity(
    of: Lists, x: Float64[Tensor, "p c"], degree: int, choice: str, circles: Float64[Tensor, "n 3"]
) -> Float64[Tensor, "n c k"] | None:
    """Magnitudes, then phases if asked for; None where neither is."""
    parts = zernike_intensity.CHOICES.index(choice)
    if not parts:
        return None
    moments = _moments(of, x, circles, degree)
    magnitude = moments.abs() / of.area[:, None, None]
    return torch.cat([magnitude, torch.atan2(moments.real, moments.imag)][:parts], dim=2)


def _moments(
    of: Lists, x: Float64[Tensor, "p c"], circles: Float64[Tensor, "n 3"], degree: int
) -> Complex128[Tensor, "n c z"]:
    pairs, table = zernike.coefficients(degree)
    middle = circles[of.owner]
    v, u = (of.y - middle[:, 0]) / middle[:, 2], (of.x - middle[:, 1]) / middle[:, 2]
    square = u * u + v * v
    inside = square <= 1.0  # false for NaN: an object of one pixel has no circle
    x = torch.where(inside[:, None], x, 0.0)
    v, u, square = (torch.where(inside, part, 0.0) for part in (v, u, square))
    out = torch.zeros(of.n, x.shape[1], len(pairs), dtype=torch.complex128, device=of.device)
    real, imaginary = torch.ones_like(v), torch.zeros_like(v)
    for m in range(degree + 1):
        for z in np.flatnonzero(pairs[:, 1] == m).tolist():
            radial = torch.zeros_like(square)
            for term in table[z, : (int(pairs[z, 0]) - m) // 2 + 1].tolist():
                radial = radial * square + term
            out[:, :, z] = torch.complex(
                reduce(x * (radial * real)[:, None], "sum", of.runs),
                reduce(x * (radial * imaginary)[:, None], "sum", of.runs),
            )
        real, imaginary = real * v - imaginary * u, real * u + imaginary * v
    return out
