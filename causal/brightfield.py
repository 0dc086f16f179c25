"""Transmitted light: the simulated cells as weak phase objects at three focal planes.

To first order in defocus z, a phase object φ gives the intensity I = 1 − z k ∇²φ (transport of intensity; Teague 1983),
plus a little absorption in focus. Thickness of cell and nucleus stands for φ.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from causal import painter

PLANES = (-1.0, 0.0, 1.0)  # defocus in units of the depth of field
LEVEL = 0.5  # camera units of an empty field
CONTRAST = 2.5
ABSORPTION = 0.15


def thickness(
    xy: Float[np.ndarray, "n 2"], state: Float[np.ndarray, "n 16"], shape: Float[np.ndarray, "n u"], size: int
) -> Float32[np.ndarray, "h w"]:
    """Height of the cell layer in relative units: flat cytoplasm, a dome for the nucleus, granules as painted."""
    signal = np.zeros((len(painter.CHANNELS), size, size), np.float32)
    plain = state.copy()
    for name in ("dna_intensity", "er_intensity", "rna_intensity", "agp_intensity", "mito_intensity"):
        plain[:, painter.STATE.index(name)] = 0.0  # stains carry no phase
    painter.paint_cells(xy, plain, shape, painter.noise_tiles(), size, signal)
    height = 0.8 * signal[0] + 0.5 * signal[2] + 0.2 * signal[4]
    return ndimage.gaussian_filter(height, 1.0).astype(np.float32)


def render(
    xy: Float[np.ndarray, "n 2"],
    state: Float[np.ndarray, "n 16"],
    shape: Float[np.ndarray, "n u"],
    size: int,
    read: float,
    pixel: Float[np.ndarray, "c h w"],
) -> Float32[np.ndarray, "z h w"]:
    """Pictures [3, h, w] in [0, 1]; `read` is the camera noise, `pixel` the row's own noise."""
    phase = thickness(xy, state, shape, size)
    out = np.empty((len(PLANES), size, size), np.float32)
    for i, z in enumerate(PLANES):
        sharp = ndimage.gaussian_laplace(phase, 1.0 + 0.5 * abs(z))
        light = 1.0 - CONTRAST * z * sharp - ABSORPTION * ndimage.gaussian_filter(phase, 0.4 + 0.6 * abs(z))
        out[i] = np.clip(LEVEL * light + read * pixel[i], 0.0, 1.0)
    return out
