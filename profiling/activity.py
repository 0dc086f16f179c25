"""Is a compound active?

- mAP-ES: Cohen's d between a treatment's distribution of mAP and that of DMSO, active from 0.8 (brightfield paper);
- the nuclear count as the baseline of activity: active where the interval of the median z lies below 0;
- percent active: the share of compounds whose q is below a level, with its interval;
- IMAD, only beside the replicate mAP: an embedding that maps everything onto a point maximises it.

Each comes with what shuffled labels give, a p or q, and an interval.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.spatial.distance import pdist

from profiling.profiles import InvalidProfiles, Words
from profiling.statistics import cohen_d, false_discovery_rate

ACTIVE = 0.8  # a large effect, Cohen 1988


@dataclass(frozen=True)
class PercentActive:
    """Share of compounds with q below `alpha`; `chance`: the share with p drawn at random; bootstrap over compounds."""

    value: float
    chance: float
    low: float
    high: float
    n: int


def percent_active(
    p: Float[np.ndarray, " n"], rng: np.random.Generator, alpha: float = 0.05, resamples: int = 1000
) -> PercentActive:
    """p of each compound (replicates against controls, say) -> share that is active at false discovery rate `alpha`.

    The bootstrap draws compounds and corrects again. Raises `InvalidProfiles` for no p or a NaN among them.
    """
    if len(p) == 0 or np.isnan(p).any():
        raise InvalidProfiles(f"p has {len(p)} values, {int(np.isnan(p).sum())} of them NaN: leave those out first")

    def share(values: Float[np.ndarray, " n"]) -> float:
        return float((false_discovery_rate(values) < alpha).mean())

    spread = [share(p[rng.integers(0, len(p), len(p))]) for _ in range(resamples)]
    chance = float(np.mean([share(rng.random(len(p))) for _ in range(100)]))
    low, high = np.percentile(spread, [2.5, 97.5])
    return PercentActive(share(p), chance, float(low), float(high), len(p))


@dataclass(frozen=True)
class EffectSizeConfig:
    """The brightfield paper's numbers, and how chance and interval are made."""

    pseudo: int = 50  # treatments made of DMSO wells, for chance and p
    resamples: int = 50  # bootstraps over the wells of a treatment; 0: no interval
    resampled: int = 200  # samples in each of them
    positives: int = 3  # wells of the same treatment, each from another plate (and another of `differ_by`)
    negatives: int = 31  # DMSO wells of the query's plate
    samples: int = 1000  # drawn for each treatment


def _sampled_precision(
    unit: Float[np.ndarray, "n k"],
    members: np.ndarray,
    plate: np.ndarray,
    differ: np.ndarray,
    controls: dict[object, np.ndarray],
    config: EffectSizeConfig,
    rng: np.random.Generator,
    samples: int = 0,
) -> Float[np.ndarray, " s"]:
    out = []
    for _ in range(samples or config.samples):
        query = int(rng.choice(members))
        elsewhere = members[(plate[members] != plate[query]) & (differ[members] != differ[query])]
        dmso = controls.get(plate[query], np.empty(0, dtype=int))
        dmso = dmso[dmso != query]
        if len(elsewhere) == 0 or len(dmso) == 0:
            continue
        positive = rng.choice(elsewhere, min(config.positives, len(elsewhere)), replace=False)
        negative = rng.choice(dmso, min(config.negatives, len(dmso)), replace=False)
        own = -np.sort(-(unit[positive] @ unit[query]))
        above = (unit[negative] @ unit[query])[None, :] >= own[:, None]
        hits = (own[None, :] >= own[:, None]).sum(axis=1)
        out.append(float((hits / (hits + above.sum(axis=1))).mean()))
    return np.array(out)


