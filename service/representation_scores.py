"""Scores of one representation of a screen: replicates, mechanisms, activity, probes, each with chance and interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from profiling.activity import EffectSizeConfig, cohesion, map_effect_size
from profiling.embedders.evaluate import activity_and_consistency, effect_sizes, linear_probe, rank_hits
from profiling.embedders.evaluate.doses import folds_of
from profiling.embedding import coordinates
from profiling.enrichment import enrichment
from profiling.metrics import interpolated_average_precision
from profiling.profiles import COUNT_CELLS, COUNT_NUCLEI, META, InvalidProfiles, Profiles, aggregate
from profiling.retrieval import Pairing, average_precisions, unit_rows
from profiling.shuffle import found
from profiling.steps import run_steps
from service.real.study import row

REPLICATES = "replicates in other batches"
MECHANISM, UNSEEN = "mechanism, among compounds", "mechanism, compounds never trained on"
SAME_COMPOUND = Pairing(("compound",), ("batch",), (), ("compound",))
SAME_MOA = Pairing(("moa",), ("compound",), (), ("moa",), several=("moa",))
#: By batch and not by plate: a painted plate has few controls, and the MAD of six wells is off by a third.
STEPS: Sequence[dict[str, Any]] = (
    {"name": "mad_robustise", "by": ["batch"]},
    {"name": "select", "fit_on": "all", "missing": 0.0},
    {"name": "pca", "fit_on": "all", "keep": 0.99},
)


@dataclass(frozen=True)
class ScoreConfig:
    """`permutations`: shuffled labelings behind each p; `draws`: of mAP-ES; `imad`: UMAP too, which takes a minute."""

    permutations: int = 99
    draws: int = 1000
    imad: bool = False
    seed: int = 1


def prepared(fields: Profiles, control: str, steps: Sequence[dict[str, Any]] = STEPS) -> tuple[Profiles, np.ndarray]:
    """Fields to wells (means), each batch to its controls, selected, PCA: profiles and which are controls. Wells
    without a measured cell and batches with fewer than two controls are left out; so is the cell count."""
    wells = aggregate(fields, [c for c in ("plate", "well", "compound") if META + c in fields.meta.columns])
    wells = complete(wells)
    controls = wells.column("compound") == control
    batch = wells.column("batch")
    kept = np.isin(batch, sorted({b for b in set(batch) if (controls & (batch == b)).sum() >= 2}))
    wells, controls = wells.rows(kept), controls[kept]
    done = run_steps(wells, list(steps), controls)
    return done.profiles, done.controls


def complete(profiles: Profiles, missing: float = 0.01) -> Profiles:
    """Rows without NaN in the features that at most `missing` of the measured rows lack; without the cell counts."""
    own = profiles.features([n for n in profiles.names if n not in (COUNT_CELLS, COUNT_NUCLEI)])
    own = own.rows(np.isfinite(own.values).any(axis=1))
    kept = ~np.isfinite(own.values)
    names = [n for n, share in zip(own.names, kept.mean(axis=0), strict=True) if share <= missing]
    own = own.features(names)
    return own.rows(np.isfinite(own.values).all(axis=1))


def consensus(wells: Profiles, controls: Bool[np.ndarray, " n"]) -> Profiles:
    """Mean over the wells of each treated compound with a mechanism."""
    treated = wells.rows(~controls & wells.meta[META + "moa"].notna().to_numpy())
    keep = [c for c in (META + "compound", META + "moa", META + "unseen") if c in treated.meta.columns]
    return aggregate(Profiles(treated.meta[keep], treated.values, treated.names), ["compound"])


Refusal = dict[str, str]
Part = Callable[[], list[dict[str, Any]]]


def scores(
    name: str, wells: Profiles, controls: Bool[np.ndarray, " n"], config: ScoreConfig
) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """All scores of one representation: rows with method, metric, value, chance, null, low, high, p; and what the table
    does not allow (no replicate in another batch, say), with the reason."""
    treated, compounds = wells.rows(~controls), consensus(wells, controls)
    k, shuffled = len(wells.names), config.permutations
    rng = np.random.default_rng(config.seed)

    def retrieval() -> list[dict[str, Any]]:
        return [row(name, REPLICATES, found(treated, SAME_COMPOUND, ["compound"], rng, "compound", ["plate"], shuffled),
                    features=k)]  # fmt: skip

    def mechanism() -> list[dict[str, Any]]:
        return [row(name, MECHANISM, found(compounds, SAME_MOA, ["moa"], rng, permutations=shuffled), features=k)]

    def unseen() -> list[dict[str, Any]]:
        new = compounds.column("unseen").astype(bool)
        return [
            row(name, UNSEEN, found(compounds, SAME_MOA, ["moa"], rng, permutations=shuffled, queries=new), features=k)
        ]

    parts: dict[str, Part] = {
        REPLICATES: retrieval,
        MECHANISM: mechanism,
        "ranking": lambda: ranked(name, compounds, rng, shuffled),
        "activity and consistency": lambda: active(name, wells, controls, rng),
        "active by mAP-ES": lambda: sized(name, wells, controls, config, rng),
        "linear probe": lambda: probed(name, treated, rng),
    }
    if META + "unseen" in compounds.meta.columns and compounds.column("unseen").any():
        parts[UNSEEN] = unseen
    if META + "strength" in wells.meta.columns:
        parts["hits"] = lambda: hits(name, wells, controls)
    made: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    for metric, part in parts.items():
        try:
            made += part()
        except InvalidProfiles as error:
            refused.append({"method": name, "metric": metric, "reason": str(error)})
    if config.imad:
        replicate = [one["value"] for one in made if one["metric"] == REPLICATES]
        imad = cohesion(coordinates(wells.values, config.seed), replicate[0] if replicate else float("nan")).imad
        made.append(line(name, "IMAD (only beside replicates)", imad, float("nan")))
    return made, refused


def line(name: str, metric: str, value: float, chance: float, low: float = float("nan"), high: float = float("nan"),
         p: float = float("nan"), n: int = 0) -> dict[str, Any]:  # fmt: skip
    """A score in the columns of `service.real.study.row`."""
    return {"method": name, "metric": metric, "value": value, "chance": chance, "null": float("nan"), "low": low,
            "high": high, "p": p, "n_groups": n, "n_queries": n, "features": 0, "fitted": ""}  # fmt: skip


def bootstrapped(values: Float[np.ndarray, " n"], rng: np.random.Generator, draws: int = 1000) -> tuple[float, float]:
    """95 % percentile interval of a mean."""
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def ranked(name: str, compounds: Profiles, rng: np.random.Generator, permutations: int) -> list[dict[str, Any]]:
    """Folds of enrichment, interpolated MAP and recall@k among the compounds (PhenoProfiler)."""
    words = compounds.column("moa").astype(str)
    match = np.array([[bool(set(a.split("|")) & set(b.split("|"))) for b in words] for a in words])
    np.fill_diagonal(match, False)
    unit = unit_rows(compounds.values)
    similar = unit @ unit.T
    ask = match.any(axis=1)
    if not ask.any():
        return []
    n = len(words)
    others = ~np.eye(n, dtype=bool)
    rows = np.array([similar[i][others[i]] for i in range(n)])[ask]
    truth = np.array([match[i][others[i]] for i in range(n)])[ask]
    made = []
    precise = interpolated_average_precision(rows, truth)
    base = np.mean([interpolated_average_precision(rows, rng.permuted(truth, axis=1)).mean() for _ in range(20)])
    made.append(
        line(name, "interpolated MAP", float(precise.mean()), float(base), *bootstrapped(precise, rng), n=len(rows))
    )
    order = np.argsort(-rows, axis=1, kind="stable")
    right = np.take_along_axis(truth, order, axis=1)
    for k in (1, 3, 5, 10):
        share = right[:, :k].sum(axis=1) / truth.sum(axis=1)
        chance = float(min(k / truth.shape[1], 1.0))
        made.append(line(name, f"recall@{k}", float(share.mean()), chance, *bootstrapped(share, rng), n=len(rows)))
    top = max(0.01, 1.5 / (n * (n - 1)))
    fold = enrichment(similar, match, rng, top=top, permutations=permutations, resamples=200)
    made.append(line(name, "folds of enrichment, top 1 %", fold.value, fold.chance, fold.low, fold.high, fold.p, n))
    return made


def active(
    name: str, wells: Profiles, controls: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Activity and consistency: what is not significant counts as 0."""
    both = activity_and_consistency(wells, controls, rng, size=2000)
    made = []
    for metric, table in (("activity", both.compounds), ("consistency", both.targets)):
        counted = table["counted"].to_numpy(np.float64)
        if len(counted):
            interval = bootstrapped(counted, rng)
            text = f"{metric}, not significant as 0"
            made.append(line(name, text, float(counted.mean()), 0.0, *interval, n=len(counted)))
    return made


