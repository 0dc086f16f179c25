r"""Sub-profiles of labels, and Biosimilarity to them, in the two published conventions.

The sub-profile of a label (an MoA, a target) = the features on which its reference compounds agree in sign, valued at
their median. The Biosimilarity of a profile u = Pearson correlation with the sub-profile v on those features:

    (u - mean u) . (v - mean v) / (|u - mean u| |v - mean v|)                                          (Equation 3)

convention   agreement     zero counts as   u, v clipped   similarity
"paper"      > 85 %        neither sign     no             in [-1, 1]
"reference"  >= 85 %       positive         to +-25        max(0, .) in per cent; published tables round to 0.1

Sources: the paper's Methods, "MoA and target identification via subprofiling";
mpimp-comas/2022_pahl_ziegler_subprofiles. Scoring many profiles against many labels is three matrix products,
whatever the number of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num
from scipy.stats import binom

from profiling.damaged import readable
from profiling.profiles import InvalidProfiles
from profiling.single import Kept, correlations_of_few, kept

CLIP = {"paper": np.inf, "reference": 25.0}
CONVENTIONS = tuple(CLIP)
CHUNK = 8192  # profiles scored at once: bounds the memory of the products
FEW = 4  # profiles up to which reading only the kept features is faster than the products


@dataclass(frozen=True)
class Factors:
    """What scoring needs of the sub-profiles, computed once: [k, labels] matrices for the products."""

    v: Float[np.ndarray, "k l"]  # values, clipped, 0 outside the mask
    m: Float[np.ndarray, "k l"]  # the mask as 0 and 1
    n: Float[np.ndarray, "1 l"]  # features kept
    centred: Float[np.ndarray, "k l"]  # values minus their mean over the mask, 0 outside it
    spread: Float[np.ndarray, "1 l"]  # their sum of squares


@dataclass(frozen=True)
class SubProfiles:
    """One row a label: `values` [labels, k] and `mask` [labels, k] (True where the label keeps the feature).

    Values outside the mask are 0. `n_references` counts the reference compounds; a label with fewer than
    `min_references` keeps no feature and its Biosimilarity is NaN: no call.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    values: Float[np.ndarray, "l k"]
    mask: Bool[np.ndarray, "l k"]
    n_references: Int[np.ndarray, " l"]
    convention: str = "paper"
    agree: float = 0.85
    min_references: int = 5

    @property
    def n_features(self) -> Int[np.ndarray, " l"]:
        """Number of features that each label keeps."""
        return self.mask.sum(axis=1)

    @cached_property
    def factors(self) -> Factors:
        """The matrices that `biosimilarity` multiplies with."""
        clip = CLIP[self.convention]
        m = np.ascontiguousarray(self.mask.T, dtype=np.float64)
        v = np.clip(self.values, -clip, clip).T * m
        n = m.sum(axis=0, keepdims=True)
        centred = (v - v.sum(axis=0) / np.maximum(n, 1.0)) * m
        square = (centred**2).sum(axis=0, keepdims=True)
        spread = _spread(square, np.zeros_like(n), n, np.abs(v).max(axis=0, keepdims=True, initial=0.0))
        return Factors(v, m, n, centred, spread)

    @cached_property
    def kept(self) -> Kept:
        """The features each label keeps, for scoring a few profiles."""
        return kept(self.mask, self.factors.centred, self.factors.spread)

    def summary(self) -> pd.DataFrame:
        """One row a label: references, features kept, and how many pure noise would keep on average."""
        null = [expected_share(int(n), self.convention, self.agree) if n else np.nan for n in self.n_references]
        kept = self.n_features
        return pd.DataFrame(
            {
                "label": self.labels,
                "n_references": self.n_references,
                "n_features": kept,
                "n_features_by_chance": np.array(null) * len(self.names),
                "called": (self.n_references >= self.min_references) & (kept >= 2),
            }
        )

    def write(self, path: str | Path) -> None:
        """To parquet: one row a label; a feature outside the sub-profile is null."""
        head = pd.DataFrame({"label": self.labels, "n_references": self.n_references})
        head = head.assign(convention=self.convention, agree=self.agree, min_references=self.min_references)
        body = pd.DataFrame(np.where(self.mask, self.values, np.nan), columns=list(self.names))
        pd.concat([head, body], axis=1).to_parquet(path, index=False)

    @staticmethod
    def read(path: str | Path) -> "SubProfiles":
        """From parquet."""
        with readable(path, "parquet"):
            table = pd.read_parquet(path)
        body = table.drop(columns=["label", "n_references", "convention", "agree", "min_references"])
        values = np.ascontiguousarray(body.to_numpy(dtype=np.float64))
        first = table.iloc[0]
        return SubProfiles(
            labels=tuple(str(label) for label in table["label"]),
            names=tuple(body.columns),
            values=np.nan_to_num(values),
            mask=~np.isnan(values),
            n_references=table["n_references"].to_numpy(dtype=np.int64),
            convention=str(first["convention"]),
            agree=float(first["agree"]),
            min_references=int(first["min_references"]),
        )


