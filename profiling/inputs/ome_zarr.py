"""OME-Zarr (NGFF 0.4 and 0.5): a plate in the HCS layout, one image, or a folder of them.

Plate and well come from the plate's own metadata, the site is the name of the field's image, channels are the labels of
`omero`. Full resolution only; time and depth must have one step. Chunks that a writer left out are filled with the
array's fill value, as the format says: a lost chunk cannot be told from an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from profiling.inputs.field import FieldSet, InvalidInput, Plane, field_set, rename_channels


class BrokenZarr(ValueError):
    """An image that says it is OME-Zarr and cannot be read as a field with named channels."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group (either version of the format)."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup"))


def read(path: Path, channels: Mapping[str, str] | Sequence[str] | None = None) -> FieldSet:
    """The fields of a plate, of an image, or of all of those below a folder.

    `channels`: the channels to read, as names or name → label; default: all of the first readable image.

    Raises:
        InvalidInput: no OME-Zarr there, or no image names its channels.
    """
    groups = [path] if is_zarr(path) else sorted(p for p in path.glob("*") if p.is_dir() and is_zarr(p))
    images = [one for group in groups for one in _images(group)]
    if not images:
        raise InvalidInput(f"input: {path} holds no OME-Zarr plate or image")
    labels, bits = _first_readable(path, [image for _, image in images])
    if channels is not None and not isinstance(channels, Mapping):
        channels = {name: name for name in channels}
    names_of = rename_channels(channels, labels, str(path))
    planes = [(meta, {name: Plane(image, token) for token, name in names_of.items()}) for meta, image in images]
    return field_set(planes, what=str(path), bits=bits)


def attributes(group: Path) -> dict[str, Any]:
    """The OME metadata of a group: below "ome" since 0.5, at the top before. Raises BrokenZarr."""
    try:
        found = dict(zarr.open_group(group, mode="r").attrs)
    except (OSError, ValueError, KeyError) as error:
        raise BrokenZarr(f"{group.name} cannot be opened: {error}") from error
    ome = found.get("ome", found)
    return dict(ome) if isinstance(ome, Mapping) else {}


def read_planes(image: Path, labels: Sequence[str]) -> np.ndarray:
    """The planes of these channels [c, h, w], in the array's own type.

    Raises:
        BrokenZarr: not an image with these channels, more than one step in time or depth, or a chunk that cannot be
        decoded.
    """
    ome = attributes(image)
    try:
        scales = ome["multiscales"][0]
        axes = [axis["name"] if isinstance(axis, Mapping) else str(axis) for axis in scales["axes"]]
        array = zarr.open_array(image / scales["datasets"][0]["path"], mode="r")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BrokenZarr(f"{image.name} is no OME-Zarr image: {error}") from error
    names = _labels(ome)
    if missing := [label for label in labels if label not in names]:
        raise BrokenZarr(f"{image.name} has no channel {', '.join(missing)}; it has {', '.join(names) or 'none'}")
    if not {"y", "x"} <= set(axes) or len(axes) != array.ndim:
        raise BrokenZarr(f"{image.name} has axes {axes}, expected y and x")
    wrong = [
        f"{size} steps along {axis}"
        for axis, size in zip(axes, array.shape, strict=True)
        if axis not in "cyx" and size != 1
    ]
    if wrong or ("c" not in axes and len(names) > 1):
        raise BrokenZarr(f"{image.name} has {', '.join(wrong) or 'no channel axis'}, expected one field")
    if cut := _cut_chunks(image / scales["datasets"][0]["path"], array):
        raise BrokenZarr(f"{image.name} has chunks that are not whole: {', '.join(cut[:3])}")
    planes = []
    try:
        for label in labels:
            at = tuple(slice(None) if axis in "yx" else names.index(label) if axis == "c" else 0 for axis in axes)
            plane = np.asarray(array[at])
            planes.append(plane if axes.index("y") < axes.index("x") else plane.T)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BrokenZarr(f"{image.name} has a chunk that cannot be decoded: {error}") from error
    return np.stack(planes)


def _cut_chunks(folder: Path, array: zarr.Array) -> list[str]:
    """Chunks shorter than their own header says. Blosc decodes such a chunk to noise without complaint; the other
    compressors notice by themselves. Bytes 12 to 15 of a Blosc header are the length of the whole."""
    if array.shards is not None or not any("blosc" in type(codec).__name__.lower() for codec in array.compressors):
        return []
    cut = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("zarr.json", ".zarray", ".zattrs"):
            with path.open("rb") as file:
                header = file.read(16)
            if len(header) < 16 or int.from_bytes(header[12:], "little") != path.stat().st_size:
                cut.append(path.relative_to(folder).as_posix())
    return cut


def _images(group: Path) -> list[tuple[dict[str, str], Path]]:
    ome = attributes(group)
    name = group.name.removesuffix(".zarr").removesuffix(".ome")
    if "plate" not in ome:
        return [({"Field": name}, group)] if "multiscales" in ome else []
    plate = str(ome["plate"].get("name") or name)
    found = []
    for well in ome["plate"].get("wells", ()):
        place = str(well["path"])
        inside = attributes(group / place).get("well", {})
        meta = {"Plate": plate, "Well": place.replace("/", "")}
        found += [({**meta, "Site": str(one["path"])}, group / place / one["path"]) for one in inside.get("images", ())]
    return found


def _labels(ome: Mapping[str, Any]) -> list[str]:
    return [str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", ())]


def _first_readable(path: Path, images: Sequence[Path]) -> tuple[list[str], str | None]:
    """Channel labels of the first image that can be opened, and "float" where its numbers are floats."""
    for image in images:
        try:
            ome = attributes(image)
            dtype = zarr.open_array(image / ome["multiscales"][0]["datasets"][0]["path"], mode="r").dtype
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            continue
        labels = _labels(ome)
        if not labels or not all(labels) or len(set(labels)) < len(labels):
            raise InvalidInput(
                f"input: the channels of {image.name} are labelled {labels}, expected one distinct omero label each"
            )
        return labels, "float" if dtype.kind == "f" else None
    raise InvalidInput(f"input: none of the {len(images)} images of {path} can be opened")
