"""What an engine says about one picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt16

Outcome = Literal["ok", "no_cells", "failed"]


class ObjectTable(NamedTuple):
    """One row an object, one column a feature; row i of Nuclei, Cells and Cytoplasm need not be the same cell."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "n k"]


@dataclass(frozen=True)
class FieldMeasurement:
    """Measurements of one picture.

    outcome: "ok"; "no_cells" (measured, but some kind of object has no members; its table has zero rows); "failed" (not
    measured, `reason` says why, no tables). objects: feature tables by object name, with the engine's own feature names
    and the same columns for every picture. image: features of the whole picture. masks: label images [h, w], 0 is
    background, only if asked for.
    """

    outcome: Outcome
    reason: str = ""
    objects: Mapping[str, ObjectTable] = field(default_factory=dict)
    image: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, UInt16[np.ndarray, "h w"]] = field(default_factory=dict)
