"""The content of a molecule's predictions.json and of the CSV beside it: never a bare number, always its evidence.

Nothing here depends on the clock, on a path, or on the other molecules of the request.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from causal.gformula import Effects
from chem.molecule import Molecule
from service.reference import KINDS
from service.request import Request
from service.rooms import Room, Standing
from service.score import LEVEL, plain

FORMAT = "dopaint/predictions/1"
Answer = dict[str, Any]
SIMULATED = "Trained on simulated pictures: nothing here is a statement about real cells."
MEASURED = "Trained on measured pictures."
COVERS = "draws only, not model error"
CSV_COLUMNS = (
    "evidence",
    "inchikey",
    "smiles",
    "kind",
    "rank",
    "label",
    "called",
    "score",
    "low",
    "high",
    "interval_covers",
    "chance",
    "chance_sd",
    "p",
    "q",
    "structure",
    "cell_count",
    "n_references",
    "n_features",
    "evidence_compounds",
    "in_domain",
    "draws",
    "withheld",
)


def statement(evidence: str) -> str:
    """What a reader must know before any number."""
    return SIMULATED if evidence == "simulation" else MEASURED


def document(
    *,
    room: Room,
    request: Request,
    molecule: Molecule,
    standing: Standing,
    effects: Effects,
    painted: Sequence[str],
    control: Sequence[str],
    design: str,
    withheld: str,
    ranking: dict[str, dict[str, Any]],
) -> Answer:
    """predictions.json of one molecule; `painted` and `control` are the outcomes of its and the control's pictures."""
    card = room.card
    return {
        "format": FORMAT,
        "evidence": card.evidence,
        "statement": statement(card.evidence),
        "conditions": card.conditions,
        "compound": {"smiles": molecule.smiles, "inchikey": molecule.inchikey, "name": standing.name},
        "request": {
            "draws": request.draws,
            "seed": request.seed,
            "allow_simulated": request.allow_simulated,
            "contexts": list(request.contexts),
            "abstain": request.abstain,
        },
        "design_hash": design,
        "provenance": {"model_name": card.name, **room.provenance.document()},
        "domain": {
            "in_library": standing.in_library,
            "seen_in_training": standing.seen,
            "zone": standing.zone,
            "nearest": {
                "name": standing.nearest,
                "inchikey": standing.nearest_inchikey,
                "tanimoto": plain(standing.tanimoto),
            },
            "scaffold_in_training": standing.scaffold_seen,
            "density": plain(standing.density),
            "expected_error": plain(standing.expected_error),
            "basis": standing.basis,
            "sentence": standing.sentence,
        },
        "support": {"sentence": _support(standing)},
        "draws": {
            "requested": request.draws,
            "compound_without_cells": _count(painted, "no_cells"),
            "compound_failed": _count(painted, "failed"),
            "control_without_cells": _count(control, "no_cells"),
            "control_failed": _count(control, "failed"),
            "effect_on_share_with_cells": plain(float(effects.cells_value[0])),
        },
        "cell_count": _cell_count(effects),
        "interval": {"level": LEVEL, "covers": "draws", "sentence": COVERS},
        "withheld": withheld,
        **{kind: ranking.get(kind) or {"call": None, "reason": withheld, "ranking": []} for kind in KINDS},
    }


def _support(standing: Standing) -> str:
    if not standing.seen:
        return "No training picture shows this compound: its effect is extrapolated from its structure."
    return "The model was trained on pictures of this compound, in few of these contexts: the others are extrapolated."


def _cell_count(effects: Effects) -> Answer | None:
    name = "Image_Count_Cells"
    if name not in effects.names:
        return None
    i = effects.names.index(name)
    low, high = effects.intervals(LEVEL, "draws")[0, i]
    values = {"effect": effects.value[0, i], "standard_error": effects.se[0, i], "low": low, "high": high}
    return {"unit": "control MADs", **{name: plain(float(value)) for name, value in values.items()}}


def _count(outcomes: Sequence[str], which: str) -> int:
    return sum(one == which for one in outcomes)


def csv_rows(answer: Answer) -> Iterable[dict[str, Any]]:
    """One row a label; one row without a label when the call is withheld."""
    head = {
        "evidence": answer["evidence"],
        "inchikey": answer["compound"]["inchikey"],
        "smiles": answer["compound"]["smiles"],
        "interval_covers": answer["interval"]["sentence"],
        "in_domain": answer["domain"]["zone"],
        "draws": answer["request"]["draws"],
        "withheld": answer["withheld"],
    }
    labels = [(kind, one) for kind in ("moa", "target") for one in answer[kind]["ranking"]]
    if not labels:
        yield head
    for kind, one in labels:
        compounds = "|".join(f"{c['name']} ({c['similarity']:.2f})" for c in one["compounds"])
        shared = {name: value for name, value in one.items() if name in CSV_COLUMNS}
        yield {
            **head,
            "kind": kind,
            **shared,
            "called": one["label"] == answer[kind]["call"],
            "evidence_compounds": compounds,
        }


def csv_text(answers: Iterable[Answer]) -> str:
    """The predictions of several molecules as CSV, the evidence in its first column."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        writer.writerows(csv_rows(answer))
    return text.getvalue()


def standing_document(standing: Standing) -> Answer:
    """A molecule's standing as JSON, for the page."""
    return {name: plain(value) for name, value in asdict(standing).items()}
