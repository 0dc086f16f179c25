"""Sub-profiles and Biosimilarity: the published numbers, naive loops, and what noise would give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.profiles import InvalidProfiles
from profiling.subprofile import (
    SubProfiles,
    agreeing,
    biosimilarity,
    build,
    expected_share,
    overlap,
    permuted_features_kept,
    rank_labels,
)

NAMES = [f"f{i}" for i in range(40)]


def naive_build(values, convention, agree):
    kept = {}
    for j in range(values.shape[1]):
        if convention == "reference":
            plus, minus = sum(x >= 0 for x in values[:, j]), sum(x < 0 for x in values[:, j])
            keep = max(plus, minus) / len(values) >= agree
        else:
            plus, minus = sum(x > 0 for x in values[:, j]), sum(x < 0 for x in values[:, j])
            keep = max(plus, minus) / len(values) > agree
        if keep:
            kept[j] = float(np.median(values[:, j]))
    return kept


def world(rng, n=60, k=40, labels=4):
    label = np.arange(n) % labels
    centre = rng.normal(size=(labels, k))
    return centre[label] + 0.7 * rng.normal(size=(n, k)) + 3.0, [f"moa{i}" for i in label]


def made(rng, **options):
    values, labels = world(rng)
    return values - 3.0, build(values - 3.0, labels, NAMES, **options)


@pytest.mark.parametrize("convention", ["paper", "reference"])
def test_build_equals_the_naive_loop(convention):
    rng = np.random.default_rng(1)
    values, labels = world(rng)
    values = np.round(values - 3.0, 0) * 20  # many exact zeros, and values beyond the clip
    sub = build(values, labels, NAMES, convention=convention)
    for i, label in enumerate(sub.labels):
        kept = naive_build(values[np.array(labels) == label], convention, 0.85)
        assert set(np.flatnonzero(sub.mask[i])) == set(kept)
        for j, value in kept.items():
            assert sub.values[i, j] == value


def test_conventions_differ_exactly_at_the_threshold_and_at_zero():
    twenty = np.ones((20, 2))
    twenty[:3, 0] = -1.0  # 17 of 20 = 85 % agree
    twenty[:4, 1] = -1.0  # 16 of 20 = 80 %
    assert agreeing(twenty, "reference").tolist() == [True, False]
    assert agreeing(twenty, "paper").tolist() == [False, False]
    zero = np.array([[1.0], [1.0], [1.0], [1.0], [0.0]])
    assert agreeing(zero, "reference").tolist() == [True]
    assert agreeing(zero, "paper").tolist() == [False]


@pytest.mark.parametrize("convention", ["paper", "reference"])
def test_biosimilarity_equals_corrcoef_label_by_label(convention):
    rng = np.random.default_rng(2)
    _values, sub = made(rng, convention=convention)
    sub = replace(sub, values=40 * sub.values)  # beyond the clip on both sides
    queries = 30 * rng.normal(size=(25, 40)) + (100.0 if convention == "paper" else 3.0)
    got = biosimilarity(queries, sub)
    for i in range(25):
        for j in range(len(sub.labels)):
            u, v = queries[i, sub.mask[j]], sub.values[j, sub.mask[j]]
            if convention == "reference":
                u, v = np.clip(u, -25, 25), np.clip(v, -25, 25)
                want = 100 * max(0.0, np.corrcoef(u, v)[0, 1])
            else:
                want = np.corrcoef(u, v)[0, 1]
            np.testing.assert_allclose(got[i, j], want, atol=1e-10)


def test_missing_values_are_refused_or_left_out_pairwise():
    rng = np.random.default_rng(3)
    _values, sub = made(rng)
    queries = rng.normal(size=(12, 40)) + 7.0
    queries[rng.random((12, 40)) < 0.2] = np.nan
    with pytest.raises(InvalidProfiles, match="12 of 12 have NaN"):
        biosimilarity(queries, sub)
    got = biosimilarity(queries, sub, missing="pairwise")
    for i in range(12):
        for j in range(len(sub.labels)):
            both = sub.mask[j] & ~np.isnan(queries[i])
            np.testing.assert_allclose(got[i, j], np.corrcoef(queries[i, both], sub.values[j, both])[0, 1], atol=1e-10)


def test_nothing_that_does_not_vary_gets_a_number():
    rng = np.random.default_rng(4)
    _, sub = made(rng)
    assert np.isnan(biosimilarity(np.full((1, 40), 0.1), sub)).all()
    assert np.isnan(biosimilarity(np.full(40, 1e6 + 0.1), sub)).all()


def test_a_label_with_too_few_references_gives_no_call():
    rng = np.random.default_rng(5)
    values = rng.normal(size=(12, 40)) + 2.0
    sub = build(values, ["rare"] * 4 + ["well known"] * 8, NAMES)
    assert sub.n_references.tolist() == [4, 8]
    assert sub.n_features[0] == 0
    assert sub.n_features[1] > 0
    scores = biosimilarity(values, sub)
    assert np.isnan(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1]).all()
    assert sub.summary()["called"].tolist() == [False, True]


@pytest.mark.parametrize("convention", ["paper", "reference"])
def test_few_profiles_read_the_kept_features_only_and_equal_corrcoef(convention):
    rng = np.random.default_rng(12)
    _values, sub = made(rng, convention=convention)
    sub = replace(sub, values=np.vstack([40 * sub.values[:-1], np.ones((1, 40))]))  # beyond the clip; the last is flat
    sub = replace(sub, mask=np.vstack([sub.mask[:1] & False, sub.mask[1:]]))  # the first keeps nothing
    queries = np.vstack([30 * rng.normal(size=(2, 40)) + 100.0 * (convention == "paper"), np.full(40, 1e6 + 0.1)])
    got, crowd = biosimilarity(queries, sub), biosimilarity(np.repeat(queries, 5, axis=0), sub)[::5]
    np.testing.assert_allclose(got, crowd, rtol=0, atol=1e-11 if convention == "paper" else 1e-9)
    assert np.isnan(got[:, [0, -1]]).all()
    assert np.isnan(got[2]).all()
    clip = np.inf if convention == "paper" else 25
    for j in range(1, len(sub.labels) - 1):
        u, v = np.clip(queries[0, sub.mask[j]], -clip, clip), np.clip(sub.values[j, sub.mask[j]], -clip, clip)
        r = np.corrcoef(u, v)[0, 1]
        assert got[0, j] == pytest.approx(r if convention == "paper" else 100 * max(0.0, r), abs=1e-9)


def test_one_profile_gives_the_same_numbers_as_in_a_crowd():
    rng = np.random.default_rng(6)
    values, sub = made(rng)
    np.testing.assert_allclose(biosimilarity(values[7], sub)[0], biosimilarity(values, sub)[7], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("n", "convention", "share"),
    [
        (5, "paper", 2 / 32),
        (5, "reference", 2 / 32),
        (6, "paper", 2 / 64),
        (7, "paper", 16 / 128),
        (20, "reference", None),
    ],
)
def test_share_kept_by_noise(n, convention, share):
    rng = np.random.default_rng(7)
    empirical = agreeing(rng.normal(size=(n, 200_000)), convention).mean()
    exact = expected_share(n, convention)
    assert share is None or exact == pytest.approx(share, abs=1e-15)
    assert abs(empirical - exact) < 5 * np.sqrt(exact * (1 - exact) / 200_000)


def test_permutation_null_agrees_with_the_exact_one_for_noise_and_exceeds_it_for_a_shared_direction():
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(400, 300))
    kept = permuted_features_kept(noise, 5, np.random.default_rng(0), permutations=400)
    assert abs(kept.mean() / 300 - 0.0625) < 0.006
    shared = permuted_features_kept(noise + 0.8, 5, np.random.default_rng(0), permutations=50)
    assert shared.mean() / 300 > 0.2


def test_round_trip_through_parquet(tmp_path):
    rng = np.random.default_rng(9)
    values, sub = made(rng, convention="reference")
    sub.write(tmp_path / "subprofiles.parquet")
    back = SubProfiles.read(tmp_path / "subprofiles.parquet")
    assert (back.labels, back.names, back.convention, back.min_references) == (sub.labels, sub.names, "reference", 5)
    assert np.array_equal(back.mask, sub.mask)
    assert np.array_equal(back.values, sub.values)
    assert np.array_equal(biosimilarity(values, back), biosimilarity(values, sub))


def test_overlap():
    values = np.array([[1.0, 2.0, 3.0, 0.0], [0.0, 1.0, 3.0, 5.0]])
    mask = np.array([[True, True, True, False], [False, True, True, True]])
    sub = SubProfiles(("a", "b"), ("w", "x", "y", "z"), values, mask, np.array([5, 5]))
    jaccard, correlation = overlap(sub)
    np.testing.assert_allclose(jaccard, [[1, 0.5], [0.5, 1]])
    np.testing.assert_allclose(correlation, [[1, 1], [1, 1]])


def test_rank_labels_puts_no_call_last_and_breaks_ties_by_name():
    assert rank_labels(np.array([0.5, np.nan, 0.9, 0.5]), ["b", "x", "c", "a"]) == [2, 3, 0, 1]


def test_refusals():
    with pytest.raises(InvalidProfiles, match="convention must be one of"):
        build(np.ones((5, 2)), ["a"] * 5, ["x", "y"], convention="mine")
    with pytest.raises(InvalidProfiles, match="no row has one"):
        build(np.ones((5, 2)), [None] * 5, ["x", "y"])
    with pytest.raises(InvalidProfiles, match="3 features, the sub-profiles 40"):
        biosimilarity(np.ones((1, 3)), made(np.random.default_rng(0))[1])


def test_published_biosimilarities_to_the_digit(real_data: Path):
    """549 compounds x 13 clusters: difference 0.0 for 12; Pyrimidine_Synth's published median is of another version."""
    folder = real_data / "subprofile_reference"
    table = pd.read_csv(folder / "dcm_profiles_run1.tsv.gz", sep="\t")
    files = sorted(folder.glob("med_prof_*.tsv"))
    labels = [f.stem.removeprefix("med_prof_") for f in files]
    names = [c for c in table.columns if c.startswith(("Median_Cells", "Median_Cytoplasm", "Median_Nuclei"))]
    assert len(names) == 579
    assert len(labels) == 13
    assert len(table) == 549
    values, mask = np.zeros((13, 579)), np.zeros((13, 579), dtype=bool)
    for i, (label, file) in enumerate(zip(labels, files, strict=True)):
        median = pd.read_csv(file, sep="\t")
        kept = (folder / f"parms_{label}_0.85.txt").read_text().split()
        at = [names.index(name) for name in kept]
        mask[i, at], values[i, at] = True, median[kept].to_numpy()[0]
    sub = SubProfiles(tuple(labels), tuple(names), values, mask, np.full(13, 20), convention="reference")
    published = table[[f"Cluster_{label}" for label in labels]].to_numpy()
    difference = np.abs(np.round(biosimilarity(table[names].to_numpy(dtype=np.float64), sub), 1) - published).max(
        axis=0
    )
    off = {label: round(d, 1) for label, d in zip(labels, difference.tolist(), strict=True) if d > 1e-9}
    assert off == {"Pyrimidine_Synth": 5.8}
