"""Real beside generated pictures, as one PNG: a row of the grid is a design row, its left half real, its right half
generated, one column a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw


class GridError(ValueError):
    """Raised when the sets of pictures do not match."""


GAP = 4


def grid(
    real: Float[np.ndarray, "n c h w"], generated: Float[np.ndarray, "_ _ _ _"], share: float = 0.002
) -> UInt8[np.ndarray, "y x"]:
    """Grey grid of both sets. Every channel has one scale for real and generated, from `share` to 1 - `share` of the
    real pixels, so that brightness can be compared.

    Raises GridError when the shapes differ.
    """
    if real.shape != generated.shape or real.ndim != 4 or not len(real):
        raise GridError(f"pictures: real {real.shape}, generated {generated.shape}, expected one shape [n, c, h, w]")
    n, c, h, w = real.shape
    low, high = (np.quantile(real, q, axis=(0, 2, 3))[:, None, None] for q in (share, 1.0 - share))
    canvas = np.full((n * (h + GAP) - GAP, 2 * c * (w + GAP) + 3 * GAP), 255, dtype=np.uint8)
    for side, pictures in enumerate((real, generated)):
        scaled = np.clip((pictures - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        bytes_ = np.round(scaled * 255.0).astype(np.uint8)
        for i in range(n):
            for k in range(c):
                top, left = i * (h + GAP), (side * c + k) * (w + GAP) + side * 4 * GAP
                canvas[top : top + h, left : left + w] = bytes_[i, k]
    return canvas


def save_grid(
    real: Float[np.ndarray, "n c h w"], generated: Float[np.ndarray, "_ _ _ _"], channels: Sequence[str], path: Path
) -> None:
    """Write the grid with a line of titles to a PNG file. Raises GridError."""
    if len(channels) != real.shape[1]:
        raise GridError(f"channels: got {len(channels)} names, expected {real.shape[1]}; name every channel")
    body, w, c = grid(real, generated), real.shape[3], real.shape[1]
    head = 14
    image = Image.new("L", (body.shape[1], body.shape[0] + head), 255)
    image.paste(Image.fromarray(body), (0, head))
    pen = ImageDraw.Draw(image)
    for side, kind in enumerate(("real", "generated")):
        for k, name in enumerate(channels):
            pen.text(((side * c + k) * (w + GAP) + side * 4 * GAP, 1), f"{kind} {name}", fill=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
