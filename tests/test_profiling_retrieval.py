"""Retrieval by declared pairs: equality with copairs, exact nulls, and p-values that agree with it."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from copairs.compute import random_ap
from copairs.map import average_precision as copairs_ap
from copairs.map import mean_average_precision as copairs_map
from copairs.map.multilabel import average_precision as copairs_several

from profiling.chance import EXACT_LIMIT, null_mean_precision, null_precision, random_ranks
from profiling.metrics import expected_average_precision
from profiling.profiles import InvalidProfiles, Profiles
from profiling.retrieval import (
    Pairing,
    average_precisions,
    mean_average_precision,
    query_p,
    unit_rows,
)


def screen(seed=0, compounds=12, plates=4, k=20, signal=1.0):
    rng = np.random.default_rng(seed)
    meta = pd.DataFrame([(f"c{i}", f"p{j}") for i in range(compounds) for j in range(plates)])
    meta.columns = ["Metadata_compound", "Metadata_Plate"]
    meta["Metadata_moa"] = [f"m{int(c[1:]) % 4}" for c in meta["Metadata_compound"]]
    centre = {c: rng.normal(size=k) for c in sorted(set(meta["Metadata_compound"]))}
    values = signal * np.stack([centre[c] for c in meta["Metadata_compound"]]) + rng.normal(size=(len(meta), k))
    return Profiles(meta, values, tuple(f"f{i}" for i in range(k)))


PAIRINGS = {
    "replicates": Pairing(("compound",), (), (), ("compound",)),
    "replicates across plates": Pairing(("compound",), ("Plate",), (), ("compound",)),
    "same plate negatives": Pairing(("compound",), ("Plate",), ("Plate",), ("compound",)),
    "moa, not the compound": Pairing(("moa",), ("compound",), (), ("moa",)),
    "moa, other compound and plate": Pairing(("moa",), ("compound", "Plate"), ("Plate",), ("moa",)),
}


def full(columns):
    return [f"Metadata_{c}" for c in columns]


def oracle(p, pairing, distance="cosine"):
    columns = [full(c) for c in (pairing.pos_sameby, pairing.pos_diffby, pairing.neg_sameby, pairing.neg_diffby)]
    return copairs_ap(p.meta, p.values, *columns, distance=distance, progress_bar=False)


@pytest.mark.parametrize("similarity", ["cosine", "correlation"])
@pytest.mark.parametrize("name", sorted(PAIRINGS))
def test_average_precision_equals_copairs(name, similarity):
    p = screen(1)
    got = average_precisions(p, PAIRINGS[name], similarity)
    want = oracle(p, PAIRINGS[name], similarity).loc[got["Metadata_Query"]]
    np.testing.assert_allclose(got["average_precision"], want["average_precision"], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(got["n_positives"], want["n_pos_pairs"])
    np.testing.assert_array_equal(got["n_total"], want["n_total_pairs"])
    np.testing.assert_allclose(got["normalised"], want["normalized_average_precision"], atol=1e-9)


def test_chunks_and_the_choice_of_queries_change_nothing(monkeypatch):
    p = screen(2)
    whole = average_precisions(p, PAIRINGS["replicates"])
    monkeypatch.setattr("profiling.retrieval.CHUNK_ELEMENTS", 100)
    some = np.arange(len(p)) % 3 == 0
    part = average_precisions(p, PAIRINGS["replicates"], queries=some)
    want = whole[whole["Metadata_Query"].isin(np.flatnonzero(some))]
    np.testing.assert_allclose(part["average_precision"], want["average_precision"], atol=1e-12)


def test_a_positive_is_never_a_negative_too():
    p = screen(2)
    everybody_else = average_precisions(p, Pairing(("compound",)))
    pd.testing.assert_frame_equal(everybody_else, average_precisions(p, PAIRINGS["replicates"]))


def test_several_labels_match_where_one_is_shared():
    p = screen(3)
    several = p.meta.assign(Metadata_target=["a|b" if i % 3 else "b|c" if i % 2 else "d" for i in range(len(p))])
    p = Profiles(several, p.values, p.names)
    pairing = Pairing(("target",), (), (), ("target",), several=("target",))
    got = average_precisions(p, pairing)
    sets = [set(t.split("|")) for t in several["Metadata_target"]]
    i = int(got["Metadata_Query"][5])
    share = [j for j in range(len(p)) if j != i and sets[i] & sets[j]]
    assert got["n_positives"][5] == len(share)
    assert got["n_total"][5] == len(p) - 1
    one = Profiles(p.meta.assign(Metadata_target=[list(s) for s in sets]), p.values, p.names)
    want = copairs_several(
        one.meta, one.values, ["Metadata_target"], [], [], ["Metadata_target"], "Metadata_target", progress_bar=False
    )
    only_d = want[want["Metadata_target"] == "d"]["average_precision"].to_numpy()
    np.testing.assert_allclose(got.loc[several["Metadata_target"] == "d", "average_precision"], only_d, atol=1e-6)


def test_negatives_may_be_limited_to_controls_and_missing_labels_are_nobody():
    p = screen(4)
    dmso = p.column("compound") == "c0"
    got = average_precisions(p, PAIRINGS["replicates"], queries=~dmso, negatives=dmso)
    assert (got["n_total"] - got["n_positives"] == 4).all()
    gaps = Profiles(
        p.meta.assign(Metadata_moa=p.meta["Metadata_moa"].where(p.column("moa") != "m1")), p.values, p.names
    )
    table = average_precisions(gaps, PAIRINGS["moa, not the compound"])
    assert table["Metadata_moa"].notna().all()
    assert (table["n_total"] == 8 + 24).all()


def test_ties_are_one_threshold():
    meta = pd.DataFrame({"Metadata_compound": ["a", "a", "b", "c"]})
    values = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    got = average_precisions(Profiles(meta, values, ("x", "y")), PAIRINGS["replicates"])
    assert got["average_precision"].tolist() == [0.5, 1 / 3]


@pytest.mark.parametrize(("m", "total"), [(1, 26), (2, 9), (3, 12), (4, 8)])
def test_exact_null_is_all_rankings(m, total):
    null = null_precision(m, total, 10, np.random.default_rng(0))
    assert null.exact
    assert null.values.mean() == pytest.approx(expected_average_precision(np.array([m]), total)[0], abs=1e-12)
    assert null.p(np.array([1.0]))[0] == pytest.approx(1 / len(null.values))
    assert null.p(np.array([0.0]))[0] == 1.0


@pytest.mark.parametrize(("m", "total"), [(3, 400), (30, 200)])
def test_sampled_null_is_that_of_copairs(m, total):
    null = null_precision(m, total, 4000, np.random.default_rng(0))
    assert not null.exact
    theirs = random_ap(4000, m, total, 1)
    for level in (0.5, 0.9, 0.99):
        cut = np.quantile(theirs, level)
        p = null.p(np.array([cut]))[0]
        assert abs(p - (1 - level)) < 5 * np.sqrt(2 * level * (1 - level) / 4000)
    ranks = random_ranks(m, total, 500, np.random.default_rng(2))
    assert (np.diff(ranks, axis=1) > 0).all()
    assert ranks.min() >= 1
    assert ranks.max() <= total


def test_p_of_groups_agrees_with_copairs_within_three_standard_errors(tmp_path):
    p = screen(5, signal=0.35)
    table = average_precisions(p, PAIRINGS["replicates across plates"])
    got = mean_average_precision(table, ["compound"], np.random.default_rng(0), size=4000)
    theirs = copairs_map(
        oracle(p, PAIRINGS["replicates across plates"]),
        ["Metadata_compound"],
        null_size=4000,
        threshold=0.05,
        seed=0,
        progress_bar=False,
        cache_dir=tmp_path,
    )
    np.testing.assert_allclose(got["map"], theirs["mean_average_precision"], atol=1e-9)
    want = theirs["p_value"].to_numpy()
    error = np.sqrt(2 * np.maximum(want * (1 - want), 1 / 4000) / 4000)
    assert (np.abs(got["p"] - want) <= 3 * error).all()
    assert ((got["p"] > 0.05) & (got["p"] < 0.95)).any()


def test_sharing_the_ranking_is_the_safer_null():
    shapes = [(3, 40)] * 4
    together = null_mean_precision(shapes, 2000, np.random.default_rng(0))
    apart = null_mean_precision(shapes, 2000, np.random.default_rng(0), shared=False)
    assert apart.values.std() < 0.6 * together.values.std()
    assert apart.values.mean() == pytest.approx(together.values.mean(), abs=0.01)


def test_query_p_is_uniform_for_noise():
    below = []
    for seed in range(8):
        table = average_precisions(screen(seed, compounds=40, signal=0.0), PAIRINGS["replicates"])
        assert comb(int(table["n_total"][0]), int(table["n_positives"][0])) > EXACT_LIMIT
        below.append((query_p(table, np.random.default_rng(seed), size=1000) <= 0.2).mean())
    assert abs(np.mean(below) - 0.2) < 4 * 0.047 / np.sqrt(8)  # 0.047: spread between such screens, over 30 of them


def test_refusals():
    p = screen(7)
    with pytest.raises(InvalidProfiles, match="no column 'Metadata_Batch'"):
        average_precisions(p, Pairing(("Batch",)))
    with pytest.raises(InvalidProfiles, match="no query has both"):
        average_precisions(p, Pairing(("compound", "Plate"), (), (), ("compound",)))
    with pytest.raises(InvalidProfiles, match="1 NaN"):
        unit_rows(np.array([[np.nan, 1.0]]))
    with pytest.raises(InvalidProfiles, match="no direction"):
        unit_rows(np.zeros((1, 3)))
    with pytest.raises(InvalidProfiles, match="similarity must be"):
        unit_rows(np.ones((1, 3)), "euclid")
