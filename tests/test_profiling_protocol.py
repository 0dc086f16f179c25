"""The scoring protocol: counts after each rule, disjoint folds, signal against shuffled labels, and the CPJUMP1
plates."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.metrics import map_per_sample
from profiling.profiles import InvalidProfiles, Profiles, aggregate, concatenate
from profiling.protocol import (
    ProtocolConfig,
    annotate,
    choose_references,
    for_targets,
    label_sets,
    match_key,
    nearest_reference,
    score,
    score_folds,
)
from profiling.tables import read_profiles

FAST = ProtocolConfig(label_key="key", profile_key="key", match="exact", folds=2, permutations=50, resamples=20)


def dataset(seed=0, labels=5, per=12, k=60, signal=1.0):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(labels, k))
    label = np.repeat(np.arange(labels), per)
    values = signal * centre[label] + rng.normal(size=(len(label), k))
    keys = [f"K{i:03d}" for i in range(len(label))]
    meta = pd.DataFrame({"Metadata_key": keys, "Metadata_Seen": np.arange(len(label)) % 3 > 0})
    table = pd.DataFrame({"key": keys, "moa": [f"m{i}" for i in label]})
    return Profiles(meta, values, tuple(f"f{i}" for i in range(k))), table


def test_rules_are_counted():
    profiles, labels = dataset()
    labels.loc[0, "moa"] = "m0|m1"  # two labels
    labels.loc[[1, 2], "moa"] = ["", "rare"]  # none; a label of one compound
    twice = concatenate([profiles, profiles.rows([5])])
    made = annotate(twice, labels, FAST)
    assert made.funnel["rule"].tolist() == [
        "profiles", "with a label", "one a compound", "with a single label", "label with 10 compounds"
    ]  # fmt: skip
    assert made.funnel["compounds"].tolist() == [61, 60, 59, 58, 48]
    assert made.funnel["labels"].tolist() == [0, 6, 6, 6, 4]
    assert made.labels == ("m1", "m2", "m3", "m4")
    several = annotate(twice, labels, for_targets(FAST, "moa"))
    assert several.funnel["compounds"].tolist()[-1] == 58
    assert several.truth.sum() == 59


def test_folds_are_disjoint_written_down_and_repeatable():
    profiles, labels = dataset()
    report = score(profiles, labels, FAST)
    for _, fold in report.folds.groupby("fold"):
        assert fold["key"].is_unique
        assert (fold[fold["role"] == "reference"].groupby("labels").size() == 5).all()
        assert (fold["role"] == "query").sum() == 35
    first, second = (set(f.loc[f["role"] == "reference", "key"]) for _, f in report.folds.groupby("fold"))
    assert first != second
    again = score(profiles, labels, FAST)
    pd.testing.assert_frame_equal(report.metrics, again.metrics)


def test_signal_is_found_shuffled_labels_are_not_and_queries_are_never_looked_at():
    profiles, labels = dataset(signal=0.7)
    summary = score(profiles, labels, FAST).summary().set_index(["subset", "metric"])
    assert summary.loc[("all", "map_per_label"), "folds_beyond_chance"] == 2
    shuffled = labels.assign(moa=np.random.default_rng(1).permutation(labels["moa"]))
    null = score(profiles, shuffled, FAST).summary().set_index(["subset", "metric"])
    assert null.loc[("all", "roc_auc"), "value"] == pytest.approx(0.5, abs=0.12)
    data = annotate(profiles, labels, FAST)
    (chosen, scores), *_ = score_folds(data, FAST)[0]
    changed = data.profiles.values.copy()
    other = np.flatnonzero(~chosen)[3]
    changed[other] = 99.0 * np.random.default_rng(0).normal(size=changed.shape[1])
    moved = type(data)(data.profiles.with_values(changed), data.labels, data.truth, data.funnel)
    again = score_folds(moved, FAST)[0][0][1]
    np.testing.assert_allclose(np.delete(again, 3, axis=0), np.delete(scores, 3, axis=0), atol=1e-12)


def test_seen_and_unseen_are_reported_apart():
    profiles, labels = dataset()
    config = ProtocolConfig.from_mapping({**vars(FAST), "subset": "Seen"})
    metrics = score(profiles, labels, config).metrics
    counts = metrics[(metrics["metric"] == "roc_auc") & (metrics["fold"] == 0)].set_index("subset")["n_samples"]
    assert counts["Seen=True"] + counts["Seen=False"] == counts["all"] == 35


def test_references_are_shared_between_labels_of_one_compound():
    rng = np.random.default_rng(0)
    truth = rng.random((100, 30)) < 0.2
    chosen = choose_references(truth, 5, rng)
    assert (truth[chosen].sum(axis=0) >= 5).all()
    assert chosen.sum() < 60  # 150 if every label had its own


def test_keys_match_whole_or_by_the_first_block():
    keys = pd.Series(["AAAAAAAAAAAAAA-BBBBBBBBBB-N", None])
    assert match_key(keys, "inchikey14")[0] == "AAAAAAAAAAAAAA"
    assert match_key(keys, "inchikey")[0] == keys[0]
    assert match_key(keys, "exact").isna()[1]
    table = pd.DataFrame(
        {"InChIKey": ["AAAAAAAAAAAAAA-X", "AAAAAAAAAAAAAA-Y"], "moa": ["p|q", "r"], "target": ["t", ""]}
    )
    assert label_sets(table, ProtocolConfig(match="inchikey14")) == {"AAAAAAAAAAAAAA": {"p", "q", "r"}}
    both = ProtocolConfig(match="inchikey14", require=("target",))
    assert label_sets(table, both) == {"AAAAAAAAAAAAAA": {"p", "q"}}


def test_nearest_reference_takes_the_closest_of_each_label():
    truth = np.array([[True, False, False], [True, True, False]])
    got = nearest_reference(np.array([[0.2, 0.9], [0.5, 0.1]]), truth)
    np.testing.assert_array_equal(got, [[0.9, 0.9, np.nan], [0.5, 0.1, np.nan]])


def test_report_is_written(tmp_path):
    profiles, labels = dataset()
    score(profiles, labels, FAST).write(tmp_path / "out")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "confusion.csv", "folds.csv", "funnel.csv", "kept.csv", "labels.csv", "metrics.csv", "scores.parquet",
        "subprofiles_0", "subprofiles_1", "summary.csv",
    ]  # fmt: skip


def test_refusals():
    profiles, labels = dataset()
    with pytest.raises(InvalidProfiles, match="no label is left"):
        annotate(profiles, labels.assign(key="nobody"), FAST)
    with pytest.raises(InvalidProfiles, match="no columns"):
        annotate(profiles, labels.drop(columns="moa"), FAST)
    with pytest.raises(InvalidProfiles, match="unknown keys"):
        ProtocolConfig.from_mapping({"fold": 3})
    with pytest.raises(InvalidProfiles, match="match must be one of"):
        match_key(pd.Series(["a"]), "smiles")


def test_real_plates_score_above_chance(real_data: Path):
    """JUMP pilot, four plates, MoAs with three compounds: few, but real; replicates agree, MoAs a little."""
    folder = real_data / "cpjump1_profiles"
    tables = [read_profiles(f) for f in sorted(folder.glob("BR*.csv.gz"))]
    wells = concatenate([t.features(tables[0].names) for t in tables])
    treated = wells.rows(wells.meta["Metadata_pert_type"].to_numpy() == "trt")
    compounds = aggregate(treated, ["broad_sample", "InChIKey"])
    finite = ~np.isnan(compounds.values).any(axis=0)
    compounds = compounds.features([n for n, ok in zip(compounds.names, finite, strict=True) if ok])
    extra = pd.read_csv(
        real_data / "jump_target" / "JUMP-Target-1_compound_metadata_additional_annotations.tsv", sep="\t"
    )
    config = ProtocolConfig(
        label="moa_list", profile_key="broad_sample", label_key="broad_sample", match="exact", min_compounds=4,
        references=2, folds=3, permutations=200, resamples=50, agree=0.85,
    )  # fmt: skip
    data = annotate(compounds, extra, config)
    assert len(data.labels) >= 3
    folds, _ = score_folds(data, config)
    values = [map_per_sample(s, data.truth[~chosen]) for chosen, s in folds]
    assert len(values) == 3
    assert all(0 < v <= 1 for v in values)
