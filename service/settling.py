"""How an answer settles: scores and feature effects, with their intervals, after the first 2, 3, ... of its draws.

The last point is the answer itself: the same functions on the same numbers, all draws of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from causal.design import cross
from causal.gformula import contrast
from profiling.interval import biosimilarity_interval
from profiling.normalise import transform
from profiling.profiles import Profiles
from profiling.subprofile import SubProfiles, biosimilarity, rank_labels
from service.answer import COVERS
from service.errors import NotFound
from service.pipeline import widen
from service.reference import KINDS, Reference
from service.request import OK
from service.rooms import DMSO_INCHIKEY
from service.score import LEVEL, plain

MOST_POINTS = 64
MOST_LABELS = 12  # of each kind, best first
STRONGEST = 8  # features shown when none is named
_NOT_DESIGN = ("compound", "Outcome", "Reason", "Evidence")


def counts(n: int, most: int = MOST_POINTS) -> tuple[int, ...]:
    """Numbers of draws to look at, from 2 to n (1 when there is but one): all of them, or `most` in equal ratios."""
    if n <= 2:
        return (n,)
    if n - 1 <= most:
        return tuple(range(2, n + 1))
    return tuple(sorted({round(value) for value in np.geomspace(2, n, most).tolist()}))


def settling(
    compound: Profiles, control: Profiles, reference: Reference, inchikey: str, features: Sequence[str] = ()
) -> dict[str, Any]:
    """Estimates and intervals over draws by number of draws, as a JSON object.

    Args:
        compound: raw profiles of the compound, one row a draw, in the order of the draws.
        control: the same draws of the control.
        reference: the library that the answer was scored with.
        inchikey: of the compound; a reference compound is scored without itself.
        features: names of the features to follow; none: the strongest.

    Raises `NotFound` for a feature that was not measured.
    """
    names = reference.normalisation.names
    if missing := [name for name in features if name not in names]:
        raise NotFound(f"feature {missing[0]!r} is not among the {len(names)} features of this answer")
    normalised = [transform(widen(one, names), reference.normalisation).values for one in (compound, control)]
    cells = [np.asarray(one.column("Outcome") == OK, dtype=bool) for one in (compound, control)]
    differences = np.where((cells[0] & cells[1])[:, None], normalised[0] - normalised[1], np.nan)
    draws = _draws(compound)
    points = counts(len(draws))
    place = {name: i for i, name in enumerate(names)}
    chosen = list(features) or _strongest(differences, names)
    picked = [values[:, [place[name] for name in chosen]] for values in normalised]
    scored = differences[:, [place[name] for name in reference.profiles.names]]
    library = reference.without(inchikey[:14])
    return {
        "unit": "control MADs",
        "level": LEVEL,
        "covers": "draws",
        "sentence": COVERS,
        "draws": list(points),
        "features": _features(picked, cells, draws, points, chosen),
        "labels": {kind: _labels(scored, library.subprofiles[kind], points) for kind in KINDS},
    }


def _draws(compound: Profiles) -> pd.DataFrame:
    """The design rows without the compound."""
    named = {column: column.removeprefix("Metadata_") for column in compound.meta.columns}
    table = compound.meta.rename(columns=named)
    return table.drop(columns=[name for name in _NOT_DESIGN if name in table.columns])


def _strongest(differences: Float[np.ndarray, "n k"], names: Sequence[str]) -> list[str]:
    present = ~np.isnan(differences)
    number = present.sum(axis=0)
    mean = np.where(present, differences, 0.0).sum(axis=0) / np.maximum(number, 1)
    order = np.argsort(-np.abs(mean), kind="stable")
    return [names[i] for i in order if number[i] > 0][:STRONGEST]


def _features(
    values: list[Float[np.ndarray, "n f"]],
    cells: list[Bool[np.ndarray, " n"]],
    draws: pd.DataFrame,
    points: Sequence[int],
    names: Sequence[str],
) -> dict[str, Any]:
    """The paired contrast of `causal.gformula` on the first n draws, for every n."""
    found: list[Float[np.ndarray, "3 f"]] = []
    for n in points:
        design = cross(["compound", DMSO_INCHIKEY], draws.iloc[:n])
        stacked = np.stack([one[:n] for one in values], axis=1).reshape(len(design), -1)
        has_cells = np.stack([one[:n] for one in cells], axis=1).reshape(len(design))
        effects = contrast(stacked, design, DMSO_INCHIKEY, names=names, has_cells=has_cells)
        row = effects.compounds.index("compound")
        low, high = effects.intervals(LEVEL, "draws")[row].T
        found.append(np.stack([effects.value[row], low, high]))
    table = np.stack(found)
    return {
        name: {key: plain(table[:, i, j].tolist()) for i, key in enumerate(("value", "low", "high"))}
        for j, name in enumerate(names)
    }


def _labels(differences: Float[np.ndarray, "n k"], sub: SubProfiles, points: Sequence[int]) -> list[dict[str, Any]]:
    """Biosimilarity of the mean over the first n draws with each label, best at the end first."""
    scores, lows, highs = [], [], []
    for n in points:
        some = differences[:n]
        some = some[~np.isnan(some).all(axis=1)]
        present = ~np.isnan(some)
        number = present.sum(axis=0)
        total = np.where(present, some, 0.0).sum(axis=0)
        mean = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
        score = biosimilarity(mean, sub, missing="pairwise")[0]
        low, high = biosimilarity_interval(some, sub, LEVEL)
        scores.append(score)
        lows.append(np.minimum(low, score))
        highs.append(np.maximum(high, score))
    order = [j for j in rank_labels(scores[-1], sub.labels) if np.isfinite(scores[-1][j])]
    series = {"score": np.stack(scores), "low": np.stack(lows), "high": np.stack(highs)}
    return [
        {"label": sub.labels[j], **{key: plain(values[:, j].tolist()) for key, values in series.items()}}
        for j in order[:MOST_LABELS]
    ]
