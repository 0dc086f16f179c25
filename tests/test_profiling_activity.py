"""Activity and enrichment: by hand, and against worlds in which the answer is known."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from profiling.activity import (
    EffectSizeConfig,
    beyond_count,
    cohesion,
    count_activity,
    map_effect_size,
    percent_active,
)
from profiling.enrichment import enrichment, folds_of_enrichment
from profiling.profiles import InvalidProfiles
from profiling.retrieval import unit_rows


def test_folds_of_enrichment_equal_the_table_by_hand():
    rng = np.random.default_rng(0)
    label = np.arange(60) % 6
    match = label[:, None] == label[None, :]
    similarity = rng.normal(size=(60, 60)) + 0.8 * match
    got = folds_of_enrichment(similarity, match, top=0.1).set_index("query")
    i = 17
    others = np.arange(60) != i
    s, m = similarity[i, others], match[i, others]
    above = s > np.percentile(s, 90)
    table = [[(above & m).sum(), (above & ~m).sum()], [(~above & m).sum(), (~above & ~m).sum()]]
    want = fisher_exact(table, alternative="greater")
    assert got.loc[i, "odds_ratio"] == pytest.approx(want[0])
    assert got.loc[i, "p"] == pytest.approx(want[1])
    assert got["odds_ratio"].mean() > 2


def test_an_infinite_ratio_is_replaced_and_said():
    similarity = np.array([[0.0, 9.0, 1.0, 2.0, 3.0]] * 5)
    match = np.zeros((5, 5), dtype=bool)
    match[0, 1] = match[1, 0] = True
    got = folds_of_enrichment(similarity, match, top=0.3)
    assert got["query"].tolist() == [0, 1]
    assert got.loc[0, "infinite"]
    assert got.loc[0, "odds_ratio"] == 3.0


def test_mean_enrichment_is_that_of_the_queries_and_shuffled_labels_give_about_one():
    rng = np.random.default_rng(2)
    label = np.arange(80) % 8
    match = label[:, None] == label[None, :]
    similarity = rng.normal(size=(80, 80))
    signal = similarity + 1.0 * match
    made = enrichment(signal, match, rng, top=0.1, permutations=99, resamples=99)
    each = folds_of_enrichment(signal, match, top=0.1)["odds_ratio"]
    assert made.value == pytest.approx(each.mean())
    assert made.low < made.value < made.high
    assert made.p == 0.01
    none = enrichment(similarity, match, rng, top=0.1, permutations=199, resamples=9)
    assert none.p > 0.05
    assert abs(none.value - none.chance) < 0.6
    with pytest.raises(InvalidProfiles, match="no query has both"):
        enrichment(similarity, np.zeros((80, 80), dtype=bool), rng)


def test_percent_active_of_a_mixture():
    rng = np.random.default_rng(3)
    p = np.concatenate([np.full(30, 1e-6), rng.random(70)])
    made = percent_active(p, rng, resamples=200)
    assert 0.3 <= made.value < 0.36
    assert made.low < 0.3 < made.high
    assert made.chance < 0.01  # a false discovery rate of 5 % finds hardly any where there is none
    with pytest.raises(InvalidProfiles, match="NaN"):
        percent_active(np.array([0.1, np.nan]), rng)


def wells(effect, seed=0, plates=6, k=15):
    rng = np.random.default_rng(seed)
    rows = [(f"p{j}", f"r{j // 2}", c) for j in range(plates) for c in ["DMSO"] * 16 + ["active"] * 2 + ["idle"] * 2]
    plate, replicate, compound = (np.array(x, dtype=object) for x in zip(*rows, strict=True))
    shift = {p: rng.normal(size=k) for p in sorted(set(plate))}
    direction = rng.normal(size=k)
    values = rng.normal(size=(len(rows), k)) + 0.5 * np.stack([shift[p] for p in plate])
    values[compound == "active"] += effect * direction
    return unit_rows(values), compound, plate, replicate


def test_effect_size_finds_the_active_compound_only():
    unit, compound, plate, replicate = wells(1.5)
    config = EffectSizeConfig(samples=300, pseudo=19, resamples=10, resampled=60)
    control = compound == "DMSO"
    made = map_effect_size(unit, compound, plate, replicate, control, np.random.default_rng(0), config)
    made = made.set_index("treatment")
    assert made.loc["active", "active"]
    assert made.loc["active", "effect_size"] > 1.5
    assert not made.loc["idle", "active"]
    assert abs(made.loc["idle", "effect_size"]) < 0.5
    assert made.loc["active", "p"] == 1 / 20
    assert made.loc["idle", "p"] > 0.05
    assert (abs(made["chance"]) < 0.5).all()
    assert made.loc["active", "low"] > made.loc["idle", "high"]
    again = map_effect_size(unit, compound, plate, replicate, control, np.random.default_rng(0), config)
    assert again.equals(made.reset_index())


def test_effect_size_without_positives_elsewhere_is_nan():
    unit, compound, plate, replicate = wells(1.0)
    lonely = compound.copy()
    lonely[(compound == "idle") & (plate != "p0")] = "active"
    config = EffectSizeConfig(samples=20, pseudo=2, resamples=2, resampled=5)
    made = map_effect_size(unit, lonely, plate, replicate, lonely == "DMSO", np.random.default_rng(0), config)
    row = made.set_index("treatment").loc["idle"]
    assert np.isnan(row["effect_size"])
    assert row["n_samples"] == 0
    single = np.arange(len(unit)) == 0
    with pytest.raises(InvalidProfiles, match="no DMSO well"):
        map_effect_size(unit, compound, plate, replicate, single, np.random.default_rng(0), config)


def test_count_activity_asks_for_an_interval_below_zero():
    rng = np.random.default_rng(1)
    z = np.concatenate([rng.normal(-2, 0.5, 12), rng.normal(0, 1, 12), rng.normal(2, 0.5, 12)])
    made = count_activity(z, ["toxic"] * 12 + ["idle"] * 12 + ["growth"] * 12, rng).set_index("treatment")
    assert made["active"].to_dict() == {"toxic": True, "idle": False, "growth": False}
    assert made.loc["toxic", "median"] == pytest.approx(np.median(z[:12]))
    assert made.loc["toxic", "p"] == 1 / 1001
    assert made.loc["growth", "p"] == 1.0
    profile = made.reset_index()[["treatment"]].assign(active=[True, True, False])  # in the order growth, idle, toxic
    table = beyond_count(profile, made.reset_index())
    assert table["treatments"].tolist() == [0, 2, 1, 0]
    assert table["share"].sum() == pytest.approx(1.0)
    with pytest.raises(InvalidProfiles, match="other treatments"):
        beyond_count(profile.head(2), made.reset_index())


def test_imad_by_hand_and_never_alone():
    made = cohesion(np.array([[0.0], [2.0], [6.0]]), replicate_map=0.4)  # distances 2, 6, 4: median 4, MAD 2
    assert (made.imad, made.replicate_map) == (0.5, 0.4)
    assert cohesion(np.zeros((4, 2)), 0.0).imad == np.inf
