"""Paired differences of one compound -> ranked labels (mechanisms, targets): the call, intervals, chance and evidence.

Scores, intervals, chance, p and call are those of `profiling.predict`. Added here, because it needs the wiring: a
compound of the reference library is scored against sub-profiles that were built without it; and beside each label
stands what structure alone says, the highest Tanimoto similarity to the label's reference compounds, and what the cell
count alone says, minus the smallest difference in its effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from profiling.baselines import count_similarity
from profiling.predict import LabelScore, Neighbour, Null, Prediction, predict
from profiling.profiles import COUNT_CELLS
from service.reference import Reference

LEVEL = 0.95
N_EVIDENCE = 3


def scored(
    differences: Float[np.ndarray, "n k"],
    reference: Reference,
    kind: str,
    inchikey: str,
    structure: Mapping[str, float],
    cell_count: float = np.nan,
) -> dict[str, Any]:
    """All labels of a kind, best first, as a JSON object.

    Args:
        differences: compound minus control for each draw, normalised, on the features of the reference library; a row
            of NaN is a draw without cells. Its mean over draws is the effect.
        reference: the library; its own row of this compound, if any, takes no part.
        kind: "moa" or "target".
        inchikey: of the compound.
        structure: Tanimoto similarity of the compound to each reference compound (InChIKey).
        cell_count: effect on the cell count, in control MADs; NaN where it is not known.
    """
    library = reference.without(inchikey[:14])
    sub, null = library.subprofiles[kind], library.nulls[kind]
    null = Null(null.compounds, sub.labels, null.scores[:, [null.labels.index(label) for label in sub.labels]])
    members = library.members(kind)
    counted = _by_cell_count(cell_count, library)
    beside = {
        name: {label: max((alike[key] for key in members.get(label, ())), default=np.nan) for label in sub.labels}
        for name, alike in (("structure", structure), ("cell_count", counted))
    }
    answer = predict(inchikey, differences, sub, null, library.references(kind), kind=kind, beside=beside)
    defined = [one for one in answer.labels if np.isfinite(one.score)]
    return {
        **_head(answer),
        "ranking": [_label(rank, one, library.names) for rank, one in enumerate(defined, start=1)],
        "without_subprofile": sorted(one.label for one in answer.labels if not np.isfinite(one.score)),
        "nearest": [_compound(one, library.names) for one in answer.nearest],
        "drivers": plain(answer.to_dict()["drivers"]),
        "driver_groups": plain(answer.to_dict()["driver_groups"]),
    }


def _by_cell_count(effect: float, library: Reference) -> dict[str, float]:
    """InChIKey of each reference compound -> minus the difference in the effect on the cell count, in control MADs; NaN
    where the library does not know the counts."""
    keys = [str(key) for key in library.profiles.column("InChIKey")]
    table = library.profiles
    if "Metadata_Cell_Count" in table.meta.columns:
        counts = table.column("Cell_Count").astype(np.float64)
    elif COUNT_CELLS in table.names:  # libraries made before the count stood beside the features
        counts = table.values[:, table.names.index(COUNT_CELLS)]
    else:
        return dict.fromkeys(keys, np.nan)
    return dict(zip(keys, count_similarity(np.array([effect]), counts)[0].tolist(), strict=True))


def _head(answer: Prediction) -> dict[str, Any]:
    return {
        "call": answer.call,
        "reason": answer.reason,
        "p_call": plain(answer.p_call),
        "alpha": answer.alpha,
        "n_draws_with_cells": answer.n_draws_with_cells,
        "strength": plain(answer.strength),
        "convention": answer.convention,
    }


def _label(rank: int, one: LabelScore, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "rank": rank,
        "label": one.label,
        "score": plain(one.score),
        "low": plain(one.low),
        "high": plain(one.high),
        "chance": plain(one.chance),
        "chance_sd": plain(one.chance_sd),
        "p": plain(one.p),
        "q": plain(one.q),
        "n_references": one.n_references,
        "n_features": one.n_features,
        "n_features_by_chance": plain(one.n_features_by_chance),
        "structure": plain(one.beside["structure"]),
        "cell_count": plain(one.beside["cell_count"]),
        "compounds": [_compound(near, names) for near in one.nearest[:N_EVIDENCE]],
    }


def _compound(near: Neighbour, names: Mapping[str, str]) -> dict[str, Any]:
    return {"name": names[near.compound], "inchikey": near.compound, "similarity": plain(near.similarity)}


def plain(value: Any) -> Any:
    """JSON values: floats to six significant digits, NaN as null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value