def _check_convention(convention: str) -> None:
    if convention not in CONVENTIONS:
        raise InvalidProfiles(f"convention must be one of {list(CONVENTIONS)}, got {convention!r}")


def agreeing(
    values: Float[np.ndarray, "n k"], convention: str = "paper", agree: float = 0.85
) -> Bool[np.ndarray, " k"]:
    """Features on which the n profiles agree in sign. NaN agrees with nobody and still counts in n."""
    _check_convention(convention)
    positive = (values >= 0) if convention == "reference" else (values > 0)
    share = np.maximum(positive.sum(axis=0), (values < 0).sum(axis=0)) / len(values)
    return np.asarray(share >= agree if convention == "reference" else share > agree)


def expected_share(n_references: int, convention: str = "paper", agree: float = 0.85) -> float:
    """Share of features that n profiles of pure noise keep: exact, for continuous values symmetric about 0.

    P(max(B, n − B) / n > agree), B ~ Binomial(n, 1/2); 5 references must be unanimous: 2 / 2^5 = 6.25 %.
    """
    _check_convention(convention)
    b = np.arange(n_references + 1)
    share = np.maximum(b, n_references - b) / n_references
    kept = share >= agree if convention == "reference" else share > agree
    return float(binom.pmf(b[kept], n_references, 0.5).sum())


def build(
    values: Float[np.ndarray, "n k"],
    labels: Sequence[str | None] | np.ndarray,
    names: Sequence[str],
    convention: str = "paper",
    min_references: int = 5,
    agree: float = 0.85,
) -> SubProfiles:
    """Reference profiles [n, k] (normalised, control at 0) with one label each -> sub-profiles, labels sorted.

    A row whose label is None or "" is no reference. A compound with several labels is given as several rows. Raises
    `InvalidProfiles` for an unknown convention, shapes that do not fit or no label at all.
    """
    _check_convention(convention)
    if len(labels) != len(values) or len(names) != values.shape[1]:
        raise InvalidProfiles(f"values {values.shape} does not fit {len(labels)} labels and {len(names)} names")
    given = np.array(["" if label is None or label != label else str(label) for label in labels], dtype=object)
    unique = sorted(set(given) - {""})
    if not unique:
        raise InvalidProfiles("labels: no row has one, expected at least one labelled reference profile")
    out = np.zeros((len(unique), len(names)))
    mask = np.zeros(out.shape, dtype=bool)
    counts = np.zeros(len(unique), dtype=np.int64)
    for i, label in enumerate(unique):
        members = values[given == label]
        counts[i] = len(members)
        if len(members) < min_references:
            continue
        mask[i] = agreeing(members, convention, agree)
        out[i, mask[i]] = np.nanmedian(members[:, mask[i]], axis=0)
    return SubProfiles(tuple(unique), tuple(names), out, mask, counts, convention, agree, min_references)


def biosimilarity(
    profiles: Float[np.ndarray, "n k"] | Float[np.ndarray, " k"], subprofiles: SubProfiles, missing: str = "refuse"
) -> Float[np.ndarray, "n l"]:
    """Biosimilarity of each profile to each label: [n, labels]; in [-1, 1] (paper) or per cent in [0, 100] (reference).

    NaN where a label has no sub-profile, or where profile or sub-profile does not vary. `missing` says what
    happens to NaN in a profile: "refuse" (raises `InvalidProfiles`) or "pairwise" (correlation over the features
    present).
    """
    if missing not in ("refuse", "pairwise"):
        raise InvalidProfiles(f"missing must be 'refuse' or 'pairwise', got {missing!r}")
    u = np.atleast_2d(profiles)
    if u.shape[1] != len(subprofiles.names):
        raise InvalidProfiles(f"profiles have {u.shape[1]} features, the sub-profiles {len(subprofiles.names)}")
    if np.isinf(u).any():
        raise InvalidProfiles(
            "profiles contain infinite values: expected finite numbers (or NaN with missing='pairwise')"
        )
    if missing == "refuse" and np.isnan(u).any():
        affected = int(np.isnan(u).any(axis=1).sum())
        raise InvalidProfiles(
            f"profiles: {affected} of {len(u)} have NaN: drop the features, or give missing='pairwise'"
        )
    clip = CLIP[subprofiles.convention]
    factors = subprofiles.factors
    out = np.empty((len(u), len(subprofiles.labels)))
    for start in range(0, len(u), CHUNK):
        part = np.clip(u[start : start + CHUNK], -clip, clip)
        holes = np.isnan(part).any(axis=1)
        rows = out[start : start + CHUNK]
        if not holes.all():
            whole = part[~holes]
            few = len(whole) <= FEW
            rows[~holes] = correlations_of_few(whole, subprofiles.kept) if few else _pearson(whole, factors)
        if holes.any():
            rows[holes] = _pearson_pairwise(part[holes], factors.v, factors.m)
    if subprofiles.convention == "reference":
        out = 100.0 * np.maximum(out, 0.0)
    return out


