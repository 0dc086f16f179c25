"""Several methods scored in the same folds: which differ? The paper's Tables 1 and 2, and beside them what fits.

Input is one value a method, subset ("seen"), metric and fold, as `protocol.score` gives it. One-way ANOVA with Tukey's
HSD is what the paper reports; folds share compounds, so its error is not the error between folds: the mixed model and
the paired permutation test, which compare within a fold, stand in the same table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.statistics import (
    InvalidComparison,
    anova,
    letters,
    mixed_model,
    paired_permutation,
    t_interval,
    tukey_hsd,
)

STAR = 0.05


@dataclass(frozen=True)
class Comparison:
    """`methods`: one row a method, subset and metric (mean, 95 % t interval over folds, chance, letters); `anova`: one
    row a subset and metric; `pairs`: one row a pair of methods, with Tukey, mixed model and paired permutation."""

    methods: pd.DataFrame
    anova: pd.DataFrame
    pairs: pd.DataFrame

    def paper_table(self, first: str = "map_per_label", second: str = "roc_auc") -> pd.DataFrame:
        """The paper's columns: Group 1, Group 2, adjusted p of two metrics, "*" below 0.05."""
        parts = []
        for metric, name in ((first, "p-adjusted mAP"), (second, "p-adjusted ROC-AUC")):
            rows = self.pairs[self.pairs["metric"] == metric].set_index(["subset", "group1", "group2"])["p_tukey"]
            parts.append(rows.map(lambda p: f"{p:.4f}" + ("*" if p < STAR else "")).rename(name))
        table = pd.concat(parts, axis=1).reset_index()
        return table.rename(columns={"subset": "Subset", "group1": "Group 1", "group2": "Group 2"})

    def write(self, folder: str | Path) -> None:
        """CSV files methods, anova and pairs in `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in (("methods", self.methods), ("anova", self.anova), ("pairs", self.pairs)):
            table.to_csv(folder / f"{name}.csv", index=False)


def gather(reports: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The `metrics` tables of several reports, one under another, with a column `method`.

    Raises `InvalidComparison` where the methods do not have the same folds, subsets and metrics.
    """
    if len(reports) < 2:
        raise InvalidComparison(f"reports are {list(reports)}: expected at least two methods")
    parts = []
    seen: dict[str, set[tuple[object, ...]]] = {}
    for method, table in reports.items():
        columns = ["subset", "metric", "fold"]
        if missing := [c for c in (*columns, "value", "chance") if c not in table.columns]:
            raise InvalidComparison(f"the table of {method!r} has no columns {missing}: expected a metrics.csv")
        seen[method] = set(table[columns].itertuples(index=False, name=None))
        parts.append(table.assign(method=method))
    first = next(iter(seen))
    for method, there in seen.items():
        if there != seen[first]:
            odd = sorted(there ^ seen[first], key=str)[0]
            raise InvalidComparison(f"{method!r} and {first!r} were not scored alike: only one has {odd}")
    return pd.concat(parts, ignore_index=True)


def same_folds(reports: Mapping[str, pd.DataFrame]) -> bool:
    """Whether the methods had the same compounds as references in each fold (tables folds.csv): then values of one
    fold are paired, otherwise only the ANOVA is valid."""
    sets = [
        frozenset(t.loc[t["role"] == "reference", ["fold", "key"]].itertuples(index=False, name=None))
        for t in reports.values()
    ]
    return len(set(sets)) == 1


def compare(scores: pd.DataFrame, rng: np.random.Generator, paired: bool = True) -> Comparison:
    """`scores` as of `gather`. With `paired` (the folds are the same for all methods) the mixed model and the paired
    permutation test are added; otherwise their columns are NaN. Folds in which a method has no number are left out; a
    metric without any, or without spread in any method, has no test."""
    methods, fits, pairs = [], [], []
    for (subset, metric), all_rows in scores.groupby(["subset", "metric"], sort=True):
        complete = all_rows.groupby("fold")["value"].transform(lambda x: x.notna().all())
        table = all_rows[complete]
        if table.empty or table.groupby("method")["value"].nunique().max() == 1 < table["fold"].nunique():
            continue
        values, names = table["value"].to_numpy(dtype=np.float64), table["method"].to_numpy(dtype=object)
        fit = anova(values, names)
        tukey = tukey_hsd(values, names)
        marks = letters(tukey)
        for method, own in table.groupby("method", sort=False):
            x = own["value"].to_numpy(dtype=np.float64)
            mean, chance = float(x.mean()), float(own["chance"].mean())
            methods.append((subset, metric, method, mean, *t_interval(x), chance, len(x), marks[str(method)]))
        fits.append((subset, metric, fit.f, fit.p, fit.df_between, fit.df_within, fit.eta_squared))
        beside = _paired(table, rng) if paired else _unpaired(names)
        made = tukey.rename(columns={"p": "p_tukey"}).merge(beside, on=["group1", "group2"])
        pairs.append(made.assign(subset=subset, metric=metric))
    if not pairs:
        raise InvalidComparison("scores: no metric has a number for every method")
    head = ["subset", "metric", "group1", "group2"]
    every = pd.concat(pairs, ignore_index=True)
    return Comparison(
        pd.DataFrame(
            methods,
            columns=["subset", "metric", "method", "value", "low", "high", "chance", "folds", "letters"],
        ),
        pd.DataFrame(fits, columns=["subset", "metric", "f", "p", "df_between", "df_within", "eta_squared"]),
        every[head + [c for c in every.columns if c not in head]],
    )


def _paired(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    names, folds = table["method"].to_numpy(dtype=object), table["fold"].to_numpy(dtype=object)
    mixed = mixed_model(table["value"].to_numpy(dtype=np.float64), names, folds)
    wide = table.pivot_table(index="fold", columns="method", values="value")
    p = [
        paired_permutation(wide[a].to_numpy(dtype=np.float64), wide[b].to_numpy(dtype=np.float64), rng)[1]
        for a, b in mixed[["group1", "group2"]].itertuples(index=False)
    ]
    columns = {"p": "p_mixed", "q": "q_mixed", "error": "error_mixed"}
    return mixed.rename(columns=columns)[["group1", "group2", *columns.values()]].assign(p_permutation=p)


def _unpaired(names: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(list(combinations(sorted(set(names.tolist())), 2)), columns=["group1", "group2"])
    return table.assign(p_mixed=np.nan, q_mixed=np.nan, error_mixed=np.nan, p_permutation=np.nan)