def map_effect_size(
    unit: Float[np.ndarray, "n k"],
    treatment: Words,
    plate: Words,
    replicate: Words,
    control: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
    config: EffectSizeConfig | None = None,
) -> pd.DataFrame:
    """mAP-ES of each treatment: columns `treatment`, `map`, `effect_size`, `active` (at least 0.8), `n_samples`;
    `low`..`high` (95 % bootstrap over its wells), `chance` (mean of treatments made of as many DMSO wells), one-sided
    `p` and `q` against those.

    `unit` are rows of length 1 (`retrieval.unit_rows`). A sample takes a query well of the treatment, positives from
    other plates and other replicates, and negatives among the DMSO wells of the query's plate. The null takes its
    query and positives among the DMSO wells, so plate effects are in it. NaN where no sample could be drawn.
    """
    config = config or EffectSizeConfig()
    at, repeat = np.asarray(plate, dtype=object), np.asarray(replicate, dtype=object)
    controls = {p: np.flatnonzero(control & (at == p)) for p in set(at.tolist())}
    names = np.asarray(treatment, dtype=object)
    null = _sampled_precision(unit, np.flatnonzero(control), at, repeat, controls, config, rng)
    if len(null) == 0:
        raise InvalidProfiles("control: no DMSO well has another on its plate and one on another plate and replicate")
    rows = []
    by_chance: dict[int, Float[np.ndarray, " m"]] = {}
    for name in sorted(set(names[~control].tolist())):
        members = np.flatnonzero((names == name) & ~control)
        drawn = _sampled_precision(unit, members, at, repeat, controls, config, rng)
        size = cohen_d(drawn, null) if len(drawn) else float("nan")
        value = float(drawn.mean()) if len(drawn) else float("nan")
        low, high = _size_interval(unit, members, at, repeat, controls, null, config, rng)
        if len(members) not in by_chance:
            by_chance[len(members)] = _pseudo_sizes(unit, len(members), at, repeat, controls, null, config, rng)
        chance = by_chance[len(members)]
        p = float((1 + (chance >= size).sum()) / (1 + len(chance))) if len(chance) and size == size else float("nan")
        mean = float(chance.mean()) if len(chance) else float("nan")
        rows.append((name, value, size, bool(size >= ACTIVE), len(drawn), low, high, mean, p))
    columns = ["treatment", "map", "effect_size", "active", "n_samples", "low", "high", "chance", "p"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(q=false_discovery_rate(table["p"].to_numpy(dtype=np.float64)))


def _size_interval(
    unit: Float[np.ndarray, "n k"],
    members: np.ndarray,
    plate: np.ndarray,
    differ: np.ndarray,
    controls: dict[object, np.ndarray],
    null: Float[np.ndarray, " s"],
    config: EffectSizeConfig,
    rng: np.random.Generator,
) -> tuple[float, float]:
    sizes = []
    for _ in range(config.resamples):
        own = rng.choice(members, len(members))
        drawn = _sampled_precision(unit, own, plate, differ, controls, config, rng, config.resampled)
        if len(drawn) > 1:
            sizes.append(cohen_d(drawn, null))
    low, high = np.nanpercentile(sizes, [2.5, 97.5]) if len(sizes) > 1 else (np.nan, np.nan)
    return float(low), float(high)


def _pseudo_sizes(
    unit: Float[np.ndarray, "n k"],
    size: int,
    plate: np.ndarray,
    differ: np.ndarray,
    controls: dict[object, np.ndarray],
    null: Float[np.ndarray, " s"],
    config: EffectSizeConfig,
    rng: np.random.Generator,
) -> Float[np.ndarray, " m"]:
    """Effect sizes of treatments that are `size` DMSO wells, each from another plate while there are plates; those
    wells are no negatives then."""
    out = []
    plates = [p for p, wells in controls.items() if len(wells) > 1]
    for _ in range(config.pseudo):
        order = [plates[i] for i in rng.permutation(len(plates))]
        own: list[int] = []
        for i in range(size):
            free = np.setdiff1d(controls[order[i % len(order)]], own)
            if len(free) > 1:
                own.append(int(rng.choice(free)))
        rest = {p: np.setdiff1d(wells, own) for p, wells in controls.items()}
        members = np.array(own, dtype=int)
        drawn = _sampled_precision(unit, members, plate, differ, rest, config, rng) if own else np.empty(0)
        if len(drawn):
            out.append(cohen_d(drawn, null))
    return np.array(out, dtype=np.float64)


def count_activity(
    z: Float[np.ndarray, " n"],
    treatment: Words,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Activity by nuclear count alone: `median` of the count's z-score to the plate's DMSO, bootstrap `low` and `high`.

    `active` where `high` is below 0. A profile that finds no more active compounds than this adds nothing. `p` is the
    bootstrap's share of medians not below 0, `q` that corrected over the treatments; by chance the median is 0.
    """
    names = np.asarray(treatment, dtype=object)
    tail = 100 * (1 - level) / 2
    rows = []
    for name in sorted(set(names.tolist())):
        x = z[names == name]
        medians = np.median(x[rng.integers(0, len(x), (resamples, len(x)))], axis=1)
        low, high = np.percentile(medians, [tail, 100 - tail])
        p = float((1 + (medians >= 0).sum()) / (1 + resamples))
        rows.append((name, float(np.median(x)), float(low), float(high), bool(high < 0), len(x), p))
    table = pd.DataFrame(rows, columns=["treatment", "median", "low", "high", "active", "n_wells", "p"])
    return table.assign(q=false_discovery_rate(table["p"].to_numpy(dtype=np.float64)))


def beyond_count(by_profile: pd.DataFrame, by_count: pd.DataFrame) -> pd.DataFrame:
    """Activity against nuclear count: how many treatments are active by both, by the profile only, by the count only,
    by neither. Columns `by_profile`, `by_count`, `treatments`, `share`; four rows. Tables as of `map_effect_size` and
    `count_activity`; treatments that are in one table only raise `InvalidProfiles`.
    """
    if set(by_profile["treatment"]) != set(by_count["treatment"]):
        odd = sorted(set(by_profile["treatment"]) ^ set(by_count["treatment"]), key=str)[:3]
        raise InvalidProfiles(f"the tables have other treatments, such as {odd}: give the same to both")
    both = by_profile[["treatment", "active"]].merge(by_count[["treatment", "active"]], on="treatment")
    rows = []
    for profile in (True, False):
        for count in (True, False):
            found = int(((both["active_x"] == profile) & (both["active_y"] == count)).sum())
            rows.append((profile, count, found, found / len(both)))
    return pd.DataFrame(rows, columns=["by_profile", "by_count", "treatments", "share"])


@dataclass(frozen=True)
class Cohesion:
    """IMAD and, never apart from it, the mAP with which replicates find each other in the same embedding."""

    imad: float
    replicate_map: float


def cohesion(coordinates: Float[np.ndarray, "n d"], replicate_map: float) -> Cohesion:
    """IMAD = 1 / median |distance - median distance| over all pairs of points of an embedding (PhenoProfiler: UMAP)."""
    distance = pdist(coordinates)
    spread = float(np.median(np.abs(distance - np.median(distance))))
    return Cohesion(1 / spread if spread > 0 else float("inf"), replicate_map)
