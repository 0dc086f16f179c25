"""Evaluation tasks of the papers against hand-made loops and worlds of known answer."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wasserstein_distance

from profiling.embedders.evaluate import (
    DoseTable,
    across_domains,
    activity_and_consistency,
    combinations_of,
    dose_curve,
    effect_sizes,
    linear_probe,
    multi_label_probe,
    rank_hits,
)
from profiling.embedders.evaluate.doses import combined, folds_of
from profiling.embedders.evaluate.hits import whitened
from profiling.profiles import InvalidProfiles, Profiles


def test_effects_are_distances_between_sets_of_distances() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(14, 3)) @ np.diag([3.0, 1.0, 0.5])
    values[10:] += 4.0
    treatment = np.array(["DMSO"] * 6 + ["near"] * 4 + ["far"] * 4, dtype=object)
    control = treatment == "DMSO"
    white = whitened(values, np.ones(14, dtype=bool))
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=1e-10)
    base = white[control]
    within = [np.linalg.norm(base[i] - base[j]) for i in range(6) for j in range(i)]
    names, effect = effect_sizes(values, treatment, control)
    assert names == ("far", "near")
    for name, value in zip(names, effect, strict=True):
        apart = [np.linalg.norm(x - y) for x in white[treatment == name] for y in base]
        np.testing.assert_allclose(value, wasserstein_distance(apart, within))
    assert effect[0] > effect[1]
    with pytest.raises(InvalidProfiles, match="expected at least 3"):
        effect_sizes(values, treatment, np.arange(14) < 2)


def test_hit_ranking_is_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(1)
    effect, hit = rng.normal(size=120), rng.random(120) < 0.2
    effect[hit] += 1.0
    pairs = [(a > b) + 0.5 * (a == b) for a in effect[hit] for b in effect[~hit]]
    found = rank_hits(effect, hit)
    np.testing.assert_allclose(found.auc, np.mean(pairs))
    first = np.argsort(-effect)[:50]
    np.testing.assert_allclose(found.recall_50, hit[first].sum() / hit.sum())
    assert found.chance_50 == pytest.approx(50 / 120)
    with pytest.raises(InvalidProfiles, match="some and not all"):
        rank_hits(effect, np.zeros(120, dtype=bool))


def wells(shift: float) -> tuple[Profiles, np.ndarray]:
    """Four compounds of two targets (two silent ones of a third), four wells each on two plates, twelve controls."""
    rng = np.random.default_rng(2)
    rows, values = [], []
    directions = {"T1": np.array([shift, 0, 0, 0, 0]), "T2": np.array([0, shift, 0, 0, 0]), "T3": np.zeros(5)}
    for plate in ("P1", "P2"):
        for target in ("T1", "T2", "T3"):
            for k in range(2):
                for _ in range(4):
                    rows.append((f"{target}c{k}", target, plate))
                    values.append(directions[target] + rng.normal(size=5))
        for _ in range(12):
            rows.append(("DMSO", None, plate))
            values.append(rng.normal(size=5))
    meta = pd.DataFrame(rows, columns=["Metadata_compound", "Metadata_moa", "Metadata_plate"])
    return Profiles(meta, np.array(values), tuple("abcde")), (meta["Metadata_compound"] == "DMSO").to_numpy()


def test_what_is_not_significant_counts_as_zero() -> None:
    table, controls = wells(8.0)
    found = activity_and_consistency(table, controls, np.random.default_rng(0), size=2000)
    by_name = found.compounds.set_index("compound")
    for target in ("T1", "T2"):
        assert by_name.loc[f"{target}c0", "counted"] == by_name.loc[f"{target}c0", "map"] > 0.9
    for name in ("T3c0", "T3c1"):
        assert by_name.loc[name, "p"] > 0.05
        assert by_name.loc[name, "counted"] == 0.0 < by_name.loc[name, "map"]
    assert found.activity == pytest.approx(by_name["counted"].mean())
    assert found.active == pytest.approx(4 / 6)
    # a target none of whose compounds is active is there, as 0
    assert list(found.targets["target"]) == ["T1", "T2", "T3"]
    assert float(found.targets.set_index("target").loc["T3", "map"]) == 0.0
    silent = activity_and_consistency(*wells(0.0), np.random.default_rng(0), size=2000)
    assert silent.activity < 0.2
    assert silent.consistency == 0.0


def test_probes_read_what_is_linear_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    words = np.array(["a", "b", "c"], dtype=object)[np.arange(300) % 3]
    x = rng.normal(size=(300, 6))
    x[:, 0] += 3 * (words == "a")
    x[:, 1] += 3 * (words == "b")
    good = linear_probe(x[:150], words[:150], x[150:], words[150:])
    assert good.accuracy > 0.85
    assert good.chance == pytest.approx(1 / 3)
    assert linear_probe(x[:150], rng.permutation(words[:150]), x[150:], words[150:]).accuracy < 0.5
    two = words != "c"
    both = linear_probe(x[:150][two[:150]], words[:150][two[:150]], x[150:][two[150:]], words[150:][two[150:]])
    assert both.auc > 0.95
    domain = np.array(["one", "two"], dtype=object)[np.arange(300) // 150]
    shifted = x.copy()
    shifted[150:, :2] = shifted[150:, 1::-1]  # the other site has the two directions the other way round
    assert across_domains(x, words, domain)["one", "two"].accuracy == good.accuracy
    assert across_domains(shifted, words, domain)["one", "two"].accuracy < 0.5
    with pytest.raises(InvalidProfiles, match="one class only"):
        linear_probe(x, np.full(300, "a", dtype=object), x, words)


def test_a_perceptron_names_several_labels_a_row() -> None:
    """Two labels are linear; the third is the sign of a product, which no linear probe reads."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1500, 6))
    truth = np.stack([x[:, 0] > 0.5, x[:, 1] + x[:, 2] > 1.0, x[:, 3] * x[:, 4] > 0], axis=1)
    parts = x[:1000], truth[:1000], x[1000:], truth[1000:]
    linear = multi_label_probe(*parts, hidden=0)
    deep = multi_label_probe(*parts, hidden=64, epochs=60)
    assert linear.chance == pytest.approx(truth[1000:].mean())
    assert deep.macro > 0.9 > linear.macro > linear.chance + 0.3
    none = multi_label_probe(parts[0], parts[1][rng.permutation(1000)], parts[2], parts[3], hidden=0)
    assert none.macro < linear.chance + 0.15


