"""The input formats by name, and which of them a path is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiling.inputs import jump, load_data, ome_tiff, ome_zarr, pattern
from profiling.inputs.field import FieldSet, InvalidInput

Channels = Mapping[str, str] | Sequence[str] | None


@dataclass(frozen=True)
class Wanted:
    """What is asked of an input. `channels`: names, or name → what the files call it. `plates`: JUMP only. `root`:
    LoadData only. `keep`: LoadData's metadata columns beside the usual ones."""

    pattern: str | None = None
    channels: Channels = None
    root: Path | None = None
    plates: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def _folder(path: Path, wanted: Wanted) -> FieldSet:
    if wanted.pattern is None:
        raise InvalidInput(
            f"pattern: none given for the folder {path}; say what its file names mean, as in --pattern "
            "'{plate}_{well}_s{site}_{channel}.tif'"
        )
    return pattern.read(path, wanted.pattern, wanted.channels)


INPUTS: Mapping[str, Callable[[Path, Wanted], FieldSet]] = {
    "folder": _folder,
    "ome-tiff": lambda path, wanted: ome_tiff.read(path, wanted.pattern, wanted.channels),
    "ome-zarr": lambda path, wanted: ome_zarr.read(path, wanted.channels),
    "jump": lambda path, wanted: jump.read(path, wanted.plates, wanted.channels),
    "load-data": lambda path, wanted: load_data.read(path, wanted.root, wanted.channels, keep=wanted.keep),
}
#: Options that only some formats know.
_ONLY = {"pattern": ("folder", "ome-tiff"), "root": ("load-data",), "plates": ("jump",), "keep": ("load-data",)}


def format_of(path: Path, pattern: str | None = None) -> str:
    """The format of what lies at `path`; a folder that could be several things is "folder".

    Raises:
        InvalidInput: there is nothing, or a file of another kind.
    """
    name = path.name.lower()
    if path.is_file():
        if name.endswith(load_data.ENDINGS):
            return "load-data"
        if name.endswith(ome_tiff.ENDINGS):
            return "ome-tiff"
        raise InvalidInput(
            f"input: {path} is one file that is neither a LoadData table ({', '.join(load_data.ENDINGS)}) nor an "
            f"OME-TIFF ({', '.join(ome_tiff.ENDINGS)}): name its folder, and a --pattern"
        )
    if not path.is_dir():
        raise InvalidInput(f"input: {path} does not exist")
    if ome_zarr.is_zarr(path) or any(ome_zarr.is_zarr(inner) for inner in path.glob("*.zarr")):
        return "ome-zarr"
    if pattern is None and jump.sources_below(path):
        return "jump"
    whole = pattern is None or "channel" not in pattern
    if whole and any(one.name.lower().endswith(ome_tiff.ENDINGS) for one in path.rglob("*")):
        return "ome-tiff"
    return "folder"


def open_input(path: Path, wanted: Wanted | None = None, kind: str | None = None) -> FieldSet:
    """The fields at `path`, read as `kind` (a name in INPUTS), or as what `format_of` sees there.

    Raises:
        InvalidInput: an unknown format, an option that the format does not know, or nothing there to read.
    """
    wanted = wanted or Wanted()
    kind = kind or format_of(path, wanted.pattern)
    if kind not in INPUTS:
        raise InvalidInput(f"format: got {kind!r}, expected one of {', '.join(INPUTS)}")
    if not path.exists():
        raise InvalidInput(f"input: {path} does not exist")
    for option, kinds in _ONLY.items():
        if getattr(wanted, option) and kind not in kinds:
            raise InvalidInput(f"{option}: means nothing for {kind}; it is for {', '.join(kinds)}")
    return INPUTS[kind](path, wanted)
