"""Metrics: equality with scikit-learn and copairs, exact chance levels, and nulls that are nulls."""

from itertools import combinations

import numpy as np
import pytest
from copairs.compute import ap_contiguous
from copairs.map.normalization import expected_ap
from sklearn.metrics import average_precision_score, roc_auc_score

from profiling.metrics import (
    METRICS,
    NULLS,
    InvalidScores,
    average_precision,
    evaluate,
    expected_average_precision,
    interpolated_average_precision,
    map_per_label,
    map_per_sample,
    mean_rank,
    permuted,
    rank_of_truth,
    rank_test,
    recall_at,
    roc_auc,
)


def cases(seed, n=60, m=26, ties=False):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, m))
    if ties:
        scores = np.round(scores, 0)
    truth = rng.random((n, m)) < 0.15
    truth[np.arange(n), rng.integers(0, m, n)] = True
    return scores, truth


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_equals_scikit_learn(ties):
    scores, truth = cases(1, ties=ties)
    want = [average_precision_score(t, s) for s, t in zip(scores, truth, strict=True)]
    np.testing.assert_allclose(average_precision(scores, truth), want, rtol=0, atol=1e-12)
    assert map_per_sample(scores, truth) == pytest.approx(np.mean(want), abs=1e-12)
    labels = [average_precision_score(truth[:, j], scores[:, j]) for j in range(truth.shape[1])]
    assert map_per_label(scores, truth) == pytest.approx(np.mean(labels), abs=1e-12)


