"""From the effects of one compound to its labels: ranked, with chance, interval, p, evidence, or "no call".

Each label gets the Biosimilarity of the compound's mean effect over draws. Beside it stand
- `chance`: the mean score that reference compounds *not* of this label have with it, and `p`, the share of them that
score
  at least as high; `q` is p corrected over the labels (Benjamini-Hochberg);
- `low`..`high`: the score that infinitely many draws would give (`interval.py`; needs 3 draws). It covers the draws,
not the
  error of the model that painted them.

The best label is called when it stands out: a reference compound's best *wrong* label scores as high with a share
`p_call` of at most `alpha`, and the interval lies above chance. Otherwise there is no call, and the reason says why.
A compound's answer depends on its own draws and the references only, so it is the same alone and in a list, to the
byte.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from profiling.drivers import CHANNELS, Driver, DriverGroup, drivers
from profiling.interval import biosimilarity_interval
from profiling.profiles import InvalidProfiles
from profiling.statistics import false_discovery_rate
from profiling.subprofile import SubProfiles, biosimilarity, expected_share, rank_labels

DIGITS = 6  # decimals of every number in the JSON


@dataclass(frozen=True)
class PredictConfig:
    """How a prediction is made."""

    level: float = 0.95  # of the interval
    alpha: float = 0.05  # the best label is called at p_call <= alpha
    nearest: int = 5  # reference compounds named as evidence
    drivers: int = 10  # features named as evidence
    channels: tuple[str, ...] = CHANNELS  # names to look for in feature names


@dataclass(frozen=True)
class Null:
    """Scores [r, labels] of r reference compounds; NaN where the compound has the label (or the label has no score)."""

    compounds: tuple[str, ...]
    labels: tuple[str, ...]
    scores: Float[np.ndarray, "r l"]

    def write(self, path: str | Path) -> None:
        """To parquet: the compound and one column a label."""
        table = pd.DataFrame(self.scores, columns=list(self.labels))
        table.insert(0, "Metadata_compound", list(self.compounds))
        table.to_parquet(path, index=False)

    @staticmethod
    def read(path: str | Path) -> "Null":
        """From parquet."""
        table = pd.read_parquet(path)
        scores = table.drop(columns="Metadata_compound")
        return Null(tuple(table["Metadata_compound"]), tuple(scores.columns), scores.to_numpy(dtype=np.float64))


@dataclass(frozen=True)
class References:
    """Reference compounds: profiles [r, k] on the features of the sub-profiles, and the labels of each."""

    compounds: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    values: Float[np.ndarray, "r k"]


@dataclass(frozen=True)
class Neighbour:
    """A reference compound and the Pearson correlation of its profile with the compound's, over all features."""

    compound: str
    labels: tuple[str, ...]
    similarity: float


@dataclass(frozen=True)
class LabelScore:
    """One label of one compound; numbers are NaN (null in JSON) where the label has no sub-profile."""

    label: str
    score: float
    chance: float
    chance_sd: float
    low: float
    high: float
    p: float
    q: float
    n_references: int
    n_features: int
    n_features_by_chance: float
    nearest: tuple[Neighbour, ...]
    beside: Mapping[str, float] = field(default_factory=dict)  # other scores of this label, such as "structure"


