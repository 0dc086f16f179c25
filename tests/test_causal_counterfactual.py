"""Counterfactual scores: the simulator is perfect against itself; each axiom has a generator that breaks it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causal.counterfactual import check_twins
from causal.laboratory import Laboratory
from causal.phenotype import DMSO, compound_effects
from causal.simulator import World

LIBRARY = pd.DataFrame({"compound": ["K0"], "moa": ["a"], "second_moa": [""]})
WORLD = World(Laboratory(), compound_effects(LIBRARY, np.ones((1, 32), np.float32)))


def table(compound: str, **more: object) -> pd.DataFrame:
    plate = WORLD.plates.iloc[20]
    rows = pd.DataFrame({"compound": [compound] * 12})
    for name in ("source", "batch", "plate", "plate_format"):
        rows[name] = plate[name]
    return rows.assign(row=7, column=11, seed=np.arange(12, dtype=np.uint64), **more)


def measure(pictures: np.ndarray) -> np.ndarray:
    """Mean and spread of each channel's middle, and of the frame's corners, where the treatment shows little."""
    centre = pictures.mean((2, 3))
    fixed = np.stack([p[0].ravel()[:40].min() for p in pictures])[:, None]
    return np.concatenate([centre, pictures.std((2, 3)), fixed], axis=1)


def test_truth_is_perfect_against_itself() -> None:
    result = check_twins(WORLD.paint, WORLD.paint, measure, table(DMSO), table("K0"))
    assert result.composition == 0.0
    assert result.effectiveness == pytest.approx(1.0)
    assert result.minimality < 0.5


def test_each_axiom_can_fail() -> None:
    rng = np.random.default_rng(0)
    restless = lambda rows: WORLD.paint(rows) + 0.05 * rng.random((len(rows), 1, 1, 1), dtype=np.float32)  # noqa: E731
    assert check_twins(restless, WORLD.paint, measure, table(DMSO), table("K0")).composition > 0.005
    deaf = lambda rows: WORLD.paint(rows.assign(compound=DMSO))  # noqa: E731
    assert check_twins(deaf, WORLD.paint, measure, table(DMSO), table("K0")).effectiveness == 0.0

    def meddling(rows: pd.DataFrame) -> np.ndarray:
        return np.asarray(
            WORLD.paint(rows) + np.float32(0.3) * (rows["compound"] != DMSO).to_numpy()[:, None, None, None]
        )

    good = check_twins(WORLD.paint, WORLD.paint, measure, table(DMSO), table("K0"))
    assert check_twins(meddling, WORLD.paint, measure, table(DMSO), table("K0")).minimality > 5 * good.minimality


def test_unequal_noise_is_refused() -> None:
    other = table("K0").assign(seed=np.arange(1, 13, dtype=np.uint64))
    with pytest.raises(ValueError, match="seed"):
        check_twins(WORLD.paint, WORLD.paint, measure, table(DMSO), other)
