"""Make the reference library of a model: paint and measure reference compounds, keep their effects and sub-profiles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.design import draw_contexts
from chem.molecule import Molecule, standardise
from profiling.normalise import Normalisation, fit
from profiling.predict import reference_null
from profiling.profiles import COUNT_CELLS, Profiles
from profiling.select import SelectConfig, select
from service.errors import EngineFailure
from service.pipeline import Painted, effect_of, paint_and_measure
from service.reference import (
    FORMAT,
    KINDS,
    MOA,
    TARGET,
    EffectSettings,
    LibrarySettings,
    Reference,
    build_subprofiles,
)
from service.results import Writer
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES, Room

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ReferenceCompound:
    """A compound whose mechanism and targets ("|"-joined) are taken as known."""

    smiles: str
    name: str
    moa: str
    targets: str


def choose(drugs: pd.DataFrame, per_label: int, seed: int) -> list[ReferenceCompound]:
    """At most `per_label` seen drugs of one mechanism each, in an order that depends on the seed and the InChIKey only.

    `drugs` has the columns of `service.library.library`.
    """
    fit_for = drugs[(drugs["kind"] == "drug") & (drugs["split"] == "seen") & (drugs["second_moa"] == "")]
    order = [hashlib.sha256(f"{seed}:{key}".encode()).hexdigest() for key in fit_for["compound"]]
    chosen = fit_for.assign(_order=order).sort_values("_order").groupby("moa", sort=True).head(per_label)
    chosen = chosen.sort_values(["moa", "compound"])
    rows = zip(chosen["smiles"], chosen["name"], chosen["moa"], chosen["targets"], strict=True)
    return [ReferenceCompound(*(str(value) for value in row)) for row in rows]


def build_reference(
    room: Room,
    compounds: Sequence[ReferenceCompound],
    effect: EffectSettings,
    library: LibrarySettings,
    progress: Progress | None = None,
) -> Reference:
    """Paint and measure every compound under the same draws; normalise, select features, build sub-profiles and null.

    A compound without cells in any draw is left out and counted in the manifest. Raises `EngineFailure` when no feature
    can be used.
    """
    total = 2 * (library.draws * (len(compounds) + 1) + library.control_draws)
    done = 0

    def tick(n: int, stage: str) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total, stage)

    dmso = Molecule(DMSO_SMILES, DMSO_INCHIKEY)
    with Writer(None, room.card) as writer:
        wide = draw_contexts(room.contexts, library.control_draws, effect.scheme, effect.distribution, library.seed + 1)
        controls = paint_and_measure(room, dmso, wide, writer, "", tick)
        normalisation = _fit(controls, effect)
        draws = draw_contexts(room.contexts, library.draws, effect.scheme, effect.distribution, library.seed)
        control = paint_and_measure(room, dmso, draws, writer, "", tick)
        draft = Reference({"effect": asdict(effect)}, controls.profiles, normalisation, {}, {})
        rows: list[dict[str, Any]] = []
        values: list[Float[np.ndarray, " k"]] = []
        for compound in compounds:
            molecule = standardise(compound.smiles)
            painted = paint_and_measure(room, molecule, draws, writer, "", tick)
            effects, _ = effect_of(painted, control, draws, draft, molecule.inchikey)
            values.append(effects.value[0])
            rows.append(
                {
                    "Metadata_InChIKey": molecule.inchikey,
                    "Metadata_SMILES": molecule.smiles,
                    "Metadata_Name": compound.name,
                    "Metadata_moa": compound.moa,
                    "Metadata_target": compound.targets,
                    "Metadata_Draws": int(effects.n_draws[0]),
                    "Metadata_Without_Cells": int(effects.n_without_cells[0]),
                }
            )
    effects_table = Profiles(pd.DataFrame(rows), np.stack(values), normalisation.names)
    profiles = _select(effects_table, library)
    subprofiles = {kind: build_subprofiles(profiles, kind, effect) for kind in KINDS}
    manifest = {
        "format": FORMAT,
        "evidence": room.card.evidence,
        "hashes": room.provenance.document(),
        "effect": asdict(effect),
        "library": asdict(library),
        "counts": {
            "compounds": len(profiles),
            "compounds_without_cells": len(compounds) - len(profiles),
            "features_measured": len(normalisation.names),
            "features_selected": len(profiles.names),
            "labels_moa": int((subprofiles[MOA].n_features > 1).sum()),
            "labels_target": int((subprofiles[TARGET].n_features > 1).sum()),
        },
    }
    made = Reference(manifest, profiles, normalisation, subprofiles, {})
    nulls = {kind: reference_null(made.references(kind), subprofiles[kind]) for kind in KINDS}
    return Reference(manifest, profiles, normalisation, subprofiles, nulls)


def _fit(controls: Painted, effect: EffectSettings) -> Normalisation:
    used = np.array([one == "ok" for one in controls.outcomes], dtype=bool)
    if used.sum() < 3:
        raise EngineFailure(
            f"{int(used.sum())} of {len(used)} control pictures have cells: model or engine settings are wrong"
        )
    return fit(
        controls.profiles.rows(used), np.ones(int(used.sum()), dtype=bool), effect.normalise, effect.normalise_by
    )


def _select(effects: Profiles, library: LibrarySettings) -> Profiles:
    alive = np.isfinite(effects.values).any(axis=1)
    kept = effects.rows(alive)
    selection = select(kept, SelectConfig(missing=0.0, correlation=library.max_correlation, outlier=None))
    if len(selection.names) < 3:
        raise EngineFailure(f"{len(selection.names)} of {len(effects.names)} features can be used: expected at least 3")
    chosen = kept.features(selection.names)
    if COUNT_CELLS not in kept.names:
        return chosen
    counts = kept.values[:, kept.names.index(COUNT_CELLS)]  # beside the features: selection may leave it out
    return Profiles(chosen.meta.assign(Metadata_Cell_Count=counts), chosen.values, chosen.names)
