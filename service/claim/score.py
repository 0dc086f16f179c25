"""Answers against the truth: bias, RMSE, coverage and mechanisms of seen and of unseen compounds, with intervals, and
what follows from the paired difference of two methods.

Intervals of a score cover the choice of compounds and, for models trained from several seeds, of seeds: both are drawn
with replacement. Effects of compounds whose wells do not determine them are left out of bias and RMSE and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from causal.evaluate import score as effect_score
from ldm.quality import cosine
from profiling.metrics import map_per_label, map_per_sample, mean_roc_auc, permuted
from profiling.protocol import choose_references
from profiling.subprofile import biosimilarity, build
from service.claim.config import ClaimConfig
from service.claim.estimate import Answer

SETS = ("seen", "unseen")
METRICS = {"map_per_sample": map_per_sample, "map_per_label": map_per_label, "roc_auc": mean_roc_auc}
PERMUTATIONS = 200
LEVEL = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class Truth:
    """True effects [m, k] in the batches of training, and in the held-out batches."""

    value: Float[np.ndarray, "m k"]
    held_out: Float[np.ndarray, "m k"]


def members_drawn(answer: Answer, rng: np.random.Generator, n: int) -> Float[np.ndarray, "n m k"]:
    """Effects of n ensembles whose seeds are drawn with replacement; the effects themselves, n times, for one seed."""
    seeds = len(answer.members)
    if seeds == 1:
        return np.repeat(answer.members, n, axis=0)
    return np.stack([answer.members[rng.integers(0, seeds, seeds)].mean(0) for _ in range(n)])


def squared_errors(value: Float[np.ndarray, "m k"], truth: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
    """Mean squared error of each compound over its features; NaN for one without any."""
    square = (value - truth) ** 2
    there = np.isfinite(square)
    count = there.sum(1)
    total = np.where(there, square, 0.0).sum(1)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))


def root_mean(square: Float[np.ndarray, " m"]) -> float:
    """Root of the mean over compounds that have a value."""
    present = square[np.isfinite(square)]
    return float(np.sqrt(present.mean())) if len(present) else float("nan")


def rmse_draws(
    answer: Answer, truth: Float[np.ndarray, "m k"], pick: Sequence[np.ndarray], rng: np.random.Generator
) -> Float[np.ndarray, " b"]:
    """RMSE of resampled compounds (`pick`) under resampled seeds."""
    kinds = members_drawn(answer, rng, 8)
    square = [squared_errors(one, truth) for one in kinds]
    return np.array([root_mean(square[b % len(square)][at]) for b, at in enumerate(pick)])


def picks(of: Bool[np.ndarray, " m"], resamples: int, seed: int) -> list[np.ndarray]:
    """Bootstrap samples of compounds, the same for every method: differences are paired."""
    index, rng = np.flatnonzero(of), np.random.default_rng([seed, 11])
    return [index[rng.integers(0, len(index), len(index))] for _ in range(resamples)]


def effect_row(
    answer: Answer, truth: Truth, of: Bool[np.ndarray, " m"], config: ClaimConfig
) -> dict[str, float | int | None]:
    """Scores of the effects of one set of compounds; all None where the method is not defined for it."""
    if not answer.defined[of].any():
        return dict.fromkeys(EFFECT_COLUMNS)
    mine = of & answer.defined & np.isfinite(answer.value).any(axis=1)
    value, true = answer.value[of], truth.value[of]
    one = effect_score(value.ravel(), answer.low[of].ravel(), answer.high[of].ravel(), true.ravel())
    error = np.where(np.isfinite(value), value - true, 0.0)
    per_feature = error.sum(0) / np.maximum(np.isfinite(value).sum(0), 1)
    spread = float(np.sqrt(truth.value[of].var(axis=0).mean()))
    bootstrap = rmse_draws(answer, truth.value, picks(of, config.resamples, config.seed), _rng(config))
    low, high = np.nanpercentile(bootstrap, LEVEL)
    rmse = root_mean(squared_errors(answer.value, truth.value)[of])
    direction = cosine(np.nan_to_num(true), np.nan_to_num(value))[mine[of]]
    return {
        "compounds": int(mine.sum()),
        "not_estimable": int((of & answer.defined & ~mine).sum()),
        "bias": one.bias,
        "bias_of_features": float(np.sqrt((per_feature**2).mean())),
        "rmse": rmse,
        "rmse_low": float(low),
        "rmse_high": float(high),
        "rmse_held_out": root_mean(squared_errors(answer.value, truth.held_out)[of]),
        "relative": rmse / spread if spread > 0 else None,
        "cosine": float(np.median(direction)) if len(direction) else None,
        "coverage": one.coverage,
        "width": one.width,
    }


EFFECT_COLUMNS = (
    "compounds",
    "not_estimable",
    "bias",
    "bias_of_features",
    "rmse",
    "rmse_low",
    "rmse_high",
    "rmse_held_out",
    "relative",
    "cosine",
    "coverage",
    "width",
)


def _rng(config: ClaimConfig) -> np.random.Generator:
    return np.random.default_rng([config.seed, 13])


def mechanism_rows(
    answer: Answer, table: pd.DataFrame, config: ClaimConfig
) -> dict[str, dict[str, float | int | None]]:
    """mAP and ROC-AUC of mechanisms, for seen and unseen compounds as queries; references are seen compounds of each
    fold, their effects by the same method. Mean over folds, interval over folds, queries and seeds, chance from
    shuffled labels.
    """
    labels = sorted(table["moa"].unique())
    truth = np.array([[moa == label for label in labels] for moa in table["moa"]])
    seen = table["seen"].to_numpy(bool)
    usable = answer.defined & np.isfinite(answer.value).any(axis=1)
    rng = _rng(config)
    drawn = members_drawn(answer, rng, min(4, 2 ** len(answer.members) - 1))
    found: dict[str, dict[str, float | int | None]] = {}
    for name, of in (("seen", seen & usable), ("unseen", ~seen & usable)):
        if not (answer.defined & (seen if name == "seen" else ~seen)).any() or not of.any():
            found[name] = dict.fromkeys(MECHANISM_COLUMNS)
            continue
        values: dict[str, list[float]] = {metric: [] for metric in METRICS}
        spread: dict[str, list[float]] = {metric: [] for metric in METRICS}
        chance: dict[str, list[float]] = {metric: [] for metric in METRICS}
        count = 0
        for fold in range(config.folds):
            generator = np.random.default_rng([config.seed, 17, fold])
            chosen = np.zeros(len(table), bool)
            chosen[seen] = choose_references(truth[seen], config.references, generator)
            queries = of & ~chosen
            count = int(queries.sum())
            scores = _similar(answer.value, chosen & usable, queries, truth, labels)
            orders = [generator.permutation(count) for _ in range(PERMUTATIONS // config.folds + 1)]
            others = [_similar(one, chosen & usable, queries, truth, labels) for one in drawn]
            for metric, statistic in METRICS.items():
                values[metric].append(statistic(scores, truth[queries]))
                chance[metric] += permuted(statistic, scores, truth[queries], orders).tolist()
                for b in range(max(config.resamples // config.folds, 1)):
                    at = generator.integers(0, count, count)
                    spread[metric].append(statistic(others[b % len(others)][at], truth[queries][at]))
        row: dict[str, float | int | None] = {"queries": count}
        for metric in METRICS:
            low, high = np.nanpercentile(spread[metric], LEVEL)
            row |= {
                metric: float(np.nanmean(values[metric])),
                f"{metric}_low": float(low),
                f"{metric}_high": float(high),
                f"{metric}_chance": float(np.nanmean(chance[metric])),
            }
        found[name] = row
    return found


MECHANISM_COLUMNS = (
    "queries",
    *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high", "_chance")),
)


def _similar(
    value: Float[np.ndarray, "m k"],
    references: Bool[np.ndarray, " m"],
    queries: Bool[np.ndarray, " m"],
    truth: Bool[np.ndarray, "m l"],
    labels: Sequence[str],
) -> Float[np.ndarray, "q l"]:
    """Biosimilarity of the queries to the sub-profile of each mechanism; NaN where a mechanism has none."""
    words = np.array(labels, object)[truth[references].argmax(1)]
    sub = build(value[references], words, [f"f{i}" for i in range(value.shape[1])], min_references=2)
    scores = np.full((int(queries.sum()), len(labels)), np.nan)
    scores[:, [labels.index(label) for label in sub.labels]] = biosimilarity(value[queries], sub, missing="pairwise")
    return scores


def score_all(
    answers: Mapping[str, Sequence[Answer]], truth: Truth, table: pd.DataFrame, config: ClaimConfig
) -> pd.DataFrame:
    """One row an allocation, method and set of compounds; None in every column where a method is not defined."""
    seen = table["seen"].to_numpy(bool)
    rows = []
    for allocation, given in answers.items():
        for answer in given:
            mechanisms = mechanism_rows(answer, table, config)
            for name in SETS:
                of = seen if name == "seen" else ~seen
                named = {"allocation": allocation, "method": answer.method, "set": name}
                rows.append({**named, **effect_row(answer, truth, of, config), **mechanisms[name]})
    return pd.DataFrame(rows).astype(object).where(lambda t: t.notna(), None)


def verdict(
    ours: Answer, theirs: Answer, truth: Float[np.ndarray, "m k"], of: Bool[np.ndarray, " m"], config: ClaimConfig
) -> dict[str, float | str]:
    """RMSE of ours minus theirs over the compounds that both are defined for: difference, interval, and "beats",
    "loses to" or "is not told apart from".
    """
    both = of & np.isfinite(squared_errors(ours.value, truth)) & np.isfinite(squared_errors(theirs.value, truth))
    if not both.any():
        return {"ours": ours.method, "theirs": theirs.method, "says": "is not defined beside"}
    pick = picks(both, config.resamples, config.seed)
    difference = rmse_draws(ours, truth, pick, _rng(config)) - rmse_draws(theirs, truth, pick, _rng(config))
    low, high = (float(end) for end in np.nanpercentile(difference, LEVEL))
    point = root_mean(squared_errors(ours.value, truth)[both]) - root_mean(squared_errors(theirs.value, truth)[both])
    says = "beats" if high < 0.0 else "loses to" if low > 0.0 else "is not told apart from"
    return {
        "ours": ours.method,
        "theirs": theirs.method,
        "difference": point,
        "low": low,
        "high": high,
        "says": says,
    }
