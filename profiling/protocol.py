"""The paper's scoring protocol as a function of two tables: profiles of compounds, and their labels.

Labels with at least `min_compounds` compounds; in every fold `references` random compounds a label make its
sub-profile and all others are queries, scored apart where they were seen or unseen in training. What is fitted
(feature selection, sub-profiles) sees the references only. Every rule says how many compounds and labels it leaves,
the folds are written down, and a compound is never reference and query in one fold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from profiling.metrics import METRICS, evaluate
from profiling.per_label import NO_CALL, confusion, label_table
from profiling.profiles import META, InvalidProfiles, Profiles, aggregate
from profiling.select import SelectConfig, select
from profiling.statistics import false_discovery_rate
from profiling.subprofile import SubProfiles, biosimilarity, build

SEPARATOR = "|"
KEY = f"{META}Key"
OWN = "profiles"  # the method that is scored; others stand beside it
Similarity = Callable[[Profiles], Float[np.ndarray, "n n"]]  # of compounds, one row a compound as `annotate` gives them


@dataclass(frozen=True)
class ProtocolConfig:
    """How profiles are matched to labels and scored. Defaults are the paper's for MoA."""

    label: str = "moa"  # column of the label table; several labels in a cell are joined with "|"
    profile_key: str = "InChIKey"  # column of the profiles' metadata that names the compound
    label_key: str = "InChIKey"  # column of the label table that names the compound
    match: str = "inchikey"  # "inchikey" (whole key), "inchikey14" (first block) or "exact" (any words)
    require: tuple[str, ...] = ()  # further columns that must not be empty ("annotated for both")
    single: bool = True  # only compounds with one label; targets: False
    min_compounds: int = 10
    references: int = 5
    folds: int = 5
    seed: int = 0
    convention: str = "paper"
    agree: float = 0.85
    subset: str = ""  # column of the metadata by which queries are reported apart ("Seen")
    select_features: bool = False  # select features on each fold's references
    permutations: int = 1000
    resamples: int = 1000

    @staticmethod
    def from_mapping(table: Mapping[str, Any]) -> "ProtocolConfig":
        """From a TOML table; an unknown key is an error."""
        known = {f.name for f in fields(ProtocolConfig)}
        if unknown := sorted(set(table) - known):
            raise InvalidProfiles(f"protocol has unknown keys {unknown}: known are {sorted(known)}")
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        return ProtocolConfig(**read)


@dataclass(frozen=True)
class Report:
    """`metrics`: one row a method, fold, subset and metric, q over all of them; `folds`: who was reference and query;
    `funnel`: what each rule left; `kept`: features each sub-profile kept, beside what noise keeps; `labels`: one row a
    fold and label; `confusion`: true labels x called labels and "no call", counts over all folds; `scores`: one row a
    fold and query, one column a label; `subprofiles`: of each fold."""

    metrics: pd.DataFrame
    folds: pd.DataFrame
    funnel: pd.DataFrame
    kept: pd.DataFrame
    labels: pd.DataFrame
    confusion: pd.DataFrame
    scores: pd.DataFrame
    subprofiles: tuple[SubProfiles, ...]

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over folds of each metric, with the mean chance level and the number of folds
        with p < 0.05."""
        groups = self.metrics.groupby(["method", "subset", "metric"], sort=True)
        table = groups.agg(
            value=("value", "mean"), sd=("value", "std"), chance=("chance", "mean"), folds=("fold", "size")
        )
        beyond = groups["p"].apply(lambda p: int((p < 0.05).sum()))
        return table.assign(folds_beyond_chance=beyond).reset_index()

    def write(self, folder: str | Path) -> None:
        """CSV files of every table (scores: parquet) in `folder`, and the sub-profiles of fold i in
        `folder/subprofiles_i`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"metrics": self.metrics, "summary": self.summary(), "folds": self.folds, "labels": self.labels}
        for name, table in {**parts, "funnel": self.funnel, "kept": self.kept}.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        self.confusion.to_csv(folder / "confusion.csv", index_label="true")
        self.scores.to_parquet(folder / "scores.parquet", index=False)
        for i, sub in enumerate(self.subprofiles):
            (folder / f"subprofiles_{i}").mkdir(exist_ok=True)
            sub.write(folder / f"subprofiles_{i}" / "subprofiles.parquet")


