"""From the files of one field to pixels in [0, 1]; a picture that cannot be used says by a named outcome why.

Counts become numbers by one division: 8 bits by 255, 12 by 4095, 16 by 65535. The range is stated, never guessed from
the values: 12-bit counts in 16-bit files look dark, not different.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from profiling.inputs import ome_tiff, ome_zarr
from profiling.inputs.field import Field, Plane
from profiling.outcomes import BadPicture

#: Largest number of each range; `float` means numbers from 0 to 1.
RANGES: Mapping[str, int] = {"8": 255, "12": 4095, "16": 65535, "float": 1}
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_field(field: Field, channels: Sequence[str], bits: str) -> Float32[np.ndarray, "c h w"]:
    """The pixels of one field, channels in the order given.

    Raises:
        BadPicture: a channel without a file (missing), a file that cannot be read (unreadable, truncated), planes of
        different sizes (wrong_size), values outside of the stated range (wrong_range) or not finite (not_finite).
    """
    if absent := [name for name in channels if name not in field.planes]:
        raise BadPicture("missing", f"no picture of {', '.join(absent)}")
    planes: dict[str, np.ndarray] = {}
    by_file = sorted(channels, key=lambda name: str(field.planes[name].path))
    for path, names in groupby(by_file, key=lambda name: field.planes[name].path):
        wanted = list(names)
        found = read_planes(path, [field.planes[name].which for name in wanted])
        planes |= dict(zip(wanted, found, strict=True))
    shapes = {name: planes[name].shape for name in channels}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {size(shape)}" for name, shape in shapes.items())
        raise BadPicture("wrong_size", f"channels differ in size: {sizes}")
    files = {name: field.planes[name].path.name for name in channels}
    for name in channels:  # before any range is judged: NaN is the better reason
        _check_finite(planes[name], files[name])
    return np.stack([unit_range(planes[name], bits, files[name]) for name in channels])


def size(shape: Sequence[int]) -> str:
    """ "height x width" for sentences."""
    return " x ".join(map(str, shape))


def unit_range(plane: np.ndarray, bits: str, name: str) -> Float32[np.ndarray, "h w"]:
    """One plane in [0, 1]. Raises BadPicture (not_finite, wrong_range)."""
    kind = plane.dtype.kind
    if kind not in "uif":
        raise BadPicture("unreadable", f"{name} holds {plane.dtype}, expected counts or floats")
    if not plane.size:
        raise BadPicture("unreadable", f"{name} has no pixels")
    _check_finite(plane, name)
    largest = RANGES[bits]
    if (kind == "f") != (bits == "float") or (bits == "16" and plane.dtype.itemsize == 1):
        raise BadPicture("wrong_range", f"{name} holds {plane.dtype}, and {told(bits)} was stated")
    low, high = plane.min(), plane.max()
    if low < 0 or high > largest:
        raise BadPicture("wrong_range", f"{name} has values from {low:g} to {high:g}, and {told(bits)} was stated")
    return (plane / largest).astype(np.float32)


def _check_finite(plane: np.ndarray, name: str) -> None:
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        raise BadPicture("not_finite", f"{name} has {int((~np.isfinite(plane)).sum())} pixels that are not finite")


def told(bits: str) -> str:
    """A range in words."""
    return "floats from 0 to 1" if bits == "float" else f"{bits} bits, 0 to {RANGES[bits]}"


def read_planes(path: Path, indices: Sequence[int | str]) -> list[np.ndarray]:
    """Planes [h, w] of one file or Zarr image, as stored; by position, or by the name the file gives the channel.

    Raises:
        BadPicture: missing, unreadable or truncated.
    """
    if path.is_dir():
        try:
            return list(ome_zarr.read_planes(path, [str(label) for label in indices]))
        except ome_zarr.BrokenZarr as error:
            raise BadPicture("unreadable", str(error)) from error
    if not path.is_file():
        raise BadPicture("missing", f"{path.name} does not exist")
    if not path.stat().st_size:
        raise BadPicture("truncated", f"{path.name} is empty")
    stack, names = _png(path) if path.suffix.lower() == ".png" else _tiff(path)
    chosen = []
    for index in indices:
        if isinstance(index, str) and index not in names:
            raise BadPicture("missing", f"{path.name} has no channel {index}; it has {', '.join(names) or 'none'}")
        at = names.index(index) if isinstance(index, str) else index
        if at >= len(stack):
            raise BadPicture("missing", f"{path.name} has {len(stack)} planes, expected at least {at + 1}")
        chosen.append(stack[at])
    return chosen


def _tiff(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """All planes [k, h, w], and the channels' names where it is an OME-TIFF."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] not in _TIFF_MARKS:
        raise BadPicture("unreadable", f"{path.name} is no TIFF file")
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    directory = int.from_bytes(head[8:16] if 43 in head[2:4] else head[4:8], order)  # 43: BigTIFF, wide offsets
    if directory >= whole:
        raise BadPicture("truncated", f"{path.name} ends after {whole} bytes, before its directory")
    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.series) != 1:
                raise BadPicture("unreadable", f"{path.name} holds {len(tiff.series)} pictures, expected one field")
            for page in tiff.pages:
                ends = zip(page.dataoffsets, page.databytecounts, strict=False)
                if max((start + count for start, count in ends), default=0) > whole:
                    raise BadPicture("truncated", f"{path.name} ends after {whole} bytes, before its pixels do")
            shared = tiff.series[0].size > sum(math.prod(page.shape) for page in tiff.pages)
            if shared:  # one of several files of one OME-TIFF: its own planes alone, never those of the others
                return np.stack([np.asarray(page.asarray()) for page in tiff.pages]), ()
            names = ome_tiff.channel_names(tiff.ome_metadata) if tiff.ome_metadata else ()
            axes, shape = tiff.series[0].axes, tiff.series[0].shape
            return _stack(_decoded(tiff, path), axes, shape, path), names
    except BadPicture:
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, tifffile.TiffFileError) as error:
        raise _broken(path, error) from error