@dataclass(frozen=True)
class Prediction:
    """The labels of one compound, best first. `call` is a label or None; `reason` says why it is or is not made."""

    compound: str
    kind: str
    call: str | None
    reason: str
    p_call: float
    alpha: float
    level: float
    covers: str
    n_draws: int
    n_draws_with_cells: int
    strength: float
    convention: str
    labels: tuple[LabelScore, ...]
    nearest: tuple[Neighbour, ...]
    drivers: tuple[Driver, ...]
    driver_groups: tuple[DriverGroup, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, words, lists; numbers rounded to 6 decimals, NaN as None."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain


def to_json(predictions: Sequence[Prediction]) -> str:
    """A JSON list, the same bytes for the same predictions: sorted keys, rounded numbers, no NaN."""
    return json.dumps([p.to_dict() for p in predictions], indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)


def to_table(predictions: Sequence[Prediction]) -> pd.DataFrame:
    """One row a compound and label, for CSV: rank, score, chance, interval, p, q, and whether the label is called."""
    columns = ("label", "score", "chance", "low", "high", "p", "q", "n_references", "n_features")
    return pd.DataFrame(
        [
            {"compound": p.compound, "kind": p.kind, "rank": rank, **{c: getattr(s, c) for c in columns}}
            | {"called": s.label == p.call, "covers": p.covers}
            for p in predictions
            for rank, s in enumerate(p.labels, start=1)
        ]
    )


def reference_null(references: References, subprofiles: SubProfiles) -> Null:
    """Scores of each reference compound with every label that it does not have."""
    _check_features(references.values, subprofiles)
    scores = biosimilarity(references.values, subprofiles, missing="pairwise")
    own = np.array([[label in mine for label in subprofiles.labels] for mine in references.labels], dtype=bool)
    return Null(references.compounds, subprofiles.labels, np.where(own, np.nan, scores))


def predict(
    compound: str,
    draws: Float[np.ndarray, "d k"],
    subprofiles: SubProfiles,
    null: Null,
    references: References,
    kind: str = "moa",
    config: PredictConfig | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Prediction:
    """Effects of one compound, one row a draw [d, k] (normalised; NaN rows are draws without cells) -> `Prediction`.

    `beside` maps the name of another method to its score of each label; they are shown, not used. Raises
    `InvalidProfiles` where features or labels do not fit.
    """
    config = config or PredictConfig()
    _check_features(draws, subprofiles)
    _check_features(references.values, subprofiles)
    if null.labels != subprofiles.labels:
        raise InvalidProfiles("null has other labels than the sub-profiles: make it with `reference_null` from them")
    with_cells = draws[~np.isnan(draws).all(axis=1)]
    mean = _mean(with_cells)
    score = biosimilarity(mean, subprofiles, missing="pairwise")[0]
    low, high = biosimilarity_interval(with_cells, subprofiles, config.level)
    low, high = np.minimum(low, score), np.maximum(high, score)  # the same sums in another order may differ by rounding
    p = np.array([_p(null.scores[:, j], score[j]) for j in range(len(score))])
    q = false_discovery_rate(p)
    order = rank_labels(score, subprofiles.labels)
    best = order[0]
    p_call = _p(_largest(null.scores), score[best])
    chance = np.array([_mean_of(null.scores[:, j]) for j in range(len(score))])
    close = _neighbours(mean, references)
    others = beside or {}
    labels = tuple(
        LabelScore(
            label=subprofiles.labels[j],
            score=float(score[j]),
            chance=float(chance[j]),
            chance_sd=_sd_of(null.scores[:, j]),
            low=float(low[j]),
            high=float(high[j]),
            p=float(p[j]),
            q=float(q[j]),
            n_references=int(subprofiles.n_references[j]),
            n_features=int(subprofiles.mask[j].sum()),
            n_features_by_chance=_kept_by_chance(subprofiles, j),
            nearest=tuple(n for n in close if subprofiles.labels[j] in n.labels)[: config.nearest],
            beside={name: float(scores[subprofiles.labels[j]]) for name, scores in sorted(others.items())},
        )
        for j in order
    )
    call, reason = _call(labels[0], p_call, len(with_cells), config)
    top, groups = drivers(mean, subprofiles, labels[0].label, config.drivers, config.channels)
    return Prediction(
        compound=compound,
        kind=kind,
        call=call,
        reason=reason,
        p_call=p_call,
        alpha=config.alpha,
        level=config.level,
        covers="draws",
        n_draws=len(draws),
        n_draws_with_cells=len(with_cells),
        strength=_mean_of(mean**2) ** 0.5,
        convention=subprofiles.convention,
        labels=labels,
        nearest=close[: config.nearest],
        drivers=top,
        driver_groups=groups,
    )


def _call(best: LabelScore, p_call: float, n_draws: int, config: PredictConfig) -> tuple[str | None, str]:
    if n_draws == 0:
        return None, "no call: no draw has cells"
    if math.isnan(best.score):
        return None, "no call: no label has a sub-profile with which the profile can be compared"
    share = (
        f"{best.label} scores {best.score:.3g}, as the best wrong label of a reference compound with p = {p_call:.2g}"
    )
    if math.isnan(p_call) or p_call > config.alpha:
        return None, f"no call: nothing stands out; {share}, above {config.alpha:g}"
    if best.low <= best.chance:
        return None, f"no call: the interval from {best.low:.3g} reaches the chance level {best.chance:.3g}"
    return best.label, share


def _mean(draws: Float[np.ndarray, "d k"]) -> Float[np.ndarray, " k"]:
    """Mean over draws of each feature, over the draws that have it; NaN where none has."""
    present = ~np.isnan(draws)
    total, count = np.where(present, draws, 0.0).sum(axis=0), present.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _p(null: Float[np.ndarray, " r"], score: float) -> float:
    null = null[~np.isnan(null)]
    if math.isnan(score) or len(null) == 0:
        return math.nan
    return float((1 + (null >= score).sum()) / (1 + len(null)))


def _largest(scores: Float[np.ndarray, "r l"]) -> Float[np.ndarray, " r"]:
    best = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(best), best, np.nan)


def _neighbours(profile: Float[np.ndarray, " k"], references: References) -> tuple[Neighbour, ...]:
    every = SubProfiles(
        labels=references.compounds,
        names=tuple(str(j) for j in range(len(profile))),
        values=np.nan_to_num(references.values),
        mask=~np.isnan(references.values),
        n_references=np.ones(len(references.compounds), dtype=np.int64),
        min_references=1,
    )
    similarity = biosimilarity(profile, every, missing="pairwise")[0]
    order = rank_labels(similarity, references.compounds)
    return tuple(
        Neighbour(references.compounds[i], references.labels[i], float(similarity[i]))
        for i in order
        if not math.isnan(similarity[i])
    )


def _kept_by_chance(subprofiles: SubProfiles, row: int) -> float:
    n = int(subprofiles.n_references[row])
    if n < subprofiles.min_references:
        return math.nan
    return expected_share(n, subprofiles.convention, subprofiles.agree) * len(subprofiles.names)


def _check_features(values: Float[np.ndarray, "n k"], subprofiles: SubProfiles) -> None:
    if values.shape[1] != len(subprofiles.names):
        raise InvalidProfiles(f"values have {values.shape[1]} features, the sub-profiles {len(subprofiles.names)}")


def _mean_of(values: Float[np.ndarray, " n"]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan


def _sd_of(values: Float[np.ndarray, " n"]) -> float:
    present = values[~np.isnan(values)]
    return float(present.std(ddof=1)) if len(present) > 1 else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else round(value, DIGITS) + 0.0  # + 0.0: no minus zero
    return value
