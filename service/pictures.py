"""Pictures of a result: OME-TIFF files with their evidence in the metadata, and PNG views of them.

Display limits are numbers in camera units, not percentiles of a picture, so that pictures of a compound and of its
control can be compared by eye.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from profiling.images import composite, grey, read_ome_tiff, write_ome_tiff, write_png
from service.answer import statement
from service.errors import NotFound
from service.rooms import ModelCard

COMPOSITE = "composite"
BLACK, WHITE = 0.0, 0.3  # of a preview, in camera units


def stem(draw: int) -> str:
    """File name of a draw without its ending."""
    return f"draw_{draw:04d}"


def write_picture(
    folder: Path, draw: int, picture: Float[np.ndarray, "c h w"], card: ModelCard, row: dict[str, Any]
) -> None:
    """OME-TIFF and composite PNG of one draw; `row` is its design row and goes into the metadata with the evidence."""
    facts = {"evidence": card.evidence, "statement": statement(card.evidence), "conditions": card.conditions}
    words = {**facts, "model": card.name, **{key: str(value) for key, value in row.items()}}
    pixels = np.clip(picture, 0, 1).astype(np.float32)
    write_ome_tiff(folder / f"{stem(draw)}.ome.tiff", pixels, card.channels, annotation=words)
    ranges = dict.fromkeys(card.channels, (BLACK, WHITE))
    shown = {"black": str(BLACK), "white": str(WHITE)}
    write_png(folder / f"{stem(draw)}.png", composite(pixels, card.channels, ranges), {**facts, **shown})


def read_picture(folder: Path, draw: int) -> tuple[Float32[np.ndarray, "c h w"], tuple[str, ...]]:
    """The picture of a draw in [0, 1] and the names of its channels. Raises `NotFound`."""
    file = folder / f"{stem(draw)}.ome.tiff"
    if not file.is_file():
        raise NotFound(f"draw {draw} has no picture in this result: draws are numbered from 0")
    read = read_ome_tiff(file)
    return read.pixels, read.channels


def png(
    picture: Float32[np.ndarray, "c h w"],
    channels: tuple[str, ...],
    view: str,
    low: float = BLACK,
    high: float = WHITE,
) -> bytes:
    """PNG of one channel (grey) or of the composite; `low` and `high` in [0, 1] are shown black and white.

    Raises `NotFound` for an unknown channel.
    """
    if view not in (COMPOSITE, *channels):
        raise NotFound(f"channel {view!r} is not in the pictures: expected {COMPOSITE} or one of {', '.join(channels)}")
    ranges = dict.fromkeys(channels, (low, high))
    if view == COMPOSITE:
        pixels: np.ndarray = composite(picture, channels, ranges)
    else:
        pixels = grey(picture[channels.index(view)], view, ranges)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()
