"""The gate passes a model that is right and fails models that are blind, shuffled, too weak or turned around."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from causal.laboratory import Laboratory
from causal.phenotype import DMSO
from ldm.quality import cosine as cosines
from service.gate import GateConfig, compound_pairs, context_pairs, effects, score, shuffled, top_share

CONFIG = GateConfig(pairs=64, bootstrap=300)
RNG = np.random.default_rng(0)
TRUE = RNG.standard_normal((64, 40)) * RNG.uniform(0.5, 2.0, (64, 1))


def test_right_model_passes_and_wrong_ones_fail() -> None:
    noisy = TRUE + 0.5 * RNG.standard_normal(TRUE.shape)
    assert score("compound", "right", noisy, TRUE, CONFIG).passed
    assert not score("compound", "blind", np.zeros_like(TRUE), TRUE, CONFIG).passed
    assert not score("compound", "turned", -noisy, TRUE, CONFIG).passed
    assert not score("compound", "weak", 0.3 * noisy, TRUE, CONFIG).passed
    assert not score("compound", "loud", 2.0 * noisy, TRUE, CONFIG).passed
    assert not score("compound", "shuffled", noisy[shuffled(64, CONFIG, "compound")], TRUE, CONFIG).passed
    one_for_all = np.repeat(TRUE.mean(0, keepdims=True), 64, axis=0)
    assert not score("compound", "same for all", one_for_all, TRUE + TRUE.mean(0) * 20, CONFIG).passed


def test_numbers_by_hand() -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 1.0]])
    assert np.allclose(cosines(a, b), [1.0, 0.0, 0.0])
    result = score("source", "m", 0.8 * TRUE, TRUE, CONFIG)
    assert result.slope == pytest.approx(0.8)
    assert result.cosine == pytest.approx(1.0)
    assert result.top_share is None


def test_top_share_counts_ties_against_the_model() -> None:
    assert top_share(TRUE, TRUE, 0.1) == 1.0
    assert top_share(np.zeros_like(TRUE), TRUE, 0.1) == 0.0
    chance = np.mean([top_share(RNG.standard_normal(TRUE.shape), TRUE, 0.1) for _ in range(60)])
    assert abs(chance - 6 / 64) < 0.03


def test_shuffle_has_no_fixed_point() -> None:
    order = shuffled(64, CONFIG, "well")
    assert sorted(order) == list(range(64))
    assert (order != np.arange(64)).all()


def test_effects_pair_rows_and_leave_out_empty_draws() -> None:
    pairs = pd.DataFrame({"pair": [0, 0, 0, 0, 1, 1], "draw": [0, 1, 0, 1, 0, 0], "end": [0, 0, 1, 1, 1, 0]})
    values = np.array([[1.0], [2.0], [4.0], [np.nan], [10.0], [3.0]])
    assert np.allclose(effects(values, pairs), [[3.0], [7.0]])
    assert np.isnan(effects(np.full((6, 1), np.nan), pairs)).all()


def test_pairs_differ_in_their_factor_alone() -> None:
    plates = Laboratory().plates.drop(columns="held_out")
    drugs = [f"K{i}" for i in range(40)]
    for factor in ("source", "batch", "well"):
        table = context_pairs(plates, drugs, factor, CONFIG)
        assert table["pair"].nunique() == 64
        a, b = (table[table["end"] == end].sort_values(["pair", "draw"]).reset_index(drop=True) for end in (0, 1))
        assert (a["seed"] == b["seed"]).all()
        assert (a["compound"] == b["compound"]).all()
        assert ((a["source"] != b["source"]) == (factor == "source")).all()
        assert ((a["batch"] == b["batch"]) == (factor == "well")).all()
        if factor == "well":
            assert (a["plate"] == b["plate"]).all()
            assert ((a["row"] != b["row"]) | (a["column"] != b["column"])).all()
        Laboratory().check(table)
        assert 0.4 < (table["compound"] == DMSO).mean() < 0.6


def test_compound_pairs_share_draws() -> None:
    contexts = Contexts.from_table(Laboratory().plates.drop(columns="held_out"))
    table = compound_pairs(contexts, ["K0", "K1"], CONFIG)
    assert len(table) == 2 * 2 * CONFIG.compound_draws
    assert table.groupby("draw")["seed"].nunique().eq(1).all()
    assert set(table.loc[table["end"] == 0, "compound"]) == {DMSO}
