"""OME-TIFF: one file a field, whose channels are named in its OME-XML.

What the field is called comes from the file's name (`pattern`, see `pattern.py`), because few writers put plate and
well into the XML. Channel names are read again with the pixels: files may order their channels differently.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import tifffile

from profiling.inputs import pattern as patterns
from profiling.inputs.field import FieldSet, InvalidInput, Plane, field_set, rename_channels

ENDINGS = (".ome.tif", ".ome.tiff")
DEFAULT_PATTERN = "{field}.ome.tif"


def read(
    folder: Path, pattern: str | None = None, channels: Mapping[str, str] | Sequence[str] | None = None
) -> FieldSet:
    """The fields of a folder of OME-TIFF files, or one such file.

    `channels`: the channels to read, as names or name → OME name; default: all of the first readable file.

    Raises:
        InvalidInput: no OME-TIFF there, the pattern matches none, or no readable file names its channels.
    """
    if folder.is_file():
        return _fields([({"Field": stem(folder)}, folder)], channels, folder, [])
    if pattern is None:
        files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(ENDINGS))
        found = [({"Field": path.relative_to(folder).with_name(stem(path)).as_posix()}, path) for path in files]
        return _fields(found, channels, folder, [])
    if "channel" in patterns.compiled(pattern).groupindex:
        raise InvalidInput(f"pattern: {pattern!r} has {{channel}}, but OME-TIFF files name their channels inside")
    matching, others = patterns.matches(folder, pattern, ENDINGS)
    notes = [f"{others} OME-TIFF files do not match the pattern"] if others else []
    return _fields([(patterns.metadata(match), path) for path, match in matching], channels, folder, notes)


def stem(path: Path) -> str:
    """The file's name without its ending."""
    return path.name[: path.name.lower().rindex(".ome.")] if ".ome." in path.name.lower() else path.stem


def channel_names(xml: str) -> tuple[str, ...]:
    """Names of the channels of the first image of an OME-XML; empty texts where there are none."""
    root = ElementTree.fromstring(xml)
    tag = root.tag.partition("}")[0] + "}"
    return tuple(one.get("Name", "") for one in root.findall(f"{tag}Image[1]/{tag}Pixels/{tag}Channel"))


def stated_bits(xml: str) -> str | None:
    """What the OME-XML says of the range: its SignificantBits (8, 12 or 16), "float" for floats, else None."""
    root = ElementTree.fromstring(xml)
    tag = root.tag.partition("}")[0] + "}"
    pixels = root.find(f"{tag}Image[1]/{tag}Pixels")
    if pixels is None:
        return None
    if pixels.get("Type") in ("float", "double"):
        return "float"
    bits = pixels.get("SignificantBits")
    return bits if bits in ("8", "12", "16") else None


def _fields(
    found: list[tuple[dict[str, str], Path]],
    channels: Mapping[str, str] | Sequence[str] | None,
    folder: Path,
    notes: list[str],
) -> FieldSet:
    if not found:
        raise InvalidInput(f"input: {folder} holds no file that ends in {' or '.join(ENDINGS)}")
    xml = next((text for _, path in found if (text := ome_xml(path))), None)
    if xml is None:
        raise InvalidInput(f"input: none of the {len(found)} files of {folder} can be read as OME-TIFF")
    names = channel_names(xml)
    if not names or not all(names) or len(set(names)) < len(names):
        raise InvalidInput(
            f"input: the channels of {found[0][1].name} are called {list(names)}, expected one distinct name each; "
            "name them with --format folder, a --pattern and --channels instead"
        )
    if channels is not None and not isinstance(channels, Mapping):
        channels = {name: name for name in channels}
    names_of = rename_channels(channels, names, str(folder))
    planes = [(meta, {name: Plane(path, token) for token, name in names_of.items()}) for meta, path in found]
    return field_set(planes, what=str(folder), bits=stated_bits(xml), notes=notes)


def ome_xml(path: Path) -> str | None:
    """The OME-XML of a file, or None where it cannot be read."""
    try:
        with tifffile.TiffFile(path) as file:
            xml: str | None = file.ome_metadata
            return xml
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError):
        return None
