"""Two further stains for worlds with more than the five channels of Cell Painting: lysosomes and tubulin.

They show the same cells and the same states; a world without them paints its five channels as if they did not exist.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import pandas as pd
from jaxtyping import Float
from numba import njit

from causal.painter import CELL_RADIUS, CHANNELS, NUCLEUS_RADIUS
from causal.phenotype import stream

MARKERS = ("Lysosome", "Tubulin")
ALL_CHANNELS = (*CHANNELS, *MARKERS)
FEWEST, MOST = 3, len(ALL_CHANNELS)


class UnknownChannel(ValueError):
    """Channels that the simulated world cannot paint."""


def check_channels(channels: tuple[str, ...]) -> None:
    """Raise UnknownChannel unless these are three to seven different channels that can be painted."""
    unknown = [c for c in channels if c not in ALL_CHANNELS]
    if unknown or len(set(channels)) != len(channels) or not FEWEST <= len(channels) <= MOST:
        raise UnknownChannel(
            f"channels: {', '.join(channels)} given; {FEWEST} to {MOST} different ones expected, of "
            f"{', '.join(ALL_CHANNELS)}"
        )


@njit(cache=True, fastmath=True)
@no_type_check
def paint_markers(xy, state, uniform, tiles, size, out):
    """Add cells to `out` [2, size, size] (lysosome, tubulin); arguments as `painter.paint_cells`.

    Lysosomes are spots that gather at the nucleus with the ER and multiply as mitochondria fragment; tubulin is a
    fibrous net, stronger in long cells and weaker where actin goes to the rim.
    """
    mask = tiles.shape[1] - 1
    for i in range(xy.shape[0]):
        s = state[i]
        u = uniform[i]
        radius = CELL_RADIUS * np.exp(0.09 * s[1])
        ratio = np.exp(max(0.12 + 0.13 * s[2], 0.0))
        a = radius * np.sqrt(ratio)
        b = radius / np.sqrt(ratio)
        theta = 2.0 * np.pi * u[0]
        ct, st = np.cos(theta), np.sin(theta)
        oy, ox = int(u[6] * 255.0), int(u[5] * 255.0)
        spots = np.exp(0.3 * s[15])
        gather = 0.8 + 0.5 * s[9]
        fibres = np.exp(0.2 * s[2] - 0.25 * s[13])
        core = NUCLEUS_RADIUS * np.exp(0.085 * s[3]) / radius
        reach = int(a * 1.2) + 3
        y0, x0 = int(xy[i, 0]), int(xy[i, 1])
        for y in range(max(0, y0 - reach), min(size, y0 + reach + 1)):
            for x in range(max(0, x0 - reach), min(size, x0 + reach + 1)):
                dy = y - xy[i, 0]
                dx = x - xy[i, 1]
                p = (dx * ct + dy * st) / a
                q = (-dx * st + dy * ct) / b
                r = np.sqrt(p * p + q * q)
                if r > 1.3:
                    continue
                inside = 1.0 / (1.0 + np.exp((r - 1.0) * 14.0))
                outside_nucleus = 1.0 / (1.0 + np.exp((core - r) * 12.0))
                ty, tx = (y + oy) & mask, (x + ox) & mask
                dot = max(0.0, tiles[1, ty, tx] - 0.8)
                v = 0.9 * spots * inside * outside_nucleus * dot * np.exp(-max(gather, 0.0) * r * r)
                out[0, y, x] = max(out[0, y, x], v)
                net = max(0.0, 0.6 + 0.5 * tiles[3, ty, tx])
                out[1, y, x] = max(out[1, y, x], fibres * inside * (0.35 + 0.65 * outside_nucleus) * net)


def marker_optics(seed: int, rows: pd.DataFrame) -> dict[str, Float[np.ndarray, "n 2"]]:
    """gain, background and blur [n, 2] of the two stains, from streams of their own."""
    by_source, by_batch = {}, {}
    for source in rows["source"].unique():
        rng = stream(seed, "source", source, "markers")
        by_source[source] = (
            0.19 * np.exp(rng.normal(0, 0.3, 2)),
            rng.uniform(0.015, 0.05, 2),
            rng.uniform(0.5, 1.1, 2),
        )
    for batch in rows["batch"].unique():
        by_batch[batch] = np.exp(stream(seed, "batch", batch, "markers").normal(0, 0.22, 2))
    gain, background, blur = (np.stack([by_source[s][k] for s in rows["source"]]) for k in range(3))
    return {
        "gain": gain * np.stack([by_batch[b] for b in rows["batch"]]),
        "background": background,
        "blur": blur,
    }