def _decoded(tiff: tifffile.TiffFile, path: Path) -> np.ndarray:
    """tifffile decodes what it can by itself; LZW, as JUMP's files have it, and JPEG are Pillow's."""
    try:
        return np.asarray(tiff.series[0].asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    with Image.open(path) as image:
        planes = []
        for k in range(getattr(image, "n_frames", 1)):
            image.seek(k)
            planes.append(np.asarray(image))
    return np.stack(planes) if len(planes) > 1 else planes[0]


def _stack(array: np.ndarray, axes: str, shape: Sequence[int], path: Path) -> np.ndarray:
    if array.shape != tuple(shape):
        array = array.reshape(shape)
    if "Y" not in axes or "X" not in axes:
        raise BadPicture("unreadable", f"{path.name} has axes {axes}, expected Y and X")
    array = np.moveaxis(array, (axes.index("Y"), axes.index("X")), (-2, -1))
    if sum(n > 1 for n in array.shape[:-2]) > 1:
        raise BadPicture("unreadable", f"{path.name} has axes {axes} of {size(shape)}, expected one stack of planes")
    return array.reshape(-1, *array.shape[-2:])


def _png(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        with Image.open(path) as image:
            array = np.asarray(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise _broken(path, error) from error
    return (array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)), ()


def _broken(path: Path, error: Exception) -> BadPicture:
    text = " ".join(str(error).split()) or type(error).__name__
    cut = any(word in text.lower() for word in ("truncat", "corrupt", "not enough", "failed to read", "past end"))
    return BadPicture("truncated" if cut else "unreadable", f"{path.name} cannot be read: {text}")


def fingerprint(plane: Plane) -> tuple[str, str, int, int]:
    """Path, index, size in bytes and time of change (ns) of a plane's file or Zarr image; zeros where it is missing."""
    path = plane.path
    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path] if path.is_file() else []
    stats = [one.stat() for one in files]
    changed = max((one.st_mtime_ns for one in stats), default=0)
    return str(path), str(plane.which), sum(one.st_size for one in stats), changed


def field_key(field: Field) -> str:
    """sha256 of what a field is called and of its files' names, sizes and times of change."""
    planes = {name: fingerprint(plane) for name, plane in field.planes.items()}
    text = json.dumps([dict(field.meta), planes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
