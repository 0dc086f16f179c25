"""One row a label: weighted AP and AUC against scikit-learn, calibrated p, intervals; confusion by hand."""

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import average_precision_score, roc_auc_score

from profiling.metrics import InvalidScores, expected_average_precision, roc_auc
from profiling.per_label import _blocks, _weighted, confusion, label_table


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_scores_equal_scikit_learn(ties):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40)
    if ties:
        scores = np.round(scores)
    truth = rng.random(40) < 0.3
    order, end = _blocks(scores)
    weight = rng.integers(0, 4, (5, 40)).astype(np.float64)
    ap, auc = _weighted((weight * truth)[:, order], weight[:, order], end)
    for b in range(5):
        want = average_precision_score(truth, scores, sample_weight=weight[b])
        assert ap[b] == pytest.approx(want, abs=1e-12)  # the same sums in another order
        assert auc[b] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight[b]), abs=1e-12)


def test_a_table_of_signal_noise_and_silence():
    rng = np.random.default_rng(1)
    truth = np.eye(4, dtype=bool)[np.arange(120) % 4]
    scores = rng.normal(size=(120, 4))
    scores[:, 0] += 3.0 * truth[:, 0]
    scores[:, 3] = np.nan  # no sub-profile
    table = label_table(scores, truth, ["signal", "noise", "noise 2", "silent"], rng).set_index("label")
    assert table.loc["signal", "ap_q"] < 0.01 < table.loc["noise", "ap_p"]
    np.testing.assert_allclose(table["ap_chance"], expected_average_precision(np.array([30]), 120)[0])
    np.testing.assert_allclose(table.loc[["signal", "noise"], "auc"], roc_auc(scores, truth)[:2])
    assert (table["ap_low"] <= table["ap"]).all()
    assert (table["ap_high"] >= table["ap"]).all()
    assert table.loc["signal", "auc_low"] > 0.9
    assert table.loc["noise", "auc_low"] < 0.5 < table.loc["noise", "auc_high"] + 0.1
    assert table.loc["silent", "ap"] == 0.25  # everyone in one block
    assert table.loc["silent", ["auc", "ap_p", "auc_p"]].tolist() == [0.5, 1.0, 1.0]
    assert (table["ap_q"] >= table["ap_p"]).all()


def test_p_is_uniform_without_signal():
    """120 labels of noise: p of 200 permutations is uniform; Kolmogorov-Smirnov at 1 % with a fixed seed."""
    rng = np.random.default_rng(2)
    truth = rng.random((60, 120)) < 0.2
    table = label_table(rng.normal(size=(60, 120)), truth, [str(i) for i in range(120)], rng, 200, 2)
    for name in ("ap_p", "auc_p"):
        assert kstest(table[name], "uniform").pvalue > 0.01


def test_confusion_by_hand():
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 1]], dtype=bool)
    scores = np.array([[3.0, 1, 2], [0, 5, np.nan], [np.nan] * 3, [1, 2, 2]])
    np.testing.assert_array_equal(confusion(scores, truth), [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 2]])


def test_refusals():
    with pytest.raises(InvalidScores, match="do not fit"):
        label_table(np.zeros((3, 2)), np.ones((3, 2), dtype=bool), ["a"], np.random.default_rng(0))
    with pytest.raises(InvalidScores, match="no label has both"):
        label_table(np.zeros((3, 1)), np.ones((3, 1), dtype=bool), ["a"], np.random.default_rng(0))
