"""Mechanisms from several doses and times: a classifier a condition, weighted means of their soft-max (brightfield).

For each dose and time its own linear probe, trained on the active compounds' rows only; the soft-max of a compound is
the mean over the conditions in which it is active, weighted by `weight` (its mAP-ES, say). Doses are added one at a
time, from the highest, to show what each adds. In the pre-training set five folds over compounds; for new compounds one
classifier fitted on all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from profiling.profiles import InvalidProfiles

COLUMNS = ("compound", "moa", "dose", "hours", "weight")


@dataclass(frozen=True)
class DoseTable:
    """Vectors [n, k] and for each row compound, moa, dose, hours, weight (0: not active there, left out)."""

    values: Float[np.ndarray, "n k"]
    rows: pd.DataFrame

    def __post_init__(self) -> None:
        if missing := [c for c in COLUMNS if c not in self.rows.columns]:
            raise InvalidProfiles(f"rows: columns {', '.join(missing)} are missing, expected {', '.join(COLUMNS)}")
        if len(self.values) != len(self.rows) or bool((self.rows["weight"] < 0).any()):
            raise InvalidProfiles("rows: one row a vector is expected, with weights of at least 0")


def softmax_by_condition(
    train: DoseTable, test: DoseTable, classes: tuple[str, ...]
) -> tuple[pd.DataFrame, Float[np.ndarray, "r m"]]:
    """Of each active test compound in each condition: its rows' mean soft-max. Returns compound, dose, hours, weight,
    and the probabilities in the order of `classes`."""
    made, said = [], []
    for condition, own in test.rows.reset_index(drop=True).groupby(["dose", "hours"], sort=True):
        fit = (train.rows["dose"] == condition[0]) & (train.rows["hours"] == condition[1]) & (train.rows["weight"] > 0)
        at = np.flatnonzero(fit.to_numpy())
        words = train.rows["moa"].to_numpy()[at].astype(str)
        if len(set(words)) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(train.values[at], words)
        place = [classes.index(name) for name in model.classes_]
        for compound, rows in own[own["weight"] > 0].groupby("compound", sort=True):
            share = np.zeros(len(classes))
            share[place] = model.predict_proba(test.values[rows.index.to_numpy()]).mean(axis=0)
            made.append((compound, *condition, float(rows["weight"].mean())))
            said.append(share)
    table = pd.DataFrame(made, columns=["compound", "dose", "hours", "weight"])
    return table, np.array(said).reshape(len(made), len(classes))


def combined(
    table: pd.DataFrame, said: Float[np.ndarray, "r m"], doses: tuple[float, ...]
) -> tuple[tuple[str, ...], Float[np.ndarray, "c m"]]:
    """Σ w p / Σ w over the conditions of these doses: compounds in sorted order and their shares."""
    used = table["dose"].isin(doses).to_numpy()
    weight = table["weight"].to_numpy(np.float64)
    names = tuple(sorted(set(table.loc[used, "compound"])))
    own = table["compound"].to_numpy()
    rows = [used & (own == name) for name in names]
    return names, np.array([np.average(said[r], axis=0, weights=weight[r]) for r in rows]).reshape(len(names), -1)


def folds_of(compounds: np.ndarray, moa: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """A fold for each row: whole compounds, spread evenly over the folds within each mechanism."""
    out = np.zeros(len(compounds), dtype=int)
    start = 0
    for word in sorted(set(moa.astype(str))):
        own = rng.permutation(np.unique(compounds[moa.astype(str) == word]))
        for i, compound in enumerate(own):
            out[compounds == compound] = (start + i) % folds
        start += len(own)
    return out


def _rows(table: DoseTable, keep: np.ndarray) -> DoseTable:
    return DoseTable(table.values[keep], table.rows[keep])


def dose_curve(
    table: DoseTable,
    held: DoseTable | None = None,
    folds: int = 5,
    seed: int = 1,
    highest_first: bool = True,
) -> pd.DataFrame:
    """Accuracy of the combined soft-max with 1, 2, ... doses: columns `doses`, `added`, `accuracy`, `compounds`,
    `chance` (commonest mechanism). `held`: compounds of a hold-out set, named by one classifier of all of `table`;
    without it five-fold over compounds."""
    classes = tuple(sorted(set(table.rows["moa"].astype(str))))
    if held is not None:
        found = [softmax_by_condition(table, held, classes)]
        truth = held.rows.groupby("compound")["moa"].first().astype(str)
    else:
        compounds, moa = table.rows["compound"].to_numpy(), table.rows["moa"].to_numpy()
        fold = folds_of(compounds, moa, folds, np.random.default_rng(seed))
        parts = [fold == f for f in range(folds) if (fold == f).any()]
        found = [softmax_by_condition(_rows(table, ~own), _rows(table, own), classes) for own in parts]
        truth = table.rows.groupby("compound")["moa"].first().astype(str)
    some = [one for one in found if len(one[0])]
    if not some:  # no compound is active anywhere
        return pd.DataFrame([], columns=["doses", "added", "accuracy", "compounds", "chance"])
    rows, said = pd.concat([t for t, _ in some], ignore_index=True), np.concatenate([s for _, s in some])
    order = sorted(set(rows["dose"]), reverse=highest_first)
    lines = []
    for count in range(1, len(order) + 1):
        names, share = combined(rows, said, tuple(order[:count]))
        right = [classes[int(p.argmax())] == truth[name] for name, p in zip(names, share, strict=True)]
        chance = float(truth[list(names)].value_counts(normalize=True).max())
        lines.append((count, order[count - 1], float(np.mean(right)), len(names), chance))
    return pd.DataFrame(lines, columns=["doses", "added", "accuracy", "compounds", "chance"])