def sized(
    name: str, wells: Profiles, controls: Bool[np.ndarray, " n"], config: ScoreConfig, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Share of compounds with an mAP-ES of at least 0.8; chance: the same of treatments made of DMSO wells is 0."""
    columns = [wells.column(c) for c in ("compound", "plate", "batch")]
    sizes = EffectSizeConfig(pseudo=20, resamples=0, samples=config.draws)
    table = map_effect_size(unit_rows(wells.values), columns[0], columns[1], columns[2], controls, rng, sizes)
    share = table.dropna(subset=["effect_size"])["active"].to_numpy(np.float64)
    if not len(share):
        return []
    return [line(name, "active by mAP-ES", float(share.mean()), 0.0, *bootstrapped(share, rng), n=len(share))]


def hits(name: str, wells: Profiles, controls: Bool[np.ndarray, " n"]) -> list[dict[str, Any]]:
    """AUC of the Wasserstein effect for the compounds whose true effect is in the larger half."""
    names, effect = effect_sizes(wells.values, wells.column("compound").astype(str), controls)
    true = pd.Series(wells.column("strength")[~controls], index=wells.column("compound")[~controls].astype(str))
    own = true.groupby(level=0).first().loc[list(names)].to_numpy(np.float64)
    told = rank_hits(effect, own >= np.median(own))
    return [line(name, "hits by Wasserstein effect, AUC", told.auc, 0.5, n=told.treatments)]


def probed(name: str, treated: Profiles, rng: np.random.Generator, folds: int = 5) -> list[dict[str, Any]]:
    """Linear probe of the mechanism on wells, five folds over compounds: a well's compound was never in the fit."""
    known = treated.rows(treated.meta[META + "moa"].notna().to_numpy())
    compound, moa = known.column("compound"), known.column("moa").astype(str)
    fold = folds_of(compound, moa, folds, rng)
    right = []
    for f in range(folds):
        own = fold == f
        if own.any() and not own.all():
            probe = linear_probe(known.values[~own], moa[~own], known.values[own], moa[own], strength=0.1)
            right.append((probe.accuracy, probe.chance, int(own.sum())))
    table = np.array(right)
    value, chance = (np.average(table[:, i], weights=table[:, 2]) for i in (0, 1))
    interval = bootstrapped(table[:, 0], rng)
    return [
        line(name, "linear probe, other compounds", float(value), float(chance), *interval, n=int(table[:, 2].sum()))
    ]


def per_compound(profiles: Profiles, pairing: Pairing) -> pd.Series:
    """Mean average precision of each compound's queries."""
    table = average_precisions(profiles, pairing)
    return table.groupby(META + "compound", sort=True)["average_precision"].mean()


def gain(
    name: str,
    one: tuple[Profiles, np.ndarray],
    base: tuple[Profiles, np.ndarray],
    rng: np.random.Generator,
    against: str = "its untrained twin",
) -> list[dict[str, Any]]:
    """How much more a representation finds than another, compound by compound (paired bootstrap)."""
    made = []
    for metric, pairing, make in (
        (REPLICATES, SAME_COMPOUND, lambda w, c: w.rows(~c)),
        (MECHANISM, SAME_MOA, consensus),
    ):
        try:
            both = pd.concat([per_compound(make(*part), pairing) for part in (one, base)], axis=1, join="inner")
        except InvalidProfiles as error:
            if "no query" not in str(error):
                raise
            continue
        difference = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy(np.float64)
        low, high = bootstrapped(difference, rng)
        made.append(line(f"{name} minus {against}", f"gain: {metric}", float(difference.mean()), 0.0, low, high,
                         n=len(difference)))  # fmt: skip
    return made