MATCHES = {"inchikey": slice(None), "exact": slice(None), "inchikey14": slice(14)}


def match_key(words: pd.Series, match: str) -> pd.Series:
    """The part of each key that is compared; missing keys stay missing."""
    if match not in MATCHES:
        raise InvalidProfiles(f"match must be one of {sorted(MATCHES)}, got {match!r}")
    return words.astype("string").str.strip().str[MATCHES[match]]


def label_sets(labels: pd.DataFrame, config: ProtocolConfig) -> dict[str, frozenset[str]]:
    """Compound key -> its labels. Rows of one key are united; rows without a key, label or required column are left
    out."""
    needed = [config.label_key, config.label, *config.require]
    if missing := [c for c in needed if c not in labels.columns]:
        raise InvalidProfiles(f"labels have no columns {missing}: they have {list(labels.columns)}")
    table = labels[needed].replace("", np.nan).dropna()
    keys = match_key(table[config.label_key], config.match)
    sets: dict[str, set[str]] = {}
    for key, words in zip(keys, table[config.label].astype(str), strict=True):
        sets.setdefault(str(key), set()).update(w.strip() for w in words.split(SEPARATOR) if w.strip())
    return {key: frozenset(words) for key, words in sets.items() if words}


@dataclass(frozen=True)
class Annotated:
    """Profiles, one row a compound, with the labels of each, and the count after each rule."""

    profiles: Profiles
    labels: tuple[str, ...]
    truth: Bool[np.ndarray, "n l"]
    funnel: pd.DataFrame


def annotate(profiles: Profiles, labels: pd.DataFrame, config: ProtocolConfig) -> Annotated:
    """Apply the rules: matched by key, one profile a compound (mean of those that share a key), single label, label big
    enough. Raises `InvalidProfiles` when no label is left, with the counts."""
    steps: list[tuple[str, int, int]] = [("profiles", len(profiles), 0)]
    key = match_key(pd.Series(profiles.column(config.profile_key)), config.match)
    sets = label_sets(labels, config)
    have = key.isin(list(sets)).to_numpy(dtype=bool)
    keyed = Profiles(profiles.meta.assign(**{KEY: key.astype(object)}), profiles.values, profiles.names).rows(have)
    steps.append(("with a label", len(keyed), _n_labels(sets, keyed)))
    one = aggregate(keyed, [KEY]) if len(keyed) else keyed
    steps.append(("one a compound", len(one), _n_labels(sets, one)))
    if config.single:
        one = one.rows(np.array([len(sets[k]) == 1 for k in one.meta[KEY]], dtype=bool))
        steps.append(("with a single label", len(one), _n_labels(sets, one)))
    counts = pd.Series([word for k in one.meta[KEY] for word in sorted(sets[k])], dtype=object).value_counts()
    big = tuple(sorted(counts[counts >= config.min_compounds].index))
    truth = np.array([[word in sets[k] for word in big] for k in one.meta[KEY]], dtype=bool).reshape(len(one), len(big))
    keep = np.asarray(truth.any(axis=1), dtype=bool)
    steps.append((f"label with {config.min_compounds} compounds", int(keep.sum()), len(big)))
    funnel = pd.DataFrame(steps, columns=["rule", "compounds", "labels"])
    if not big:
        raise InvalidProfiles(f"no label is left: {funnel.to_dict('records')}: lower min_compounds or check the keys")
    return Annotated(one.rows(keep), big, truth[keep], funnel)


