"""Pixels of a stored picture as plain bytes, for a viewer that mixes the channels itself.

The page fetches each picture once in this form; channel toggles, contrast and difference then cost no request.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from profiling.images import read_ome_tiff, to_counts

MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Raw:
    """16-bit camera counts (1 = 65535), little-endian, planes in the order of `channels`, rows from the top."""

    data: bytes
    shape: tuple[int, int, int]  # channels, height, width
    channels: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        """What a reader of the bytes must know, as HTTP headers."""
        shape = ",".join(str(length) for length in self.shape)
        return {"X-Dopaint-Shape": shape, "X-Dopaint-Channels": ",".join(self.channels)}


def raw(file: Path, longest: int | None = None) -> Raw:
    """The pixels of an OME-TIFF, halved until no side is longer than `longest` pixels.

    Raises `profiling.images.InvalidImage` for a file that is no picture with named channels.
    """
    picture = read_ome_tiff(file)
    pixels = picture.pixels
    while longest is not None and max(pixels.shape[1:]) > max(1, longest):
        pixels = halved(pixels)
    counts = to_counts(pixels).astype("<u2")
    channels, height, width = counts.shape
    return Raw(counts.tobytes(), (channels, height, width), picture.channels)


def halved(pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h2 w2"]:
    """Means of 2 x 2 blocks, so that a picture shown small keeps its brightness; an odd last row or column is repeated
    into its block."""
    _, height, width = pixels.shape
    even = np.pad(pixels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    blocks = even.reshape(len(pixels), (height + 1) // 2, 2, (width + 1) // 2, 2)
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float32)
