"""Painted fields with a wanted number of cells, for timing: the simulator's painter on a jittered grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from causal.painter import CHANNELS, N_UNIFORM, STATE, noise_tiles, paint_cells
from causal.phenotype import stream

__all__ = ["CHANNELS", "paint"]

_BACKGROUND = (0.02, 0.03, 0.035, 0.03, 0.025)  # one a channel, share of the camera's range


def paint(
    n: int, cells: int, size: int = 384, scale: float = 1.7, seed: int = 1
) -> Float32[np.ndarray, "n 5 size size"]:
    """`n` fields of `cells` cells each, 12-bit camera counts in [0, 1]; `scale`: of a cell's area over the simulator's.

    Raises:
        ValueError: fewer than one cell or field.
    """
    if n < 1 or cells < 1:
        raise ValueError(f"fields and cells must be positive, got {n} and {cells}")
    out = np.empty((n, len(CHANNELS), size, size), np.float32)
    tiles = noise_tiles()
    for i in range(n):
        rng = stream(seed, "painted field", str(i))
        across = int(np.ceil(np.sqrt(1.25 * cells)))
        step = size / across
        places = np.array([((a + 0.5) * step, (b + 0.5) * step) for a in range(across) for b in range(across)])
        yx = places[rng.permutation(len(places))[:cells]] + rng.uniform(-0.2 * step, 0.2 * step, (cells, 2))
        state = rng.normal(0, 0.8, (cells, len(STATE)))
        # The painter's areas grow by 9 % (nuclei: 8.5 %) a unit of state.
        state[:, STATE.index("cell_area")] = np.log(scale) / 0.09 + rng.normal(0, 0.5, cells)
        state[:, STATE.index("nucleus_area")] = np.log(scale) / 0.085 + rng.normal(0, 0.5, cells)
        signal = np.zeros((len(CHANNELS), size, size), np.float32)
        noise = rng.random((cells, N_UNIFORM)).astype(np.float32)
        paint_cells(yx.astype(np.float32), state, noise, tiles, size, signal)
        ideal = np.array(_BACKGROUND)[:, None, None] + 0.16 * signal
        camera = ideal + np.sqrt(ideal * 2e-4 + 2e-6) * rng.standard_normal(ideal.shape)
        out[i] = np.clip(np.rint(camera * 4095), 0, 4095) * 16 / 65535
    return out
