"""A job on own pictures: unpacked, judged, measured by the engine of the reference library, scored against it.

Every field has its outcome; a bad one never spoils the others. What differs from the reference library in engine,
channels or scale is refused before anything is measured: numbers would mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chem.bounded import standardise_within
from profiling import quality
from profiling.engines.magnification import PIXEL_UM
from profiling.inputs.field import Field, Plane
from profiling.inputs.pixels import read_field
from profiling.outcomes import BadPicture, Limits
from profiling.outcomes import check_pixels as check_picture
from profiling.profiles import COUNT_CELLS, Profiles
from profiling.tables import write_profiles
from service.engine import SETTINGS_OF_SIZE
from service.errors import EngineFailure, InvalidRequest, ReferenceMismatch
from service.results import write_json
from service.rooms import ModelCard, Room
from service.score_own import Own, check_features, effect_table, score_own
from service.uploads import CONTROL, Bounds, OwnField, check_pixels, clear, looked_at, unpack, upload_file

FORMAT = "dopaint/own/1"
RESULT = "request.json"  # its presence says that the rest is there, as for a prediction
SCALE_TOLERANCE = 0.02  # of the pixel size
AT_ONCE = 8  # fields in memory
_BITS_OF = {"uint8": "8", "uint16": "16", "float32": "float", "float64": "float"}


@dataclass(frozen=True)
class Measured:
    """One field, measured or not."""

    field: OwnField
    outcome: str
    reason: str
    flags: tuple[str, ...] = ()


def pixel_size_of(card: ModelCard) -> float | None:
    """µm a pixel for which the engine's settings were made; None where they have no scale (a simulated world)."""
    return PIXEL_UM.get(SETTINGS_OF_SIZE.get(card.picture_size, ""))


def check_fields(card: ModelCard, fields: Sequence[OwnField], request: Mapping[str, Any]) -> None:
    """Refuses pictures whose channels or scale are not the reference library's.

    Raises `InvalidRequest` where channels are not named, `ReferenceMismatch` where they differ.
    """
    stated = request.get("channels") or None
    wanted = pixel_size_of(card)
    for one in fields:
        names = tuple(stated) if stated else one.channels
        if not names:
            raise InvalidRequest(
                f"picture {one.name[-100:]!r} does not name its channels: give channels=DNA,ER,... in the order of "
                "its pages"
            )
        if len(names) != one.planes:
            raise InvalidRequest(
                f"picture {one.name[-100:]!r} has {one.planes} pages, and {len(names)} channels are named"
            )
        if set(card.channels) - set(names):
            raise ReferenceMismatch(
                f"channels: got {', '.join(names)}, the reference library has {', '.join(card.channels)}: features of "
                "other channels cannot be compared"
            )
        if one.size != (card.picture_size, card.picture_size):
            raise ReferenceMismatch(
                f"scale: picture {one.name[-100:]!r} is {one.size[0]} x {one.size[1]} pixels, the reference library "
                f"was measured on {card.picture_size} x {card.picture_size}: cut or bin the pictures to that field"
            )
        pixel = request.get("pixel_size_um") or one.pixel_size_um
        if wanted is not None and pixel is None:
            raise InvalidRequest("pixel_size_um: not stated by the file either: say how many µm a pixel has")
        if wanted is not None and pixel is not None and abs(pixel / wanted - 1) > SCALE_TOLERANCE:
            raise ReferenceMismatch(
                f"scale: {pixel:g} µm a pixel, the reference library has {wanted:g}: resample the pictures first"
            )


def opened(file: Path, into: Path, bounds: Bounds) -> list[OwnField]:
    """The fields of an upload, looked at but not read. Raises `InvalidRequest`, `TooLarge`."""
    fields = [looked_at(name, role, path) for name, role, path in unpack(file, into, bounds)]
    check_pixels(fields, bounds)
    return fields


def inspect(card: ModelCard, file: Path, into: Path, bounds: Bounds, request: Mapping[str, Any]) -> None:
    """Everything that can be refused before the job is queued; leaves nothing behind."""
    try:
        check_fields(card, opened(file, into, bounds), request)
    finally:
        clear(into)


def worker(uploads: Path, bounds: Bounds) -> Callable[..., None]:
    """The handler of these jobs, for the desk."""

    def work(room: Room, request: dict[str, Any], folder: Path, report: Callable[[int, int, str], None]) -> None:
        run(room, request, upload_file(uploads, str(request["upload"])), bounds, folder, report)

    return work


def run(
    room: Room,
    request: dict[str, Any],
    file: Path,
    bounds: Bounds,
    folder: Path,
    report: Callable[[int, int, str], None],
) -> None:
    """Makes the result folder of one upload: request.json, profiles.parquet, effects.parquet."""
    into = folder.parent / f".{folder.name}.unpacked"
    clear(into)
    try:
        fields = opened(file, into, bounds)
        check_fields(room.card, fields, request)
        done, profiles = _measure(room, fields, request, report)
        _write(room, request, folder, done, profiles)
    finally:
        clear(into)


