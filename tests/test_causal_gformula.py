"""The g-formula against hand-computed truth, naive loops and its own promises (streaming, sharding, missing draws)."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.contexts import Contexts
from causal.design import SCHEMES, cross, draw_contexts
from causal.gformula import (
    EffectsAccumulator,
    GuidedSamples,
    UnknownEstimationError,
    UnpairedDraws,
    contrast,
    g_formula,
    with_estimation,
)

NAMES = ("Cells_a", "Cells_b")


@pytest.fixture(scope="module")
def contexts():
    rows = [(f"S{s}", f"S{s}B{b}", f"S{s}B{b}P0", 384) for s in (1, 2) for b in range(4)]
    return Contexts(pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format"]))


def made_up(contexts, scheme="iid", n=24, compounds=("DMSO", "A", "B"), seed=0):
    design = cross(compounds, draw_contexts(contexts, n, scheme, seed=seed))
    values = np.random.default_rng(seed).normal(size=(len(design), 2)) + design["row"].to_numpy()[:, None]
    return values, design


def test_paired_contrast_equals_a_slow_loop(contexts):
    values, design = made_up(contexts)
    effects = contrast(values, design, "DMSO", names=NAMES)
    for i, compound in enumerate(effects.compounds):
        differences = []
        for draw in range(24):
            of = {
                c: values[j]
                for j, (c, d) in enumerate(zip(design["compound"], design["draw"], strict=True))
                if d == draw
            }
            differences.append(of[compound] - of["DMSO"])
        d = np.array(differences)
        np.testing.assert_allclose(effects.value[i], d.mean(0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(effects.se[i], d.std(0, ddof=1) / np.sqrt(24), rtol=1e-12)
        if compound != "DMSO":
            low, high = stats.ttest_1samp(d, 0).confidence_interval(0.9)
            np.testing.assert_allclose(effects.intervals(0.9)[i], np.stack([low, high], -1), rtol=1e-10)
    assert effects.n_draws.tolist() == [24] * 3


def test_stratified_standard_error_is_cochrans(contexts):
    values, design = made_up(contexts, "stratified", n=12)
    effects = contrast(values, design, None)
    rows = design[design["compound"] == "A"]
    v = values[rows.index, 0]
    # Cochran 1977, eq. 5.7 with W_h = n_h / n, written out
    variance = sum((2 / 12) ** 2 * v[rows["group"] == h].var(ddof=1) / 2 for h in range(6))
    assert effects.se[effects.compounds.index("A"), 0] == pytest.approx(np.sqrt(variance), rel=1e-12)
    assert effects.df[0, 0] == 6


def test_replicate_standard_error_is_that_of_replicate_means(contexts):
    values, design = made_up(contexts, "sobol", n=64)
    effects = contrast(values, design, "DMSO")
    d = values[design["compound"] == "A"] - values[design["compound"] == "DMSO"]
    means = np.array([d[g::8].mean(0) for g in range(8)])
    np.testing.assert_allclose(effects.se[1], means.std(0, ddof=1) / np.sqrt(8), rtol=1e-12)
    assert effects.df[1, 0] == 7


def test_repeated_contexts_do_not_count_as_new_ones(contexts):
    """Two seeds of one context without any noise: the error is that of the contexts, not of twice as many draws."""
    draws = draw_contexts(contexts, 40, "iid", seed=1, seeds_per_context=2)
    effects = contrast(draws[["row"]].to_numpy(float), draws.assign(compound="A"), None)
    rows = draws["row"].to_numpy(float)[::2]
    assert effects.se[0, 0] == pytest.approx(rows.std(ddof=1) / np.sqrt(20), rel=1e-12)
    assert effects.df[0, 0] == 19


@pytest.mark.parametrize("scheme", SCHEMES)
def test_chunks_shards_and_order_do_not_change_the_answer(contexts, scheme):
    values, design = made_up(contexts, scheme, n=20)
    values[design["compound"] == "B"] = np.where(
        np.arange(20)[:, None] % 3 == 0, np.nan, values[design["compound"] == "B"]
    )
    whole = contrast(values, design, "DMSO", names=NAMES)
    chunks = EffectsAccumulator(NAMES, "DMSO")
    for draw in (3, 1, 0, 2, *range(4, 20)):
        mine = (design["draw"] == draw).to_numpy()
        chunks.update(values[mine], design[mine])
    by_compound = []
    for compound in ("A", "B"):
        shard = EffectsAccumulator(NAMES, "DMSO")
        mine = design["compound"].isin([compound, "DMSO"]).to_numpy()
        shard.update(values[mine], design[mine])
        by_compound.append(shard)
    by_draw = []
    for part in (design["draw"] < 7, design["draw"] >= 7):
        shard = EffectsAccumulator(NAMES, "DMSO")
        shard.update(values[part], design[part])
        by_draw.append(shard)
    others = [chunks.effects(), by_draw[1].merge(by_draw[0]).effects(), by_compound[0].merge(by_compound[1]).effects()]
    for other in others:
        for compound in ("A", "B"):
            i, j = whole.compounds.index(compound), other.compounds.index(compound)
            np.testing.assert_allclose(other.value[j], whole.value[i], rtol=1e-12)
            np.testing.assert_allclose(other.se[j], whole.se[i], rtol=1e-10)
            assert other.n_draws[j] == whole.n_draws[i]
            assert other.n_without_cells[j] == whole.n_without_cells[i]


def test_a_shard_survives_a_file(contexts, tmp_path):
    values, design = made_up(contexts, "sobol", n=16)
    shards = []
    for i, part in enumerate((design["draw"] < 5, design["draw"] >= 5)):
        shard = EffectsAccumulator(NAMES, "DMSO")
        shard.update(values[part], design[part])
        np.savez(tmp_path / f"{i}.npz", **shard.to_arrays())
        with np.load(tmp_path / f"{i}.npz", allow_pickle=False) as stored:
            shards.append(EffectsAccumulator.from_arrays(stored))
    merged, whole = shards[0].merge(shards[1]).effects(), contrast(values, design, "DMSO", names=NAMES)
    assert (merged.compounds, merged.names, merged.control) == (whole.compounds, whole.names, "DMSO")
    np.testing.assert_allclose(merged.intervals(), whole.intervals(), rtol=1e-10)


def test_memory_does_not_grow_with_draws(contexts):
    accumulator = EffectsAccumulator(NAMES, "DMSO")
    sizes = []
    for start in range(0, 400, 50):
        design = cross(["DMSO", "A"], draw_contexts(contexts, 400, "sobol", seed=0).iloc[start : start + 50])
        accumulator.update(np.zeros((100, 2)), design)
        sizes.append(accumulator._moments.mean.nbytes)
    assert len(set(sizes)) == 1


def test_draws_without_cells_are_counted_and_never_replaced(contexts):
    values, design = made_up(contexts, n=30)
    a, control = (design["compound"] == "A").to_numpy(), (design["compound"] == "DMSO").to_numpy()
    empty_a, empty_control = np.arange(30) < 6, np.arange(30) == 29
    values[np.flatnonzero(a)[empty_a]] = np.nan
    values[np.flatnonzero(control)[empty_control]] = np.nan
    effects = contrast(values, design, "DMSO")
    i = effects.compounds.index("A")
    d = (values[a] - values[control])[6:29]
    np.testing.assert_allclose(effects.value[i], d.mean(0), rtol=1e-12)
    # among draws with cells: the plain standard error of 23 pairs, up to the n/(n-1) of the linearised form
    np.testing.assert_allclose(effects.se[i], d.std(0, ddof=0) * np.sqrt(30 / 29) / np.sqrt(23), rtol=1e-12)
    assert (effects.n_draws[i], effects.n_without_cells[i]) == (30, 6)
    assert effects.n_without_cells[effects.compounds.index("DMSO")] == 1
    share = -empty_a.astype(float) + empty_control  # the share of draws with cells is an effect of its own
    assert effects.cells_value[i] == pytest.approx(share.mean(), abs=1e-15)
    assert effects.cells_se[i] == pytest.approx(share.std(ddof=1) / np.sqrt(30), rel=1e-12)


def test_counts_of_an_empty_picture_stay_values(contexts):
    design = cross(["DMSO", "A"], draw_contexts(contexts, 4, seed=0))
    values = np.array([[1.0, 5], [1, 6], [1, 5], [np.nan, 0], [1, 5], [1, 4], [1, 5], [1, 5]])
    effects = contrast(values, design, "DMSO", names=("Cells_AreaShape_Area", "Image_Count_Cells"))
    assert effects.n_without_cells.tolist() == [0, 1]
    assert effects.value[1].tolist() == [0.0, (1 - 5 - 1 + 0) / 4]


def test_one_draw_gives_a_value_and_no_standard_error(contexts):
    values, design = made_up(contexts, n=1)
    effects = contrast(values, design, "DMSO")
    assert np.isfinite(effects.value).all()
    assert np.isnan(effects.se).all()
    assert np.isnan(effects.intervals()).all()


def test_g_formula_in_chunks_is_the_contrast_of_all_rows(contexts):
    def paint(rows):
        strength = (rows["compound"] == "A").to_numpy() * (1.0 + rows["column"].to_numpy())
        noise = np.array([np.random.Generator(np.random.Philox(int(s))).normal() for s in rows["seed"]])
        return (strength + noise)[:, None, None] * np.ones((1, 3, 3))

    def measure(pictures):
        return pictures.mean(axis=2)[:, :1]

    draws = draw_contexts(contexts, 10, "sobol", seed=4)
    effects = g_formula(paint, measure, ["A"], draws, "DMSO", ["Cells_x"], draws_at_once=3)
    assert effects.compounds == ("DMSO", "A")
    # the noise is shared, so it cancels: exactly the mean over the contexts
    assert effects.value[1, 0] == pytest.approx(1 + draws["column"].mean(), abs=1e-12)
    assert effects.value[0, 0] == 0.0


def test_intervals_say_what_they_cover(contexts):
    values, design = made_up(contexts)
    effects = contrast(values, design, "DMSO")
    with pytest.raises(UnknownEstimationError, match="the error of their draws only"):
        effects.intervals(covers="total")
    with pytest.raises(ValueError, match="expected one of draws, estimation, total"):
        effects.intervals(covers="everything")
    refits = [
        contrast(values + shift * (design["compound"] == "A").to_numpy()[:, None], design, "DMSO")
        for shift in (-1.0, 0.0, 1.0)
    ]
    both = with_estimation(effects, refits)
    np.testing.assert_allclose(both.estimation_se[1], 1.0)
    se, df = both.standard_error("total")
    np.testing.assert_allclose(se[1] ** 2, effects.se[1] ** 2 + 1.0, rtol=1e-12)
    expected = (effects.se[1] ** 2 + 1) ** 2 / (effects.se[1] ** 4 / 23 + 1 / 2)  # Welch-Satterthwaite
    np.testing.assert_allclose(df[1], expected, rtol=1e-12)
    width = {c: np.ptp(both.intervals(covers=c)[1], axis=-1) for c in ("draws", "estimation", "total")}
    np.testing.assert_allclose(width["estimation"], 2 * stats.t.ppf(0.975, 2), rtol=1e-12)
    assert (width["total"] > width["draws"]).all()
    assert set(both.to_frame(covers="total")["covers"]) == {"total"}


def test_what_would_break_the_pairing_is_refused(contexts):
    values, design = made_up(contexts, n=3)
    with pytest.raises(UnpairedDraws, match="1 draws have no row of the control 'DMSO', the first is draw 0"):
        contrast(values[1:], design.iloc[1:], "DMSO")
    with pytest.raises(UnpairedDraws, match="occurs twice"):
        contrast(np.vstack([values, values]), pd.concat([design, design]), "DMSO")
    with pytest.raises(GuidedSamples, match="expected 1"):
        contrast(values, design.assign(guidance=2.0), "DMSO")
    accumulator = EffectsAccumulator(NAMES, "DMSO")
    accumulator.update(values, design)
    with pytest.raises(UnpairedDraws, match="expected draws of one design"):
        accumulator.update(*made_up(contexts, "sobol", n=3))
