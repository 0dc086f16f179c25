"""Folders of pictures whose file names say what they are: `{plate}_{well}_s{site}_{channel}.tif`, or a regex.

A name in braces becomes a column of metadata; `{channel}` tells the channel, `{row}` and `{column}` make a well, names
that begin with `_` are thrown away. A pattern with `/` is matched against the path below the folder, others against the
file name alone. Without `{channel}` each file is a whole field, whose planes are named by `channels` in their order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from profiling.inputs.field import FieldSet, InvalidInput, Plane, field_set, rename_channels, well_of

ENDINGS = (".tif", ".tiff", ".png")
#: What a name in braces may match; other names match anything but "/", as little as possible.
_KINDS = {"well": r"[A-Za-z]{1,2}\d{1,2}", "site": r"\d+", "row": r"\d+", "column": r"\d+"}
_BRACES = re.compile(r"\{(\w+)\}")


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern in braces, or a regular expression with named groups, as a regular expression.

    Raises:
        InvalidInput: no name in it, a name twice, or not a regular expression.
    """
    text = pattern
    if "(?P<" not in pattern:
        parts = _BRACES.split(pattern)  # text, name, text, name, ..., text
        literal = [re.escape(part) for part in parts[::2]]
        groups = [f"(?P<{name}>{_KINDS.get(name, '[^/]+?')})" for name in parts[1::2]]
        text = "".join(a + b for a, b in zip(literal, [*groups, ""], strict=True))
    try:
        expression = re.compile(text)
    except re.error as error:
        raise InvalidInput(f"pattern: {pattern!r} cannot be used: {error}") from error
    if not expression.groupindex:
        raise InvalidInput(
            f"pattern: {pattern!r} names nothing; expected names in braces, as in {{plate}}_{{well}}_s{{site}}_"
            "{channel}.tif, or a regular expression with named groups"
        )
    return expression


def metadata(match: re.Match[str]) -> dict[str, str]:
    """The named groups as metadata: "plate" → "Plate"; row and column → "Well"; channel and `_names` left out."""
    groups = {name: value or "" for name, value in match.groupdict().items() if not name.startswith("_")}
    groups.pop("channel", None)
    if "well" not in groups and {"row", "column"} <= groups.keys():
        groups["well"] = well_of(int(groups.pop("row")), int(groups.pop("column")))
    return {name[:1].upper() + name[1:]: value for name, value in groups.items()}


def matches(folder: Path, pattern: str, endings: Sequence[str] = ENDINGS) -> tuple[list[tuple[Path, re.Match]], int]:
    """The files below `folder` that match, in order of their paths, and how many pictures there do not.

    Raises:
        InvalidInput: no such folder, or nothing matches.
    """
    if not folder.is_dir():
        raise InvalidInput(f"input: {folder} is no folder")
    expression = compiled(pattern)
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(tuple(endings)) and path.is_file())
    found = []
    for path in files:
        text = path.relative_to(folder).as_posix() if "/" in pattern else path.name
        if match := expression.fullmatch(text):
            found.append((path, match))
    if not found:
        example = f", for example {files[0].relative_to(folder).as_posix()}" if files else ""
        raise InvalidInput(
            f"pattern: {pattern!r} matches none of the {len(files)} files ({', '.join(endings)}) below {folder}"
            f"{example}"
        )
    return found, len(files) - len(found)


def read(folder: Path, pattern: str, channels: Mapping[str, str] | Sequence[str] | None = None) -> FieldSet:
    """The fields of a folder.

    `channels`: channel name → what the file name says at {channel} ("DNA": "ch5"); None where the file names hold the
    channels' names themselves. For a pattern without {channel}: the names of the planes of each file, in order.

    Raises:
        InvalidInput: nothing matches, two files for one channel of one field, or channels are not named.
    """
    found, others = matches(folder, pattern)
    notes = [f"{others} pictures do not match the pattern"] if others else []
    if "channel" not in compiled(pattern).groupindex:
        names = list(channels or ())
        if not names:
            raise InvalidInput(
                f"channels: pattern {pattern!r} has no {{channel}}, so each file is a whole field: name its planes in "
                "their order, as in --channels DNA,ER,RNA,AGP,Mito"
            )
        planes = [(metadata(match), {name: Plane(path, k) for k, name in enumerate(names)}) for path, match in found]
        return field_set(planes, what=str(folder), notes=notes)
    if channels is not None and not isinstance(channels, Mapping):
        channels = {name: name for name in channels}
    names_of = rename_channels(channels, (match["channel"] for _, match in found), str(folder))
    fields: dict[tuple[tuple[str, str], ...], dict[str, Plane]] = {}
    left: set[str] = set()
    for path, match in found:
        if match["channel"] not in names_of:
            left.add(match["channel"])
            continue
        planes_of = fields.setdefault(tuple(metadata(match).items()), {})
        name = names_of[match["channel"]]
        if name in planes_of:
            raise InvalidInput(
                f"pattern: {planes_of[name].path.name} and {path.name} are both {name} of one field: name what tells "
                "them apart in the pattern"
            )
        planes_of[name] = Plane(path)
    if left:
        notes.append(f"channels {', '.join(sorted(left))} of the files were not asked for")
    everything = [(dict(meta), planes_of) for meta, planes_of in fields.items()]
    return field_set(everything, what=str(folder), channels=list(names_of.values()), notes=notes)