def _measure(
    room: Room, fields: Sequence[OwnField], request: Mapping[str, Any], report: Callable[[int, int, str], None]
) -> tuple[list[Measured], Profiles]:
    channels, total = room.card.channels, 2 * len(fields)
    done: list[Measured] = []
    parts: list[Profiles] = []
    for start in range(0, len(fields), AT_ONCE):
        some = fields[start : start + AT_ONCE]
        good: list[tuple[OwnField, tuple[str, ...]]] = []
        pictures = []
        for k, one in enumerate(some):
            try:
                pixels = _read(one, channels, request)
                flags = quality.flags(quality.quality(pixels), channels, _absolute())
                good.append((one, flags))
                pictures.append(pixels)
            except BadPicture as error:
                done.append(Measured(one, error.outcome, str(error)))
            report(2 * start + k + 1, total, "looking at pictures")
        if good:
            measured = room.measure(np.stack(pictures), lambda _: None)
            done += [
                Measured(one, outcome, reason, flags)
                for (one, flags), outcome, reason in zip(good, measured.outcomes, measured.reasons, strict=True)
            ]
            meta = pd.DataFrame(
                {
                    "Metadata_Field": [one.name for one, _ in good],
                    "Metadata_Role": [one.role for one, _ in good],
                    "Metadata_Outcome": list(measured.outcomes),
                    "Metadata_Flags": [" ".join(flags) for _, flags in good],
                }
            )
            parts.append(Profiles(meta, np.asarray(measured.values, np.float64), measured.names))
        report(2 * (start + len(some)), total, "measuring")
    if not parts:
        raise EngineFailure(f"none of {len(fields)} pictures could be measured, the first because: {done[0].reason}")
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    values = np.concatenate([_widened(part, names) for part in parts])
    return done, Profiles(pd.concat([part.meta for part in parts], ignore_index=True), values, names)


def _read(one: OwnField, channels: Sequence[str], request: Mapping[str, Any]) -> np.ndarray:
    names = tuple(request.get("channels") or one.channels)
    planes = {name: Plane(one.file, names.index(name)) for name in channels}
    bits = str(request.get("bits") or _BITS_OF.get(one.dtype, ""))
    if not bits:
        raise BadPicture("wrong_range", f"{one.dtype} numbers: expected 8- or 16-bit counts, or floats from 0 to 1")
    pixels = read_field(Field({"Field": one.name}, planes), channels, bits)
    check_picture(pixels, tuple(channels), Limits())
    return pixels


def _absolute() -> quality.QualityLimits:
    """An upload is no plate: rules that compare a picture with its plate are off."""
    return quality.QualityLimits(slope_deviations=None, mean_deviations=None)


def _widened(part: Profiles, names: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(part.names)}
    columns = [part.values[:, place[name]] if name in place else np.full(len(part), np.nan) for name in names]
    return np.stack(columns, axis=1)


def _write(room: Room, request: dict[str, Any], folder: Path, done: Sequence[Measured], profiles: Profiles) -> None:
    limits = _absolute()
    ok = (profiles.column("Outcome") == "ok") & ~np.array(
        [quality.excludes(str(flags).split(), limits) for flags in profiles.column("Flags")], dtype=bool
    )
    check_features(room.reference(), profiles.names)
    kept = profiles.rows(ok)
    molecule = standardise_within(str(request["smiles"])) if request.get("smiles") else None
    is_control = np.array(kept.column("Role") == CONTROL, dtype=bool)
    if not (~is_control).any():
        raise EngineFailure("none of the compound's pictures has cells and passed quality control")
    own = Own(kept, is_control, molecule=molecule, allow_simulated=bool(request.get("allow_simulated")))
    scores, differences = score_own(room, own)
    excluded = int(len(profiles) - ok.sum())
    if excluded:
        scores["notes"].append(f"{excluded} pictures without cells or excluded by quality control take no part.")
    if pixel_size_of(room.card) is None:
        scores["notes"].append("The model states no pixel size: the scale was compared by the size of the field only.")
    names = room.reference().normalisation.names
    folder.mkdir(parents=True, exist_ok=True)
    write_profiles(profiles, folder / "profiles.parquet")
    effect_table(differences, names, room.card.evidence).to_parquet(folder / "effects.parquet", index=False)
    document = {
        "format": FORMAT,
        "evidence": room.card.evidence,
        "statement": scores["statement"],
        "provenance": {"model_name": room.card.name, **room.provenance.document()},
        "fields": [_field(one, profiles) for one in done],
        **scores,
    }
    write_json(folder / f".{RESULT}.new", document)
    (folder / f".{RESULT}.new").rename(folder / RESULT)


def _field(one: Measured, profiles: Profiles) -> dict[str, Any]:
    cells: float | None = None
    if COUNT_CELLS in profiles.names:
        rows = np.flatnonzero(profiles.column("Field") == one.field.name)
        value = profiles.values[rows[0], profiles.names.index(COUNT_CELLS)] if len(rows) else np.nan
        cells = float(value) if np.isfinite(value) else None
    return {
        "name": one.field.name[-200:],
        "role": one.field.role,
        "outcome": one.outcome,
        "reason": one.reason,
        "flags": list(one.flags),
        "cells": cells,
    }
