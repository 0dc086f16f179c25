"""Leiden finds planted communities; the scorecard's chance, p and intervals are those of its words."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from profiling.mixing import ScorecardConfig, leiden_clusters, neighbours, scorecard, silhouette_batch


def groups(n=240, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    label = np.arange(n) % labels
    return 7.0 * np.eye(labels)[label] + rng.normal(size=(n, labels)), label, rng.integers(0, 2, n)


def test_leiden_finds_planted_communities_and_more_of_them_at_a_higher_resolution():
    values, label, _ = groups()
    near, _ = neighbours(values, 15)
    found = leiden_clusters(near, 0)
    assert adjusted_rand_score(label, found) > 0.99
    np.testing.assert_array_equal(found, leiden_clusters(near, 0))
    assert len(set(leiden_clusters(near, 0, 8.0))) > len(set(found))


def test_every_metric_has_chance_p_interval_and_q():
    values, label, batch = groups()
    config = ScorecardConfig(neighbours=20, permutations=39, resamples=30)
    table = scorecard(values, batch, label, np.random.default_rng(1), config).set_index("metric")
    assert set(table.index) == {
        "kbet", "lisi_batch", "silhouette_batch", "graph_connectivity", "lisi_label", "silhouette_label",
        "leiden_ari", "leiden_nmi", "kmeans_ari", "kmeans_nmi",
    }  # fmt: skip
    labels = table[table["kind"] == "label"]
    assert (labels["p"] == 1 / 40).all()  # better than every shuffle
    assert (labels["value"] > labels["chance"] + 5 * labels["chance_sd"]).all()
    batches = table[table["kind"] == "batch"]
    assert (batches["p"] > 0.02).all()  # batches are drawn at random: nothing is left to correct
    assert (abs(batches["value"] - batches["chance"]) < 4 * batches["chance_sd"] + 1e-9).all()
    assert (table["low"] <= table["value"] + 1e-9).all()
    assert (table["high"] >= table["value"] - 0.05).all()
    assert (table["q"] >= table["p"]).all()
    assert abs(table.loc["leiden_ari", "chance"]) < 0.03


def test_a_batch_effect_is_told_by_p():
    values, label, batch = groups()
    apart = values + 3.0 * batch[:, None]
    config = ScorecardConfig(neighbours=20, permutations=39, resamples=2)
    table = scorecard(apart, batch, label, np.random.default_rng(1), config).set_index("metric")
    assert table.loc[["kbet", "lisi_batch", "silhouette_batch"], "p"].tolist() == [1 / 40] * 3


def test_silhouette_of_batches_by_hand():
    x = np.array([[0.0], [1.0], [4.0], [5.0]])
    batch = np.array([0, 0, 1, 1])
    # own distance 1; to the others 4.5, 3.5, 3.5, 4.5: silhouettes 7/9, 5/7, 5/7, 7/9
    want = 1 - (7 / 9 + 5 / 7) / 2
    assert silhouette_batch(x, batch, np.zeros(4, dtype=np.int64)) == pytest.approx(want)
