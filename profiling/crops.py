"""Shuffled crops of a gallery's fields, streamed: from S3 or a mirror, one field at a time in memory.

The order of an epoch is a permutation of the fields that depends on (seed, epoch) only, and a stream can begin at any
field of it, so a training that was stopped goes on with the same crops. Illumination functions of the gallery are
divided out where they are there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from profiling.gallery import Gallery, RemoteField
from profiling.inputs.field import Field, Plane
from profiling.inputs.pixels import read_field
from profiling.outcomes import BadPicture

AHEAD = 8  # fields that are read while one is used


@dataclass(frozen=True)
class Crop:
    """One crop [c, s, s] in camera units, and the field that it is of; `bad` says why a field gave none."""

    field: RemoteField
    pixels: Float32[np.ndarray, "c s s"] | None
    bad: str = ""


def read_remote(
    gallery: Gallery, one: RemoteField, channels: Sequence[str], correct: bool = True
) -> Float32[np.ndarray, "c h w"]:
    """Pixels of a field, 16-bit counts over 65535, divided by its illumination functions if there are any.

    Values can exceed 1 after the division. Raises BadPicture; a key that is not in the gallery is "missing".
    """
    local = not gallery.root.startswith("s3")
    with tempfile.TemporaryDirectory(prefix="dopaint-field-") as folder:
        paths: dict[str, Path] = {}
        light = {s: one.illumination[s] for s in channels if correct and s in one.illumination}
        for name, key in [*((s, one.pictures[s]) for s in channels), *((f"illum {s}", k) for s, k in light.items())]:
            paths[name] = Path(gallery.path(key)) if local else Path(folder) / f"{name}{Path(key).suffix}"
            if not local:
                try:
                    gallery.fs.get_file(gallery.path(key), str(paths[name]))
                except FileNotFoundError as error:
                    raise BadPicture("missing", f"{key} is not in the gallery") from error
                except OSError as error:
                    raise BadPicture("unreadable", f"{key} could not be fetched: {error}") from error
        pixels = read_field(Field({}, {s: Plane(paths[s]) for s in channels}), channels, "16")
        for at, stain in enumerate(channels):
            if stain in light:
                pixels[at] /= _function(paths[f"illum {stain}"], pixels.shape[1:])
    return pixels


def _function(path: Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "h w"]:
    try:
        function = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise BadPicture("unreadable", f"illumination function {path.name} cannot be read: {error}") from error
    if function.shape != shape or not np.isfinite(function).all() or (function <= 0).any():
        raise BadPicture(
            "wrong_size", f"illumination function {path.name} is {function.shape}, expected {shape} above 0"
        )
    return function


def order(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n fields in an epoch: a function of seed and epoch only."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(n)


def stream(
    gallery: Gallery,
    fields: Sequence[RemoteField],
    channels: Sequence[str],
    size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
    centre: bool = False,
    correct: bool = True,
    workers: int = AHEAD,
) -> Iterator[Crop]:
    """One crop of every field in the epoch's order, from its `start`-th field on; `workers` fields are read ahead.

    centre: the middle of the field, as the paper takes it; else a place that depends on (seed, epoch, field). A field
    that cannot be used comes without pixels and with its reason: it is counted by the caller, never skipped silently.
    """
    shuffled = order(len(fields), seed, epoch)[start:]

    def one(at: int) -> Crop:
        try:
            pixels = read_remote(gallery, fields[at], channels, correct)
            if min(pixels.shape[1:]) < size:
                raise BadPicture("wrong_size", f"the field is {pixels.shape[1:]}, expected at least {size} a side")
        except BadPicture as bad:
            return Crop(fields[at], None, str(bad))
        room = np.array(pixels.shape[1:]) - size
        rng = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 1, int(at)]))
        top, left = room // 2 if centre else rng.integers(0, room + 1)
        return Crop(fields[at], pixels[:, top : top + size, left : left + size].copy())

    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[Crop]] = []
        try:
            for at in shuffled.tolist():
                waiting.append(pool.submit(one, at))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
