"""What every input format becomes: fields of view, the file of each of their channels, and what they are called.

Listing reads no pixel. A field is its metadata ("Plate", "Well", "Site", ...) and one `Plane` a channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

#: Order of the channels in memory, whatever the order in the files; further channels follow in alphabetical order.
CHANNEL_ORDER = ("DNA", "ER", "RNA", "AGP", "Mito")
#: Order of the metadata columns; others follow in alphabetical order.
META_ORDER = ("Source", "Batch", "Plate", "Well", "Site", "Field")
_WELL = re.compile(r"([A-Za-z]{1,2})0*(\d{1,2})")


class InvalidInput(ValueError):
    """Nothing that can be profiled: no such folder, no field, unnamed channels, or an ambiguous pattern."""


class Plane(NamedTuple):
    """One channel of one field: a file (or a Zarr image), and which plane of it, by position or by channel name."""

    path: Path
    which: int | str = 0


@dataclass(frozen=True)
class Field:
    """One field of view. `planes` may lack a channel: that is an outcome of the run, not a refusal."""

    meta: Mapping[str, str]
    planes: Mapping[str, Plane]


@dataclass(frozen=True)
class FieldSet:
    """All fields of an input, in order of their metadata.

    `bits`: what the files state of their range ("8", "12", "16", "float"), or None. `notes`: what was left aside,
    one sentence each.
    """

    fields: tuple[Field, ...]
    channels: tuple[str, ...]
    bits: str | None = None
    notes: tuple[str, ...] = field(default=())


def well_name(text: str) -> str:
    """ "a1", "A01" or "AB3" → "A01", "A01", "AB03"; other texts come back as they are."""
    match = _WELL.fullmatch(text)
    return f"{match[1].upper()}{int(match[2]):02d}" if match else text


def well_of(row: int, column: int) -> str:
    """Row and column from 1 → "A01"; rows beyond Z are AA, AB, ..."""
    letters = chr(64 + row) if row <= 26 else f"A{chr(64 + row - 26)}"
    return f"{letters}{column:02d}"


def clean(meta: Mapping[str, str]) -> dict[str, str]:
    """Metadata in one spelling for all formats: wells as "A01", sites without leading zeros, columns in one order."""
    spelled = {name: str(value) for name, value in meta.items()}
    if "Well" in spelled:
        spelled["Well"] = well_name(spelled["Well"])
    if spelled.get("Site", "").isdigit():
        spelled["Site"] = str(int(spelled["Site"]))
    known = [name for name in META_ORDER if name in spelled]
    return {name: spelled[name] for name in [*known, *sorted(set(spelled) - set(known))]}


def ordered_channels(names: Iterable[str]) -> tuple[str, ...]:
    """The channels in the order in which they stand in memory."""
    found = set(names)
    return (*(c for c in CHANNEL_ORDER if c in found), *sorted(found - set(CHANNEL_ORDER)))


def field_set(
    found: Sequence[tuple[Mapping[str, str], Mapping[str, Plane]]],
    *,
    what: str,
    channels: Sequence[str] | None = None,
    bits: str | None = None,
    notes: Sequence[str] = (),
) -> FieldSet:
    """Fields with clean metadata, in natural order (2 before 10), all with the same metadata columns.

    Raises:
        InvalidInput: there is none, two have the same metadata, or some lack a column of metadata. `what` names the
        input in these sentences.
    """
    fields = [Field(clean(meta), dict(planes)) for meta, planes in found]
    if not fields:
        raise InvalidInput(f"{what}: no field found")
    columns = tuple(fields[0].meta)
    if odd := [one for one in fields if tuple(one.meta) != columns]:
        raise InvalidInput(
            f"{what}: fields have other metadata than the first ({', '.join(columns)}): {describe(odd[0].meta)}"
        )
    fields.sort(key=lambda one: [_natural(value) for value in one.meta.values()])
    for before, after in pairwise(fields):
        if before.meta == after.meta:
            raise InvalidInput(
                f"{what}: two fields are called {describe(after.meta)}: name what tells them apart in the pattern"
            )
    names = channels or {name for one in fields for name in one.planes}
    return FieldSet(tuple(fields), ordered_channels(names), bits, tuple(notes))


def describe(meta: Mapping[str, str]) -> str:
    """ "Plate P1, Well A01, Site 2" for sentences."""
    return ", ".join(f"{name} {value}" for name, value in meta.items()) or "a field without a name"


def rename_channels(wanted: Mapping[str, str] | None, tokens: Iterable[str], what: str) -> dict[str, str]:
    """Token in the files → channel name. Without `wanted` (channel name → token) the tokens are the names.

    Raises:
        InvalidInput: a token that is asked for is in no file.
    """
    found = set(tokens)
    if wanted is None:
        return {token: token for token in found}
    if absent := [f"{name}={token}" for name, token in wanted.items() if token not in found]:
        raise InvalidInput(
            f"{what}: channels {', '.join(absent)} are in no file; the files have {', '.join(sorted(found)) or 'none'}"
        )
    return {token: name for name, token in wanted.items()}


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", text)
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in parts if part]
