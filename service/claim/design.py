"""Who is in the experiment and which pictures are made: compounds, observed wells, draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from causal.allocation import AllocationConfig, allocate
from causal.contexts import PLATE_SHAPES, Contexts
from causal.design import cross, draw_contexts
from causal.laboratory import Laboratory
from causal.phenotype import DMSO, stream
from causal.simulator import World
from causal.tabular import edge_of
from service.claim.config import Claim
from service.errors import InvalidRequest
from service.library import DMSO_SMILES, library, read_config, world


def painted_world(claim: Claim) -> World:
    """The world of the claim, its pictures as large as the configuration says."""
    return replace(world(claim.simulation), size=claim.config.size)


def compounds_of(claim: Claim) -> pd.DataFrame:
    """compound, name, smiles, moa, seen: single-mechanism drugs of the chosen mechanisms, seen ones first.

    Which drugs are unseen is the library's own split, made before any training. Raises InvalidRequest where a mechanism
    is unknown or has too few.
    """
    c, table = claim.config, library()
    drugs = table[(table["kind"] == "drug") & (table["second_moa"] == "")]
    if unknown := sorted(set(c.moas) - set(drugs["moa"])):
        raise InvalidRequest(f"moas: {unknown[0]!r} is no mechanism of the library; it has {sorted(set(drugs['moa']))}")
    parts = []
    for seen, wanted in ((True, c.seen), (False, c.unseen)):
        for moa in c.moas:
            pool = drugs[(drugs["moa"] == moa) & ((drugs["split"] == "seen") == seen)].sort_values("compound")
            if len(pool) < wanted:
                raise InvalidRequest(f"moas: {moa!r} has {len(pool)} drugs with seen = {seen}, {wanted} are asked for")
            order = stream(c.seed, "claim", moa, seen).permutation(len(pool))[:wanted]
            parts.append(pool.iloc[np.sort(order)].assign(seen=seen))
    return pd.concat(parts, ignore_index=True)[["compound", "name", "smiles", "moa", "seen"]]


def training_plates(claim: Claim, held_out: bool = False) -> pd.DataFrame:
    """Plates of the batches that are in training, or of those that are held out."""
    plates = Laboratory(read_config(claim.simulation).laboratory).plates
    return plates[plates["held_out"] == held_out].drop(columns="held_out").reset_index(drop=True)


def observed_rows(claim: Claim, allocation: str) -> pd.DataFrame:
    """The wells of the observed screen: seen compounds and DMSO in batches of training, with `split` and positions."""
    c, table = claim.config, compounds_of(claim)
    wells = table.loc[table["seen"], ["compound", "moa"]].assign(wells=c.wells)
    settings = AllocationConfig(seed=c.seed, dial=claim.dial(allocation), control_share=c.control_share)
    rows = allocate(training_plates(claim), wells, settings)
    rng = stream(c.seed, "claim", "order")
    rows = rows.iloc[rng.permutation(len(rows))].reset_index(drop=True)
    rows["split"] = np.where(rng.random(len(rows)) < c.val_share, "val", "train")
    return with_positions(rows)


def draws_of(claim: Claim, which: str) -> pd.DataFrame:
    """The design, every compound and DMSO under every draw.

    "effects": what models and oracle paint. "truth", "held out": the truth in the batches of training, and in the
    others; under draws of their own.
    """
    c = claim.config
    n = {"effects": c.draws, "truth": c.truth_draws, "held out": c.held_out_draws}[which]
    contexts = Contexts.from_table(training_plates(claim, which == "held out"))
    seed = c.seed + {"effects": 1, "truth": 2, "held out": 3}[which]
    return cross([DMSO, *compounds_of(claim)["compound"]], draw_contexts(contexts, n, "sobol", "valid", seed))


def with_positions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the covariates edge (`causal.tabular.edge_of`), and down and across, in (0, 1)."""
    shape = np.array([PLATE_SHAPES[f] for f in rows["plate_format"]]).reshape(-1, 2)
    return rows.assign(
        edge=edge_of(rows),
        down=(rows["row"].to_numpy() + 0.5) / shape[:, 0],
        across=(rows["column"].to_numpy() + 0.5) / shape[:, 1],
    )


def encoded_compounds(claim: Claim) -> pd.DataFrame:
    """compound and smiles of DMSO and of all compounds of the claim, unseen ones too (their vectors are needed)."""
    table = compounds_of(claim)[["compound", "smiles"]]
    return pd.concat([pd.DataFrame({"compound": [DMSO], "smiles": [DMSO_SMILES]}), table], ignore_index=True)
