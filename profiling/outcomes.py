"""What can become of a field in a run: a closed list, and the rules that need pixels or measurements to tell.

A bad picture is an outcome, never an error: it is counted, named with its reason, and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from profiling.engines.measurement import FieldMeasurement

#: Outcomes of fields that were measured. `no_cells`: some kind of object has no members.
MEASURED: Mapping[str, str] = {
    "ok": "measured",
    "one_cell": "measured; a single cell, so features of neighbours and medians mean little",
    "no_cells": "measured; no cell found",
}
#: Outcomes of fields that were not.
NOT_MEASURED: Mapping[str, str] = {
    "missing": "a channel has no file, or a file has not the channel",
    "unreadable": "not a picture, or of a kind that is not read",
    "truncated": "the file ends before its pixels do",
    "wrong_size": "channels differ in size, or the field differs from the others",
    "wrong_range": "values outside of the stated range of bits",
    "not_finite": "NaN or infinite pixels",
    "all_black": "a channel is zero everywhere",
    "saturated": "too many pixels of a channel stand at the end of its range",
    "failed": "the engine gave no measurement",
}
OUTCOMES = (*MEASURED, *NOT_MEASURED)


class BadPicture(ValueError):
    """A field that is not measured: `outcome` is one of NOT_MEASURED, the text says why."""

    def __init__(self, outcome: str, reason: str) -> None:
        if outcome not in NOT_MEASURED:
            raise ValueError(f"outcome: got {outcome!r}, expected one of {', '.join(NOT_MEASURED)}")
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True)
class Limits:
    """`saturated_percent`: a field with more pixels of a channel than this at the end of the range is not measured.
    Milder saturation is a matter of quality control. `size`: height and width that every field must have, or None."""

    saturated_percent: float = 5.0
    size: tuple[int, int] | None = None


def check_pixels(pixels: Float32[np.ndarray, "c h w"], channels: tuple[str, ...], limits: Limits) -> None:
    """Raises BadPicture for pixels in [0, 1] that no engine should measure: wrong_size, all_black, saturated."""
    if limits.size is not None and pixels.shape[1:] != limits.size:
        got, expected = (f"{h} x {w}" for h, w in (pixels.shape[1:], limits.size))
        raise BadPicture("wrong_size", f"{got} pixels, expected {expected}")
    for plane, name in zip(pixels, channels, strict=True):
        if not plane.any():
            raise BadPicture("all_black", f"{name} is zero everywhere")
    for plane, name in zip(pixels, channels, strict=True):
        percent = 100.0 * float((plane >= 1.0).mean())
        if percent > limits.saturated_percent:
            raise BadPicture(
                "saturated",
                f"{percent:.1f} % of {name} stands at the end of the range (limit {limits.saturated_percent:g} %)",
            )


def outcome_of(measurement: FieldMeasurement) -> str:
    """The outcome of a field that the engine saw; one cell is one row of "Cells", or of "Nuclei" without cells."""
    if measurement.outcome != "ok":
        return measurement.outcome
    table = measurement.objects.get("Cells", measurement.objects.get("Nuclei"))
    return "one_cell" if table is not None and len(table.values) == 1 else "ok"
