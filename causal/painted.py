"""The dial of allocation in the painted world: the same estimators on features of pictures, truth by brute force.

Features are a few numbers per channel, so the study needs no segmentation; they stand for any profile. Effects are in
standard deviations of the controls. Everything here is a simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.allocation import AllocationConfig, allocate
from causal.baselines import BASELINES, Estimate, corrected_difference, outcome_g_formula
from causal.contexts import PLATE_SHAPES, Contexts
from causal.design import draw_contexts
from causal.evaluate import Score, score
from causal.gformula import Effects, g_formula
from causal.laboratory import Laboratory, LaboratoryConfig
from causal.painter import CHANNELS
from causal.phenotype import DMSO, PhenotypeConfig, compound_effects
from causal.regression import NotEstimable
from causal.simulator import World
from causal.studies import row
from causal.tabular import edge_of

COVARIATES = ("plate", "edge", "across", "down")
FEATURES = tuple(f"{c}_{what}" for what in ("mean", "spread", "foreground") for c in CHANNELS)


@dataclass(frozen=True)
class PaintedConfig:
    """Sizes of the study; the defaults paint about 7,000 fields."""

    compounds: int = 8
    classes: int = 4
    wells: int = 48
    """Per compound in the observed screen."""
    control_share: float = 0.25
    draws: int = 32
    """Of the g-formula with the world as its mechanism."""
    truth_draws: int = 384
    dial: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    seed: int = 20261120


def painted_world(config: PaintedConfig) -> World:
    """A world with made-up compounds: structures are random counts, mechanisms are dealt in turn."""
    rng = np.random.default_rng(config.seed)
    ids = [f"compound{i:02d}" for i in range(config.compounds)]
    moa = [f"class{i % config.classes}" for i in range(config.compounds)]
    library = pd.DataFrame({"compound": ids, "moa": moa, "second_moa": ""})
    structure = rng.poisson(0.3, (len(ids), 64)).astype(float)
    laboratory = Laboratory(LaboratoryConfig(seed=config.seed))
    return World(laboratory, compound_effects(library, structure, PhenotypeConfig(seed=config.seed)))


def simple_features(pictures: Float[np.ndarray, "n c h w"]) -> Float[np.ndarray, "n k"]:
    """Per channel: mean, standard deviation and share of pixels above twice the median of the picture, [n, 3 c]."""
    flat = pictures.reshape(*pictures.shape[:2], -1).astype(np.float64)
    median = np.median(flat, axis=2, keepdims=True)
    return np.concatenate([flat.mean(2), flat.std(2), (flat > 2 * median).mean(2)], axis=1)


def painted_dial(config: PaintedConfig | None = None) -> pd.DataFrame:
    """Bias, RMSE and coverage over (compound, feature) of every estimator, for each position of the dial."""
    c = config or PaintedConfig()
    world = painted_world(c)
    compounds = list(world.compounds.ids)
    contexts = Contexts.from_table(world.plates)
    true = _effects(world, contexts, compounds, c.truth_draws, c.seed + 1)
    known = _effects(world, contexts, compounds, c.draws, c.seed + 2)
    scale = _control_spread(world, contexts, c.seed + 3)
    truth = (true.value / scale)[1:]
    target = draw_contexts(contexts, 256, "sobol", seed=c.seed)
    target = _with_positions(target)
    rows = []
    for dial in c.dial:
        values, table = observed_screen(world, c, dial)
        setting = f"{dial:.2f}"
        scored = _score(known.value[1:] / scale, known.intervals()[1:] / scale[:, None], truth)
        rows.append(row("painted dial", setting, "g-formula, simulator", scored, (0.88, 1.0)))
        for name in (*BASELINES, "plate-corrected"):
            answers = [_estimate(name, values / scale, table, compound, target) for compound in compounds]
            value = np.stack([a.value for a in answers])
            scored = _score(value, np.stack([a.intervals() for a in answers]), truth)
            without = int(np.isnan(value[:, 0]).sum())
            rows.append(row("painted dial", setting, NAMES[name], scored, not_estimable=without))
    return pd.DataFrame(rows)


NAMES = {
    "naive": "naive",
    "plate-corrected": "plate-corrected",
    "regression": "regression",
    "ipw": "IPW",
    "aipw": "AIPW",
    "g-formula": "g-formula, fitted",
}


def observed_screen(world: World, config: PaintedConfig, dial: float) -> tuple[Float[np.ndarray, "n k"], pd.DataFrame]:
    """Paint and measure a screen allocated by the world's own dial; the table gains edge, across and down."""
    wells = pd.DataFrame({"compound": list(world.compounds.ids), "wells": config.wells})
    wells["moa"] = [f"class{i % config.classes}" for i in range(len(wells))]
    allocation = AllocationConfig(seed=config.seed, dial=dial, control_share=config.control_share)
    table = _with_positions(allocate(world.plates, wells, allocation))
    return _measure(world, table), table


def _estimate(
    name: str, values: Float[np.ndarray, "n k"], table: pd.DataFrame, compound: str, target: pd.DataFrame
) -> Estimate:
    """One estimator; where the screen does not determine the effect (positivity), NaN, which does not cover."""
    try:
        if name == "plate-corrected":
            return corrected_difference(values, table, compound, DMSO, _centre_plates)
        if name == "g-formula":
            return outcome_g_formula(values, table, compound, DMSO, COVARIATES, interactions=["edge"], target=target)
        return BASELINES[name](values, table, compound, DMSO, COVARIATES)
    except NotEstimable:
        nothing = np.full(values.shape[1], np.nan)
        return Estimate(name, nothing, nothing, np.ones(values.shape[1]), 0, 0, 0.0)


def _effects(world: World, contexts: Contexts, compounds: Sequence[str], n: int, seed: int) -> Effects:
    draws = draw_contexts(contexts, n, "sobol", seed=seed)
    return g_formula(world.paint, simple_features, [DMSO, *compounds], draws, DMSO, FEATURES, draws_at_once=4)


def _control_spread(world: World, contexts: Contexts, seed: int) -> Float[np.ndarray, "k"]:
    rows = draw_contexts(contexts, 96, "sobol", seed=seed).assign(compound=DMSO)
    return _measure(world, rows).std(0, ddof=1)


def _measure(world: World, rows: pd.DataFrame) -> Float[np.ndarray, "n k"]:
    return np.concatenate([simple_features(world.paint(rows.iloc[i : i + 32])) for i in range(0, len(rows), 32)])


def _with_positions(rows: pd.DataFrame) -> pd.DataFrame:
    shape = np.array([PLATE_SHAPES[f] for f in rows["plate_format"]])
    return rows.assign(
        edge=edge_of(rows),
        down=(rows["row"].to_numpy() + 0.5) / shape[:, 0],
        across=(rows["column"].to_numpy() + 0.5) / shape[:, 1],
    )


def _centre_plates(values: Float[np.ndarray, "n k"], table: pd.DataFrame) -> Float[np.ndarray, "n k"]:
    """Every plate minus the median of its wells: what can be done without controls on every plate."""
    medians = pd.DataFrame(values).groupby(table["plate"].to_numpy()).transform("median")
    return values - medians.to_numpy()


def _score(value: Float[np.ndarray, "m k"], ends: Float[np.ndarray, "m k 2"], truth: Float[np.ndarray, "m k"]) -> Score:
    return score(value.ravel(), ends[..., 0].ravel(), ends[..., 1].ravel(), truth.ravel())
