"""Profiles that were measured elsewhere, or on own pictures -> mechanisms and targets by the model's reference library.

The profiles are normalised with the library's frozen centres and scales, so that their unit is the library's. Where
own controls are there, their mean is taken off; otherwise the model's own controls stand for them, and a note says so.
Rows are not paired with controls: intervals cover the rows of the compound, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from chem.fingerprint import morgan_bits, tanimoto
from chem.molecule import Molecule
from profiling.normalise import transform
from profiling.profiles import COUNT_CELLS, Profiles
from service.answer import statement
from service.errors import InvalidRequest, ReferenceMismatch
from service.pipeline import widen
from service.reference import KINDS, Reference
from service.rooms import Room
from service.score import LEVEL, plain, scored

RAW, CONTROL_MADS = "raw", "control MADs"
NEEDED = 0.5  # share of the library's features that must be there
FEW_CONTROLS = 4
OWN, MODELS = "own", "of the model"
COVERS = "rows of the compound only, not the controls, not the model"
ON_SIMULATION = (
    "No mechanism is called: the reference library was made of simulated pictures, which say nothing of yours. Ask "
    "again with allow_simulated to see what the simulation would say."
)


@dataclass(frozen=True)
class Own:
    """Own profiles. `unit`: "raw", or "control MADs" where they were normalised on own controls already."""

    profiles: Profiles
    is_control: Bool[np.ndarray, " n"]
    unit: str = RAW
    molecule: Molecule | None = None
    allow_simulated: bool = False


def check_engine(room: Room, engine: str, names: Sequence[str]) -> None:
    """Refuses another engine than the reference library's. `names`: what the service calls its own engine.

    Raises `ReferenceMismatch`.
    """
    if engine not in (room.provenance.engine, *names):
        raise ReferenceMismatch(
            f"engine {engine[:80]!r} is not the one of the reference library ({', '.join(names)}, hash "
            f"{room.provenance.engine[:12]}...): measure with that one"
        )


def check_features(reference: Reference, names: Sequence[str]) -> None:
    """Refuses profiles that lack too many of the features that scores are made of. Raises `ReferenceMismatch`."""
    wanted = reference.profiles.names
    there = len(set(names) & set(wanted))
    if there < NEEDED * len(wanted):
        first = next(name for name in wanted if name not in set(names))
        raise ReferenceMismatch(
            f"features: {there} of the {len(wanted)} of the reference library are there, at least {NEEDED:.0%} are "
            f"needed; the first that is missing is {first!r}: measure with the same engine and settings"
        )


def effects_of(own: Own, reference: Reference) -> tuple[Float[np.ndarray, "n k"], str, list[str]]:
    """Rows of the compound minus the control, in control MADs, on all normalised features; which control; notes.

    Raises `InvalidRequest` without a row of the compound.
    """
    notes: list[str] = []
    names = reference.normalisation.names
    widened = widen(own.profiles, names)
    values = widened.values if own.unit == CONTROL_MADS else transform(widened, reference.normalisation).values
    compound, control = values[~own.is_control], values[own.is_control]
    if not len(compound):
        raise InvalidRequest("rows: all are controls: at least one of the compound is needed")
    lacking = len(set(reference.profiles.names) - set(own.profiles.names))
    if lacking:
        notes.append(f"{lacking} of {len(reference.profiles.names)} features were not given and take no part.")
    if len(compound) < 3:
        notes.append("Fewer than 3 rows of the compound: no interval.")
    if len(control):
        if len(control) < FEW_CONTROLS:
            notes.append(f"Only {len(control)} controls: their own scatter is in the effect.")
        with np.errstate(invalid="ignore"):
            centre = np.array([_mean(column) for column in control.T])
        return compound - centre, OWN, notes
    if own.unit == CONTROL_MADS:
        return compound, OWN, notes
    notes.append(
        "No control was given: the model's own controls stand for yours, so what your laboratory does to cells and "
        "pictures is taken for the compound's effect."
    )
    return compound, MODELS, notes


def score_own(room: Room, own: Own) -> tuple[dict[str, Any], Float[np.ndarray, "n k"]]:
    """The scores as a JSON object, and the rows of effects they were made of.

    Raises `ReferenceMismatch` for other features, `InvalidRequest` without a row of the compound.
    """
    reference = room.reference()
    check_features(reference, own.profiles.names)
    differences, control, notes = effects_of(own, reference)
    withheld = ON_SIMULATION if room.card.simulated and not own.allow_simulated else ""
    if not withheld and not np.isfinite(differences).any():
        withheld = "No mechanism is called: no row of the compound has cells."
    names = reference.normalisation.names
    place = {name: i for i, name in enumerate(names)}
    used = differences[:, [place[name] for name in reference.profiles.names]]
    count = _mean(differences[:, place[COUNT_CELLS]]) if COUNT_CELLS in place else float("nan")
    inchikey = own.molecule.inchikey if own.molecule else ""
    structure = _structure(reference, own.molecule)
    ranking = {} if withheld else {kind: scored(used, reference, kind, inchikey, structure, count) for kind in KINDS}
    answer = {
        "evidence": room.card.evidence,
        "statement": statement(room.card.evidence),
        "n_compound": int((~own.is_control).sum()),
        "n_control": int(own.is_control.sum()),
        "control": control,
        "interval": {"level": LEVEL, "covers": "rows", "sentence": COVERS},
        "withheld": withheld,
        "notes": notes,
        **{kind: ranking.get(kind) or {"call": None, "reason": withheld, "ranking": []} for kind in KINDS},
    }
    return dict(plain(answer)), differences


def effect_table(differences: Float[np.ndarray, "n k"], names: Sequence[str], evidence: str) -> pd.DataFrame:
    """One row a feature: mean effect over the rows, its standard error, how many rows had it."""
    n = np.isfinite(differences).sum(axis=0)
    mean = np.array([_mean(column) for column in differences.T])
    spread = np.array([np.nanstd(c, ddof=1) if m > 1 else np.nan for c, m in zip(differences.T, n, strict=True)])
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(n > 1, spread / np.sqrt(np.maximum(n, 1)), np.nan)
    columns = {"feature": list(names), "value": mean, "se": error, "n_rows": n}
    return pd.DataFrame(columns).assign(unit=CONTROL_MADS, evidence=evidence)


def _structure(reference: Reference, molecule: Molecule | None) -> dict[str, float]:
    keys = [str(key) for key in reference.profiles.column("InChIKey")]
    if molecule is None:
        return dict.fromkeys(keys, float("nan"))
    similar = tanimoto(morgan_bits([molecule.smiles]), reference.fingerprints)[0]
    return dict(zip(keys, (float(one) for one in similar), strict=True))


def _mean(column: Float[np.ndarray, " n"]) -> float:
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else float("nan")