def test_average_precision_equals_copairs():
    scores, truth = cases(2)
    order = np.argsort(-scores, axis=1)
    ranked = np.take_along_axis(truth, order, axis=1)
    counts = np.full(len(truth), truth.shape[1])
    want, _ = ap_contiguous(ranked.ravel().astype(np.uint32), counts)
    np.testing.assert_allclose(average_precision(scores, truth), want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_auc_equals_scikit_learn(ties):
    scores, truth = cases(3, ties=ties)
    want = [roc_auc_score(truth[:, j], scores[:, j]) for j in range(truth.shape[1])]
    np.testing.assert_allclose(roc_auc(scores, truth), want, rtol=0, atol=1e-12)


def test_labels_without_both_kinds_do_not_count():
    scores, truth = cases(4)
    truth[:, 0], truth[:, 1] = False, True
    area = roc_auc(scores, truth)
    assert np.isnan(area[:2]).all()
    assert np.isfinite(area[2:]).all()
    truth[3] = False
    assert np.isnan(average_precision(scores, truth)[3])
    assert np.isfinite(map_per_sample(scores, truth))


@pytest.mark.parametrize(("m", "size"), [(1, 26), (1, 1), (2, 6), (3, 6), (6, 6), (4, 9)])
def test_expected_average_precision_is_the_mean_over_all_rankings(m, size):
    rankings = combinations(range(1, size + 1), m)
    every = [np.mean([(i + 1) / rank for i, rank in enumerate(at)]) for at in rankings]
    got = expected_average_precision(np.array([m]), size)[0]
    assert got == pytest.approx(np.mean(every), abs=1e-12)
    assert got == pytest.approx(expected_ap(m, size - m), abs=1e-12)


def test_the_papers_setting_has_chance_0_148_per_sample():
    assert expected_average_precision(np.array([1]), 26)[0] == pytest.approx(0.148, abs=5e-4)


def naive_interpolated(scores, truth, points):
    order = np.argsort(-scores)
    hits = np.cumsum(truth[order])
    precision, recall = hits / np.arange(1, len(order) + 1), hits / truth.sum()
    grid = np.arange(1, points + 1) / points
    return np.mean([precision[recall >= r - 1e-12].max() for r in grid])


def test_interpolated_average_precision_equals_the_loop_and_bounds_the_plain_one():
    scores, truth = cases(5)
    points = int(truth.sum(axis=1).max())
    want = [naive_interpolated(s, t, points) for s, t in zip(scores, truth, strict=True)]
    got = interpolated_average_precision(scores, truth)
    np.testing.assert_allclose(got, want, atol=1e-12)
    for i in range(len(truth)):
        own = interpolated_average_precision(scores[i : i + 1], truth[i : i + 1])[0]
        assert own >= average_precision(scores[i : i + 1], truth[i : i + 1])[0] - 1e-12


def test_rank_of_truth_shares_ties_and_puts_no_call_last():
    scores = np.array([[0.9, 0.5, 0.5, 0.1], [0.9, np.nan, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]])
    truth = np.zeros((4, 4), dtype=bool)
    truth[[0, 1, 2, 2], [1, 1, 0, 2]] = True
    np.testing.assert_array_equal(rank_of_truth(scores, truth), [2.5, 4.0, 2.0, np.nan])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_recall_counts_ties_by_their_probability(k):
    scores = np.array([[3.0, 2.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    truth = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)
    rng = np.random.default_rng(0)
    hit = np.zeros(3)
    for _ in range(20_000):
        order = np.lexsort((rng.random((3, 5)), -scores), axis=1)[:, :k]
        hit += np.take_along_axis(truth, order, axis=1).any(axis=1)
    assert recall_at(k)(scores, truth) == pytest.approx(np.mean(hit / 20_000), abs=0.008)


def test_evaluate_tells_signal_from_noise():
    scores, _ = cases(6, n=80, m=10)
    truth = np.zeros((80, 10), dtype=bool)
    truth[np.arange(80), np.arange(80) % 10] = True
    noise = evaluate(scores, truth, np.random.default_rng(0), permutations=200, resamples=100).set_index("metric")
    signal = evaluate(scores + 1.5 * truth, truth, np.random.default_rng(0), permutations=200, resamples=100)
    signal = signal.set_index("metric")
    assert (signal.loc[[name for name in METRICS if name != "recall@10"], "p"] <= 0.02).all()
    assert signal.loc["recall@10", "p"] == 1.0  # ten labels: always among the first ten
    assert noise.loc["mean_rank", "p"] > 0.02
    assert noise.loc["mean_rank", "chance"] == pytest.approx(5.5, abs=0.1)
    assert noise.loc["roc_auc", "chance"] == pytest.approx(0.5, abs=0.01)
    exact = expected_average_precision(np.array([1]), 10)[0]
    assert noise.loc["map_per_sample", "chance"] == pytest.approx(exact, abs=0.01)
    assert (signal["low"] <= signal["value"]).all()
    assert (signal["high"] >= signal["value"]).all()
    assert signal.loc["recall@10", "value"] == 1.0


def test_rank_test_equals_evaluate_and_its_p_is_uniform_under_the_null():
    rng = np.random.default_rng(7)
    scores, truth = cases(9, n=30, m=6, ties=True)
    fast = rank_test(scores, truth, np.random.default_rng(1), permutations=50)
    again = np.random.default_rng(1)
    null = permuted(mean_rank, scores, truth, [again.permutation(30) for _ in range(50)])
    assert fast.value == mean_rank(scores, truth)
    assert fast.chance == pytest.approx(null.mean(), abs=1e-12)
    assert fast.p == (1 + (null <= fast.value + 1e-12).sum()) / 51
    truth = np.zeros((30, 6), dtype=bool)
    truth[np.arange(30), np.arange(30) % 6] = True
    p = [rank_test(rng.normal(size=(30, 6)), truth, rng, 39, 2).p for _ in range(300)]
    below = np.mean(np.array(p) <= 0.1)
    assert abs(below - 0.1) < 4 * np.sqrt(0.09 / 300)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", sorted(NULLS))
def test_a_null_that_does_not_rank_again_equals_the_metric_on_shuffled_labels(name, ties):
    scores, truth = cases(10, n=40, m=9, ties=ties)
    truth[:, 3] = False
    truth[np.arange(40), np.arange(40) % 3] = True
    scores[:, 5] = np.nan
    scores = np.where(np.isnan(scores), -np.inf, scores)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(40) for _ in range(7)]
    want = permuted(METRICS[name], scores, truth, orders)
    np.testing.assert_allclose(NULLS[name](scores, truth, orders), want, rtol=0, atol=1e-12)


def test_same_seed_same_table():
    scores, truth = cases(8)
    a, b = (evaluate(scores, truth, np.random.default_rng(3), permutations=20, resamples=20) for _ in range(2))
    assert a.equals(b)


def test_refusals():
    with pytest.raises(InvalidScores, match="no true entry"):
        evaluate(np.zeros((2, 3)), np.zeros((2, 3), dtype=bool), np.random.default_rng(0))
    with pytest.raises(InvalidScores, match="at least 1"):
        recall_at(0)
