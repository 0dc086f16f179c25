"""`random_conv`: random, never trained convolutions. A control: what a picture says to an untrained network.

A learned embedder that does not beat it has learned nothing that edges and brightness do not say. Each channel is
filtered by the same fixed random filters of three sizes; a filter gives the mean and the standard deviation of its
rectified response (after Rahimi and Recht, "Random features for large-scale kernel machines", NIPS 2007, and Dempster
et al., ROCKET, 2020, who pool random convolutions the same way).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32, Float64
from scipy.signal import oaconvolve

from profiling.embedders.embedding import InvalidEmbedder, check_pictures, field_vector
from profiling.engines.measurement import FieldMeasurement

NAME = "random_conv"
SEED = 20240
SIDES = (3, 7, 15)  # pixels a side of the filters
FILTERS = 8  # of each side
STATISTICS = 2  # mean and standard deviation
#: Raised by hand when the filters or the pooling change.
REVISION = 1


def random_filters() -> tuple[Float64[np.ndarray, "side side"], ...]:
    """The fixed filters: Gaussian noise, mean 0 (blind to brightness alone), sum of squares 1."""
    rng = np.random.Generator(np.random.Philox(key=SEED))
    drawn = (rng.standard_normal((side, side)) for side in SIDES for _ in range(FILTERS))
    centred = (noise - noise.mean() for noise in drawn)
    return tuple(noise / np.sqrt((noise**2).sum()) for noise in centred)


class RandomConv:
    """Embedder of whole fields: 48 numbers a channel, in the order channel, filter, (mean, standard deviation)."""

    def __init__(self) -> None:
        self._filters = random_filters()

    @property
    def hash(self) -> str:
        """sha256 of the filters and the revision."""
        content = b"".join(one.tobytes() for one in self._filters)
        return hashlib.sha256(f"{NAME} {REVISION}".encode() + content).hexdigest()

    def __enter__(self) -> RandomConv:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """One vector a picture. Raises InvalidEmbedder for arrays that are no pictures or smaller than a filter."""
        check_pictures(pictures, channels)
        if min(pictures.shape[2:]) < max(SIDES):
            raise InvalidEmbedder(
                f"pictures: {pictures.shape[2]} x {pictures.shape[3]} pixels, expected at least {max(SIDES)} a side"
            )
        measured = []
        for i, picture in enumerate(pictures):
            measured.append(field_vector(NAME, self._vector(picture)))
            if progress is not None:
                progress(i + 1)
        return measured

    def _vector(self, picture: Float32[np.ndarray, "c h w"]) -> Float64[np.ndarray, " k"]:
        values = []
        for plane in picture.astype(np.float64):
            for kernel in self._filters:
                response = np.maximum(oaconvolve(plane, kernel, mode="valid"), 0.0)
                values += [response.mean(), response.std()]
        return np.array(values)


def load(folder: Path | None = None) -> RandomConv:
    """The embedder; it has no weights. Raises InvalidEmbedder if a folder of weights is named all the same."""
    if folder is not None:
        raise InvalidEmbedder(f"weights: got {folder}, but {NAME} is never trained and has none: leave them out")
    return RandomConv()
