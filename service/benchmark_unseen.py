"""`dopaint benchmark unseen`: the rank of the true mechanism for drugs that the model has never seen, beside structure.

The drugs were set aside before any training (docs/decisions/0001-unseen-compounds.md): half at random, half by
scaffold. Chance is what shuffled labels give; the rival is the Tanimoto nearest neighbour among all seen drugs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from chem.fingerprint import morgan_bits, tanimoto
from profiling.metrics import Estimate, rank_of_truth, rank_test, recall_at
from service.engine import load_room
from service.library import library
from service.pipeline import predict_in
from service.request import Request

HALVES = ("unseen_random", "unseen_scaffold")
Progress = Callable[[int, int, str], None]


def structure_scores(queries: pd.DataFrame, seen: pd.DataFrame, labels: list[str]) -> Float[np.ndarray, "n labels"]:
    """Highest Tanimoto similarity of each query to the seen drugs of each label."""
    similar = tanimoto(morgan_bits(list(queries["smiles"])), morgan_bits(list(seen["smiles"])))
    return np.stack([similar[:, (seen["moa"] == label).to_numpy()].max(1) for label in labels], axis=1)


def truth_of(queries: pd.DataFrame, labels: list[str]) -> Bool[np.ndarray, "n labels"]:
    """Which labels are true: the mechanism, and the second one that the simulation gave some drugs."""
    moas = queries[["moa", "second_moa"]].to_numpy()
    return np.array([[label in pair for label in labels] for pair in moas])


def model_scores(answers: list[dict[str, Any] | None], labels: list[str]) -> Float[np.ndarray, "n labels"]:
    """Biosimilarity of each answer to each label; the lowest possible, -1, where the model gives no score."""
    scores = np.full((len(answers), len(labels)), -1.0)
    place = {label: i for i, label in enumerate(labels)}
    for row, answer in enumerate(answers):
        for one in (answer or {"moa": {"ranking": []}})["moa"]["ranking"]:
            scores[row, place[one["label"]]] = one["score"]
    return scores


def _document(estimate: Estimate, scores: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    numbers = {k: round(float(getattr(estimate, k)), 4) for k in ("value", "chance", "low", "high")}
    first = recall_at(1)(scores, truth)
    return {"mean_rank": numbers, "p": estimate.p, "drugs": len(scores), "top_1": round(float(first), 4)}


def compare(
    queries: pd.DataFrame, by_model: Float[np.ndarray, "n l"], by_structure: Float[np.ndarray, "n l"], labels: list[str]
) -> dict[str, Any]:
    """Both halves and both together: mean rank with chance, interval and permutation p, for model and structure."""
    truth = truth_of(queries, labels)
    groups = {half: (queries["split"] == half).to_numpy() for half in HALVES}
    groups["all"] = np.ones(len(queries), bool)
    return {
        name: {
            who: _document(rank_test(s[use], truth[use], np.random.default_rng(1)), s[use], truth[use])
            for who, s in (("model", by_model), ("structure", by_structure))
        }
        for name, use in groups.items()
    }


def per_compound(
    queries: pd.DataFrame, by_model: Float[np.ndarray, "n l"], by_structure: Float[np.ndarray, "n l"], labels: list[str]
) -> list[dict[str, Any]]:
    """The rank of the true mechanism of each drug, by model and by structure: what `dopaint benchmark domain` learns
    from.
    """
    truth = truth_of(queries, labels)
    table = queries[["compound", "name", "split"]].rename(columns={"compound": "inchikey"})
    table = table.assign(model=rank_of_truth(by_model, truth), structure=rank_of_truth(by_structure, truth))
    rows: list[dict[str, Any]] = table.to_dict("records")
    return rows


def run(
    model: str | Path = "simulation-128",
    out: Path | None = None,
    draws: int = 8,
    seed: int = 77,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict every unseen drug and write unseen.json to `out` (a file) if given. Returns what it writes."""
    table = library()
    drugs = table[table["kind"] == "drug"]
    queries = drugs[drugs["split"].isin(HALVES)].reset_index(drop=True)
    seen = drugs[drugs["split"] == "seen"]
    labels = sorted(seen["moa"].unique())
    with load_room(model) as room:
        outcomes = predict_in(room, Request(tuple(queries["smiles"]), draws, seed), None, progress)
        hashes = room.provenance.document()
    by_model = model_scores([one.answer for one in outcomes], labels)
    by_structure = structure_scores(queries, seen, labels)
    result = {
        "evidence": "simulation",
        "hashes": hashes,
        "draws": draws,
        "seed": seed,
        "labels": len(labels),
        "outcomes": pd.Series([one.outcome for one in outcomes]).value_counts().to_dict(),
        "results": compare(queries, by_model, by_structure, labels),
        "compounds": per_compound(queries, by_model, by_structure, labels),
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
