"""The gate passes a model that is right and fails models that are blind, shuffled, too weak or turned around."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from causal.laboratory import Laboratory
from causal.phenotype import DMSO
from ldm.quality import cosine as cosines
from profiling.profiles import Profiles
from service.benchmark_gate import normalised, score_all
from service.errors import InvalidRequest
from service.gate import (
    FACTORS,
    ROW,
    GateConfig,
    compound_pairs,
    context_pairs,
    effects,
    expected_at,
    mean_effects,
    noise_ceiling,
    own_repeat,
    replicate,
    score,
    shuffled,
    top_share,
    with_draws,
)

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
        assert (table.groupby(["pair", "end"]).size() == CONFIG.draws(factor)).all()
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


def test_other_true_pictures_keep_what_pairs_share() -> None:
    rows = pd.DataFrame({"compound": ["a", "b", "c"], "seed": np.array([7, 7, 2**64 - 1], np.uint64)})
    assert replicate(rows, 0)["seed"].equals(rows["seed"])
    one, two = replicate(rows, 1)["seed"].to_numpy(), replicate(rows, 2)["seed"].to_numpy()
    assert one.dtype == np.uint64
    assert one[0] == one[1] != one[2]
    assert len({7, int(one[0]), int(two[0])}) == 3
    assert one[0] == 7191089600892374487  # SplitMix64 begun at 7: its first number
    many = replicate(pd.DataFrame({"seed": np.arange(20_000, dtype=np.uint64)}), 1)["seed"].to_numpy()
    assert len(np.unique(many)) == 20_000
    assert abs((many / 2.0**64).mean() - 0.5) < 0.01  # a uniform mean has the deviation 0.002


def test_noise_ceiling_is_what_a_perfect_model_gets() -> None:
    pairs, features, noise = 4000, 200, 0.8
    truth = RNG.standard_normal((pairs, features))
    sets = [truth + noise * RNG.standard_normal(truth.shape) for _ in range(3)]
    perfect = truth + noise * RNG.standard_normal(truth.shape)
    assert noise_ceiling(sets[:1]) is None
    # E cos = 1 / sqrt((1 + s²)(1 + s²/m)) where the other side is a mean of m sets; features are many, so it is near
    assert noise_ceiling(sets[:2]) == pytest.approx(1 / (1 + noise**2), abs=0.01)
    assert noise_ceiling(sets) == pytest.approx(((1 + noise**2) * (1 + noise**2 / 2)) ** -0.5, abs=0.01)
    got = score("well", "perfect", perfect, mean_effects(sets), CONFIG, noise_ceiling(sets))
    assert got.noise_ceiling is not None
    assert got.noise_ceiling < got.cosine < got.noise_ceiling + 0.05  # one set fewer: on the low side, and not far


def test_mean_of_effects_leaves_out_pairs_without_cells() -> None:
    one, two = np.array([[1.0], [np.nan], [np.nan]]), np.array([[3.0], [5.0], [np.nan]])
    np.testing.assert_array_equal(mean_effects([one, two]), [[2.0], [5.0], [np.nan]])


def _profiles(values: np.ndarray) -> Profiles:
    names = tuple(f"Cells_A_{i}" for i in range(values.shape[1]))
    return Profiles(pd.DataFrame({"Metadata_Row": range(len(values))}), values, names)


def test_all_tables_are_on_the_scale_of_the_true_controls() -> None:
    values = RNG.standard_normal((300, 4)) * [1.0, 10.0, 0.1, 0.0] + [0.0, 5.0, 1.0, 2.0]
    values[:, 2] = 0.5 * values[:, 1] + 0.001 * values[:, 2]  # a double of the second
    control = np.arange(300) < 200
    true, shifted = [_profiles(values), _profiles(values[::-1])], _profiles(values + 1.0)
    names, (one, two), model = normalised(true, shifted, control)
    assert "Cells_A_3" not in names  # flat
    assert len(names) == 2
    pooled = np.concatenate([one[control], two[control]])
    assert np.abs(np.median(pooled, 0)).max() < 1e-9
    np.testing.assert_allclose(model - one, np.broadcast_to(model[0] - one[0], one.shape))
    far = normalised([_profiles(values)], _profiles(values + 1e9), control)[2]
    assert far.max() == 30.0


def test_the_whole_gate_on_made_up_features() -> None:
    """A model that repeats the truth passes in every factor, its controls fail, and only the model has a ceiling."""
    config = GateConfig(pairs=64, compound_draws=2, source_draws=2, batch_draws=2, well_draws=2, bootstrap=200)
    plates = Laboratory().plates.drop(columns="held_out")
    drugs = [f"K{i}" for i in range(64)]
    parts = [compound_pairs(Contexts.from_table(plates), drugs, config)]
    parts += [context_pairs(plates, drugs, factor, config) for factor in FACTORS[1:]]
    pairs = pd.concat(parts, ignore_index=True)
    rows = pairs[ROW].drop_duplicates().reset_index(drop=True)
    rng = np.random.default_rng(1)
    truth = np.zeros((len(rows), 60))
    for column in ("compound", "source", "batch"):
        of = {name: rng.standard_normal(60) for name in rows[column].unique()}
        truth += np.stack([of[name] for name in rows[column]])
    place = rows[["row", "column"]].to_numpy() / rows[["plate_format"]].to_numpy() ** 0.5
    truth += place @ rng.standard_normal((2, 60)) * 4
    sets = [truth + 0.2 * rng.standard_normal(truth.shape) for _ in range(2)]
    scores = score_all(pairs, rows, sets, truth + 0.2 * rng.standard_normal(truth.shape), 0.0, config)
    assert [s.factor for s in scores if s.model == "model"] == list(FACTORS)
    assert all(s.passed == (s.model == "model") for s in scores)
    assert all((s.noise_ceiling is not None) == (s.model == "model") for s in scores)
    with pytest.raises(ValueError, match="0 expected"):
        score_all(pairs, rows, sets, truth, 0.5, config)


def test_the_models_own_noise_tells_what_more_draws_would_give() -> None:
    n, k, draws, noise = 300, 100, 4, 3.0
    effect = RNG.standard_normal((n, k))
    pairs = pd.DataFrame([{"pair": p, "draw": d, "end": e} for p in range(n) for d in range(draws) for e in (0, 1)])
    of = effect[pairs["pair"]] * pairs["end"].to_numpy()[:, None]
    values = of + noise / 2**0.5 * RNG.standard_normal(of.shape)
    repeat = own_repeat(values, pairs)
    assert repeat == pytest.approx(1 / (1 + noise**2 / 2), abs=0.02)  # halves of two draws
    now = float(np.median(cosines(effects(values, pairs), effect)))
    assert now == pytest.approx((1 + noise**2 / 4) ** -0.5, abs=0.02)
    assert expected_at(now, repeat, 4, 32) == pytest.approx((1 + noise**2 / 32) ** -0.5, abs=0.02)
    assert own_repeat(values[::4], pairs[pairs["draw"] == 0].iloc[: n // 2]) is None


def test_draws_are_given_by_factor() -> None:
    assert with_draws(()) == GateConfig()
    assert with_draws(["well=32", "source=4"]).draws("well") == 32
    for wrong in ("wells=3", "well", "well=0", "well=x", "well=-3"):
        with pytest.raises(InvalidRequest, match="draws: got"):
            with_draws([wrong])