def _n_labels(sets: Mapping[str, frozenset[str]], profiles: Profiles) -> int:
    return len({word for k in profiles.meta[KEY] for word in sets[k]})


def choose_references(
    truth: Bool[np.ndarray, "n l"], references: int, rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """Random compounds so that every label has at least `references`: labels in random order, each filled up from its
    compounds, those chosen for another label counted (as the paper's 88 to 98 reference compounds for its targets)."""
    chosen = np.zeros(len(truth), dtype=bool)
    for j in rng.permutation(truth.shape[1]):
        free = np.flatnonzero(truth[:, j] & ~chosen)
        lacking = references - int((truth[:, j] & chosen).sum())
        if lacking > 0:
            chosen[rng.choice(free, min(lacking, len(free)), replace=False)] = True
    return chosen


def fold_subprofiles(data: Annotated, config: ProtocolConfig, chosen: Bool[np.ndarray, " n"]) -> SubProfiles:
    """The sub-profiles of one fold, from its references `chosen` only: features are selected on them too."""
    used = data.profiles
    if config.select_features:
        used = used.features(select(used.rows(chosen), SelectConfig()).names)
    members = [(row, j) for row in np.flatnonzero(chosen) for j in np.flatnonzero(data.truth[row])]
    values = used.values[[row for row, _ in members]]
    words = [data.labels[j] for _, j in members]
    return build(values, words, used.names, config.convention, config.references, config.agree)


def draw_folds(data: Annotated, config: ProtocolConfig) -> Bool[np.ndarray, "f n"]:
    """Reference masks: fold i is drawn from `seed` and i."""
    draws = (
        choose_references(data.truth, config.references, np.random.default_rng([config.seed, i]))
        for i in range(config.folds)
    )
    return np.stack(list(draws))


def score_folds(
    data: Annotated, config: ProtocolConfig, fixed: Bool[np.ndarray, "f n"] | None = None
) -> tuple[list[tuple[Bool[np.ndarray, " n"], Float[np.ndarray, "q l"]]], pd.DataFrame]:
    """For each fold the reference mask and the Biosimilarity of the queries (the other rows, in order) to each label.

    `fixed` gives the reference masks; otherwise they are drawn. Also the features kept.
    """
    folds, kept = [], []
    for i, chosen in enumerate(draw_folds(data, config) if fixed is None else fixed):
        sub = fold_subprofiles(data, config, chosen)
        folds.append((chosen, score_queries(data, chosen, sub)))
        kept.append(sub.summary().assign(fold=i, n_features_offered=len(sub.names)))
    return folds, pd.concat(kept, ignore_index=True)


def score_queries(data: Annotated, chosen: Bool[np.ndarray, " n"], sub: SubProfiles) -> Float[np.ndarray, "q l"]:
    """Biosimilarity of the rows that are no reference to each label; NaN for a label without sub-profile."""
    scores = np.full((int((~chosen).sum()), len(data.labels)), np.nan)
    at = [data.labels.index(label) for label in sub.labels]
    scores[:, at] = biosimilarity(data.profiles.features(sub.names).values[~chosen], sub, missing="pairwise")
    return scores


def nearest_reference(similarity: Float[np.ndarray, "q r"], truth: Bool[np.ndarray, "r l"]) -> Float[np.ndarray, "q l"]:
    """Baseline scores: the similarity (Tanimoto, minus difference in cell count, correlation ...) of each query to the
    closest reference compound of each label; NaN for a label without references."""
    scores = np.full((len(similarity), truth.shape[1]), np.nan)
    for j in range(truth.shape[1]):
        if truth[:, j].any():
            scores[:, j] = similarity[:, truth[:, j]].max(axis=1)
    return scores


def score(
    profiles: Profiles,
    labels: pd.DataFrame,
    config: ProtocolConfig | None = None,
    beside: Mapping[str, Similarity] | None = None,
) -> Report:
    """Profiles (normalised, control at 0) and labels -> `Report`. Same input and seed, same report.

    `beside` names other similarities of compounds (cell count alone, structure alone); each is scored in the same
    folds by the most similar reference of each label.
    """
    config = config or ProtocolConfig()
    data = annotate(profiles, labels, config)
    similar = {name: make(data.profiles) for name, make in (beside or {}).items()}
    chosen_by_fold = draw_folds(data, config)
    subprofiles = tuple(fold_subprofiles(data, config, chosen) for chosen in chosen_by_fold)
    metrics: list[pd.DataFrame] = []
    roles: list[pd.DataFrame] = []
    by_label: list[pd.DataFrame] = []
    scored: list[pd.DataFrame] = []
    called = np.zeros((len(data.labels), len(data.labels) + 1), dtype=np.int64)
    words = [SEPARATOR.join(np.array(data.labels)[t]) for t in data.truth]
    for i, (chosen, sub) in enumerate(zip(chosen_by_fold, subprofiles, strict=True)):
        truth = data.truth[~chosen]
        scores = score_queries(data, chosen, sub)
        others = {n: nearest_reference(s[np.ix_(~chosen, chosen)], data.truth[chosen]) for n, s in similar.items()}
        for method, found in {OWN: scores, **others}.items():
            metrics.append(_evaluate(found, truth, data.profiles.rows(~chosen), config, i).assign(method=method))
        rng = np.random.default_rng([config.seed, i, 1_000_000])
        by_label.append(
            label_table(scores, truth, data.labels, rng, config.permutations, config.resamples).assign(fold=i)
        )
        called += confusion(scores, truth)
        keys = data.profiles.meta[KEY]
        role = np.where(chosen, "reference", "query")
        roles.append(pd.DataFrame({"fold": i, "key": keys, "role": role, "labels": words}))
        one = pd.DataFrame(scores, columns=list(data.labels))
        one.insert(0, "key", keys[~chosen].to_numpy())
        one.insert(0, "fold", i)
        scored.append(one)
    every = pd.concat(metrics, ignore_index=True)
    return Report(
        metrics=every.assign(q=false_discovery_rate(every["p"].to_numpy(dtype=np.float64))),
        folds=pd.concat(roles, ignore_index=True),
        funnel=data.funnel,
        kept=pd.concat(
            [s.summary().assign(fold=i, n_features_offered=len(s.names)) for i, s in enumerate(subprofiles)],
            ignore_index=True,
        ),
        labels=pd.concat(by_label, ignore_index=True),
        confusion=pd.DataFrame(called, index=list(data.labels), columns=[*data.labels, NO_CALL]),
        scores=pd.concat(scored, ignore_index=True),
        subprofiles=subprofiles,
    )


def _evaluate(
    scores: Float[np.ndarray, "q l"],
    truth: Bool[np.ndarray, "q l"],
    queries: Profiles,
    config: ProtocolConfig,
    fold: int,
) -> pd.DataFrame:
    rows: list[pd.DataFrame] = []
    for number, (name, members) in enumerate(_subsets(queries, config.subset).items()):
        if not truth[members].any():
            continue
        rng = np.random.default_rng([config.seed, fold, number])
        table = evaluate(scores[members], truth[members], rng, METRICS, config.permutations, config.resamples)
        rows.append(table.assign(fold=fold, subset=name))
    return pd.concat(rows, ignore_index=True)


def _subsets(queries: Profiles, column: str) -> dict[str, Bool[np.ndarray, " q"]]:
    everyone = {"all": np.ones(len(queries), dtype=bool)}
    if not column:
        return everyone
    values = queries.column(column)
    return everyone | {f"{column}={value}": values == value for value in sorted(set(values.tolist()), key=str)}


def for_targets(config: ProtocolConfig, label: str = "target") -> ProtocolConfig:
    """The paper's protocol for targets: several a compound."""
    return replace(config, label=label, single=False)
