"""Is a compound active, and are its neighbours enriched for its own mechanism?

- folds of enrichment: odds ratio of sharing a label among the closest 1 % (PhenoProfiler, DeepProfiler);
- mAP-ES: Cohen's d between a treatment's distribution of mAP and that of DMSO, active from 0.8 (brightfield paper);
- the nuclear count as the baseline of activity: active where the interval of the median z lies below 0;
- IMAD, only beside the replicate mAP: an embedding that maps everything onto a point maximises it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.spatial.distance import pdist
from scipy.stats import fisher_exact

from profiling.profiles import InvalidProfiles, Words
from profiling.statistics import cohen_d

ACTIVE = 0.8  # a large effect, Cohen 1988


def folds_of_enrichment(
    similarity: Float[np.ndarray, "n n"], match: Bool[np.ndarray, "n n"], top: float = 0.01
) -> pd.DataFrame:
    """For each query with a match: `odds_ratio` of a match above against below the (1 - `top`) quantile of its
    similarities.

    One-sided Fisher `p`; the query itself is left out. Where the table has an empty cell that makes the ratio
    infinite it is replaced by the number of non-matches below the threshold, as the published code does; `infinite`
    says so. The reported figure is the mean of `odds_ratio`, and its chance level is 1.
    """
    rows = []
    for i in range(len(similarity)):
        others = np.arange(len(similarity)) != i
        s, m = similarity[i, others], match[i, others]
        if not m.any() or m.all():
            continue
        above = s > np.quantile(s, 1 - top)
        counts = [
            [int((above & m).sum()), int((above & ~m).sum())],
            [int((~above & m).sum()), int((~above & ~m).sum())],
        ]
        ratio, p = fisher_exact(counts, alternative="greater")
        endless = bool(np.isinf(ratio))
        rows.append((i, float(counts[1][1]) if endless else float(ratio), endless, float(p)))
    return pd.DataFrame(rows, columns=["query", "odds_ratio", "infinite", "p"])


@dataclass(frozen=True)
class EffectSizeConfig:
    """The brightfield paper's numbers."""

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
) -> Float[np.ndarray, " s"]:
    out = []
    for _ in range(config.samples):
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
    """mAP-ES of each treatment: columns `treatment`, `map`, `effect_size`, `active` (at least 0.8), `n_samples`.

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
    for name in sorted(set(names[~control].tolist())):
        members = np.flatnonzero((names == name) & ~control)
        drawn = _sampled_precision(unit, members, at, repeat, controls, config, rng)
        size = cohen_d(drawn, null) if len(drawn) else float("nan")
        value = float(drawn.mean()) if len(drawn) else float("nan")
        rows.append((name, value, size, bool(size >= ACTIVE), len(drawn)))
    return pd.DataFrame(rows, columns=["treatment", "map", "effect_size", "active", "n_samples"])


def count_activity(
    z: Float[np.ndarray, " n"],
    treatment: Words,
    rng: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> pd.DataFrame:
    """Activity by nuclear count alone: `median` of the count's z-score to the plate's DMSO, bootstrap `low` and `high`.

    `active` where `high` is below 0. A profile that finds no more active compounds than this adds nothing.
    """
    names = np.asarray(treatment, dtype=object)
    tail = 100 * (1 - level) / 2
    rows = []
    for name in sorted(set(names.tolist())):
        x = z[names == name]
        medians = np.median(x[rng.integers(0, len(x), (resamples, len(x)))], axis=1)
        low, high = np.percentile(medians, [tail, 100 - tail])
        rows.append((name, float(np.median(x)), float(low), float(high), bool(high < 0), len(x)))
    return pd.DataFrame(rows, columns=["treatment", "median", "low", "high", "active", "n_wells"])


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