def _ratio(
    top: Float[np.ndarray, "n l"], spread_u: Float[np.ndarray, "n l"], spread_v: Float[np.ndarray, "#n l"]
) -> Float[np.ndarray, "n l"]:
    ok = (spread_u > 0) & (spread_v > 0)
    below = np.sqrt(np.where(ok, spread_u * spread_v, 1.0))
    return np.clip(np.divide(top, below, out=np.full(top.shape, np.nan), where=ok), -1.0, 1.0)


def _spread(
    square: Float[np.ndarray, "n l"], total: Float[np.ndarray, "n l"], n: Float[np.ndarray, "#n l"], largest: np.ndarray
) -> Float[np.ndarray, "n l"]:
    """Sum of squares about the mean, by subtraction; 0 where it is no more than rounding of numbers up to `largest`."""
    size = np.where(n > 0, n, 1.0)
    spread = square - total**2 / size
    return np.where((n > 0) & (spread > 1e-13 * square + size * (1e-13 * largest) ** 2), spread, 0.0)


def _pearson(u: Float[np.ndarray, "n k"], factors: Factors) -> Float[np.ndarray, "n l"]:
    largest = np.abs(u).max(axis=1, keepdims=True, initial=0.0)
    u = u - u.mean(axis=1, keepdims=True)  # a shift changes no correlation; it keeps the subtraction in _spread exact
    spread_u = _spread((u**2) @ factors.m, u @ factors.m, factors.n, largest)
    # factors.centred sums to zero over the mask: u needs no centring by label
    return _ratio(u @ factors.centred, spread_u, factors.spread)


def _pearson_pairwise(
    u: Float[np.ndarray, "n k"], v: Float[np.ndarray, "k l"], m: Float[np.ndarray, "k l"]
) -> Float[np.ndarray, "n l"]:
    w = (~np.isnan(u)).astype(np.float64)
    x = np.where(w > 0, u, 0.0)
    largest = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
    x = (x - x.sum(axis=1, keepdims=True) / np.maximum(w.sum(axis=1, keepdims=True), 1.0)) * w
    n, su, sv = w @ m, x @ m, w @ v
    spread_v = _spread(w @ v**2, sv, n, np.abs(v).max(axis=0, keepdims=True))
    return _ratio(x @ v - su * sv / np.maximum(n, 1.0), _spread((x**2) @ m, su, n, largest), spread_v)


def permuted_features_kept(
    values: Float[np.ndarray, "n k"],
    n_references: int,
    rng: np.random.Generator,
    permutations: int = 1000,
    convention: str = "paper",
    agree: float = 0.85,
) -> Int[np.ndarray, " p"]:
    """Null of the number of features kept: that of `n_references` rows drawn at random without regard to label.

    Unlike `expected_share` it knows that features are correlated and that many compounds share a direction (toxicity).
    """
    if n_references > len(values):
        raise InvalidProfiles(f"n_references is {n_references}, only {len(values)} profiles were given")
    draws = (rng.permutation(len(values))[:n_references] for _ in range(permutations))
    return np.array([agreeing(values[rows], convention, agree).sum() for rows in draws], dtype=np.int64)


def overlap(subprofiles: SubProfiles) -> tuple[Float[np.ndarray, "l l"], Float[np.ndarray, "l l"]]:
    """Jaccard index of the features kept, and Pearson correlation on the shared features, for each pair of labels.

    NaN where neither keeps a feature (Jaccard) or the shared features do not vary (correlation).
    """
    m = subprofiles.mask.astype(np.float64)
    both = m @ m.T
    either = m.sum(axis=1)[:, None] + m.sum(axis=1)[None, :] - both
    jaccard = np.divide(both, either, out=np.full(both.shape, np.nan), where=either > 0)
    return jaccard, _pearson_pairwise(np.where(subprofiles.mask, subprofiles.values, np.nan), subprofiles.values.T, m.T)


def rank_labels(scores: Num[np.ndarray, " l"], labels: Sequence[str]) -> list[int]:
    """Positions of the labels from most to least similar; NaN last; equal scores in alphabetical order."""
    key = [(-s if s == s else np.inf, label) for s, label in zip(scores.tolist(), labels, strict=True)]
    return sorted(range(len(key)), key=key.__getitem__)
