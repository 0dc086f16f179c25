"""Methods in shared folds: the paper's columns from statsmodels' Tukey, pairing that the ANOVA misses, and refusals."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multicomp import pairwise_tukeyhsd

from profiling.compare import compare, gather, same_folds
from profiling.statistics import InvalidComparison


def reports(effect=0.02, folds=5, seed=0):
    """Three methods; folds differ by far more than methods do, so only the pairing can see `effect`."""
    rng = np.random.default_rng(seed)
    fold_effect = 0.2 * rng.normal(size=folds)
    made = {}
    for i, method in enumerate(("real", "corrected", "synthetic")):
        rows = [
            (fold, "all", metric, 0.5 + fold_effect[fold] + effect * i + 0.002 * rng.normal(), 0.1)
            for fold in range(folds)
            for metric in ("map_per_label", "roc_auc")
        ]
        rows += [(fold, "all", "recall@10", 1.0, 1.0) for fold in range(folds)]
        made[method] = pd.DataFrame(rows, columns=["fold", "subset", "metric", "value", "chance"])
    return made


def test_tukey_equals_statsmodels_and_the_paper_table_is_theirs():
    table = gather(reports(effect=0.4))
    made = compare(table, np.random.default_rng(0))
    own = table[table["metric"] == "roc_auc"]
    oracle = pairwise_tukeyhsd(own["value"], own["method"])
    pairs = made.pairs[made.pairs["metric"] == "roc_auc"]
    np.testing.assert_allclose(pairs["p_tukey"], oracle.pvalues, atol=1e-8)
    paper = made.paper_table()
    assert paper.columns.tolist() == ["Subset", "Group 1", "Group 2", "p-adjusted mAP", "p-adjusted ROC-AUC"]
    assert (
        paper.loc[(paper["Group 1"] == "real") & (paper["Group 2"] == "synthetic"), "p-adjusted mAP"].item()[-1] == "*"
    )
    assert set(made.methods["metric"]) == {"map_per_label", "roc_auc"}  # recall@10 never varies: no test


def test_pairing_sees_what_the_anova_misses():
    made = compare(gather(reports()), np.random.default_rng(0))
    assert (made.pairs["p_tukey"] > 0.5).all()
    assert (made.pairs["p_mixed"] < 1e-3).all()
    assert made.pairs["p_permutation"].min() == 2 / 2**5  # every exchange of five folds counted
    assert set(made.methods["letters"]) == {"a"}
    assert (made.anova["p"] > 0.5).all()
    methods = made.methods.set_index(["metric", "method"])
    x = reports()["real"].query("metric == 'roc_auc'")["value"]
    assert methods.loc[("roc_auc", "real"), "value"] == pytest.approx(x.mean())
    half = 2.7764451 * x.std() / np.sqrt(5)  # t quantile of four degrees of freedom
    assert methods.loc[("roc_auc", "real"), "high"] == pytest.approx(x.mean() + half, rel=1e-6)


def test_methods_with_other_folds_are_not_paired(tmp_path):
    folds = pd.DataFrame({"fold": [0, 0], "key": ["A", "B"], "role": ["reference", "query"]})
    assert same_folds({"a": folds, "b": folds.copy()})
    assert not same_folds({"a": folds, "b": folds.assign(key=["B", "A"])})
    made = compare(gather(reports()), np.random.default_rng(0), paired=False)
    assert made.pairs["p_mixed"].isna().all()
    made.write(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["anova.csv", "methods.csv", "pairs.csv"]


def test_refusals():
    made = reports()
    with pytest.raises(InvalidComparison, match="at least two"):
        gather({"real": made["real"]})
    with pytest.raises(InvalidComparison, match="not scored alike"):
        gather({"a": made["real"], "b": made["corrected"].query("fold < 4")})
    with pytest.raises(InvalidComparison, match="no columns"):
        gather({"a": made["real"], "b": made["real"].drop(columns="chance")})
