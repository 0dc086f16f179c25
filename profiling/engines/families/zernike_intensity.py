"""Zernike moments of intensity inside each object: magnitude and phase, of MeasureObjectIntensityDistribution.

With z = (y + ix)/R from the centre of the object's smallest enclosing circle of radius R, the moment of order (n, m) is
V = Σ x(p) R_nm(|z|) z^m over the pixels inside the circle, R_nm(ρ)ρ^m the radial polynomial. Magnitude: |V| / area
(pixels, not the circle's area as of the shape Zernikes), phase atan2(Re V, Im V): CellProfiler's order of arguments, so
that the phase is counted from the other axis. Orders n = 0 to the degree, m = n mod 2 to n.

Artefacts: the phase of an order with m = 0 is π/2 by construction (Im V = 0), and that of a vanishing moment is noise.
A pixel that lies on the circle within rounding is inside or outside by chance.

Reference: Boland, Markey and Murphy (1998); `centrosome.zernike` and `calculate_zernikes` of CellProfiler 4.2.8. Cost:
(degree + 2)² / 4 complex terms a pixel, computed once for all channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float32
from numba import njit

from profiling.engines.families import hull, zernike
from profiling.engines.families.regions import Regions

CHOICES = ("None", "Magnitudes only", "Magnitudes and phase")


def names(image: str, degree: int, choice: str) -> tuple[str, ...]:
    """Features of one channel: all magnitudes, then all phases; none where they are not asked for."""
    kinds = ("ZernikeMagnitude", "ZernikePhase")[: CHOICES.index(choice)]
    return tuple(f"RadialDistribution_{kind}_{image}_{n}_{m}" for kind in kinds for n, m in zernike.indices(degree))


def measure(
    regions: Regions,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    images: Sequence[str],
    degree: int,
    choice: str,
) -> dict[str, Float[np.ndarray, "n k"]]:
    """Values of `names` by channel."""
    centres, radii = hull.enclosing_circles(regions)
    pixels = np.stack([regions.gather(pictures[image]).astype(np.float64) for image in images])
    pairs, table = zernike.coefficients(degree)
    real, imaginary = np.zeros((2, len(images), regions.n, len(pairs)))
    _moments(regions.start, regions.y, regions.x, centres, radii, pixels, pairs, table, real, imaginary)
    with np.errstate(invalid="ignore", divide="ignore"):
        magnitude = np.sqrt(real * real + imaginary * imaginary) / regions.area[None, :, None]
    parts = (magnitude, np.arctan2(real, imaginary))[: CHOICES.index(choice)]
    return {image: np.concatenate([part[c] for part in parts], axis=1) for c, image in enumerate(images)}


@njit(cache=True, nogil=True)
@no_type_check
def _moments(start, ys, xs, centres, radii, pixels, pairs, terms, real, imaginary):
    channels = pixels.shape[0]
    most = 0
    for i in range(pairs.shape[0]):
        most = max(most, pairs[i, 1])
    power_re, power_im = np.empty(most + 1), np.empty(most + 1)
    for k in range(start.size - 1):
        for p in range(start[k], start[k + 1]):
            re, im = (ys[p] - centres[k, 0]) / radii[k], (xs[p] - centres[k, 1]) / radii[k]
            square = im * im + re * re
            if square > 1.0:
                continue
            power_re[0], power_im[0] = 1.0, 0.0
            for m in range(1, most + 1):
                power_re[m] = power_re[m - 1] * re - power_im[m - 1] * im
                power_im[m] = power_re[m - 1] * im + power_im[m - 1] * re
            for i in range(pairs.shape[0]):
                n, m = pairs[i]
                radial = 0.0
                for t in range((n - m) // 2 + 1):
                    radial = radial * square + terms[i, t]
                a, b = radial * power_re[m], radial * power_im[m]
                for c in range(channels):
                    real[c, k, i] += pixels[c, p] * a
                    imaginary[c, k, i] += pixels[c, p] * b