def doses_world(seed: int = 5) -> DoseTable:
    """Six mechanisms of five compounds; a compound acts from its own dose on, at two times."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).normal(size=(6, 10)) * 1.2
    rows, values = [], []
    for compound in range(30):
        threshold = compound % 3
        for level, dose in enumerate((0.5, 2.5, 10.0)):
            for hours in (4.0, 20.0):
                active = level >= threshold
                for _ in range(3):
                    rows.append((f"C{compound}", f"M{compound % 6}", dose, hours, 1.0 if active else 0.0))
                    values.append(rng.normal(size=10) + (directions[compound % 6] if active else 0.0))
    return DoseTable(np.array(values), pd.DataFrame(rows, columns=["compound", "moa", "dose", "hours", "weight"]))


def test_combined_softmax_is_a_weighted_mean() -> None:
    table = pd.DataFrame(
        {"compound": ["A", "A", "B"], "dose": [1.0, 2.0, 1.0], "hours": 4.0, "weight": [1.0, 3.0, 2.0]}
    )
    said = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    names, share = combined(table, said, (1.0, 2.0))
    assert names == ("A", "B")
    np.testing.assert_allclose(share, [[(0.8 + 3 * 0.4) / 4, (0.2 + 3 * 0.6) / 4], [0.1, 0.9]])
    assert combined(table, said, (2.0,))[0] == ("A",)


def test_doses_added_one_at_a_time_name_more_compounds() -> None:
    curve = dose_curve(doses_world())
    assert list(curve["added"]) == [10.0, 2.5, 0.5]
    assert (curve["accuracy"] > 0.6).all()
    assert (curve["chance"] <= 0.21).all()
    low_first = dose_curve(doses_world(), highest_first=False)
    assert list(low_first["compounds"]) == [10, 20, 30]  # a compound counts once it is active
    table = doses_world()
    assert dose_curve(DoseTable(table.values, table.rows.assign(weight=0.0))).empty
    held = dose_curve(doses_world(), held=doses_world(seed=9))
    assert held["accuracy"].iloc[-1] > 0.8
    with pytest.raises(InvalidProfiles, match="weight"):
        DoseTable(np.zeros((2, 2)), pd.DataFrame({"compound": ["A", "B"], "moa": "M", "dose": 1.0, "hours": 1.0}))


def test_folds_keep_compounds_whole_and_mechanisms_spread() -> None:
    compounds = np.repeat([f"C{i}" for i in range(20)], 3)
    moa = np.repeat([f"M{i % 4}" for i in range(20)], 3)
    fold = folds_of(compounds, moa, 5, np.random.default_rng(0))
    assert all(len(set(fold[compounds == c])) == 1 for c in compounds)
    for m in set(moa):
        assert sorted(fold[moa == m]) == sorted(list(range(5)) * 3)


def test_channel_combinations() -> None:
    every = combinations_of(("A", "B", "C"))
    assert every == (("A", "B"), ("A", "C"), ("B", "C"), ("A",), ("B",), ("C",))
    assert combinations_of(("A", "B", "C"), always=("C",)) == (("A", "C"), ("B", "C"))
    some = combinations_of(("A", "B", "C", "D"), most=3, rng=np.random.default_rng(1))
    assert len(some) == 3
    assert set(some) <= set(combinations_of(("A", "B", "C", "D")))
