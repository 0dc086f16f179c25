"""Corrections that mix rows or features: sphering, PCA, rank to normal, well position, cell count, phenotype
correction.

Each `fit_...` looks at chosen rows only and gives a frozen `Transform`; `transform` may then be given any row.
Harmony and ComBat, which must see all rows at once (transductive), are in `harmony.py` and `combat.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import ndtri
from scipy.stats import rankdata

from profiling.normalise import UnknownGroup
from profiling.profiles import META, InvalidProfiles, Profiles


@runtime_checkable
class Transform(Protocol):
    """A frozen correction."""

    def transform(self, profiles: Profiles) -> Profiles:
        """The corrected profiles."""
        ...


def _complete(profiles: Profiles, rows: Bool[np.ndarray, " n"], least: int = 2) -> Float[np.ndarray, "m k"]:
    values = profiles.values[rows]
    if len(values) < least:
        raise InvalidProfiles(f"rows: {len(values)} were chosen to fit on, expected at least {least}")
    if np.isnan(values).any():
        raise InvalidProfiles(f"the rows to fit on contain {int(np.isnan(values).sum())} NaN: select features first")
    return values


@dataclass(frozen=True)
class Linear:
    """(x - mean) / scale, then times `matrix` [k, m]; the new features are called `out`."""

    names: tuple[str, ...]
    out: tuple[str, ...]
    mean: Float[np.ndarray, " k"]
    scale: Float[np.ndarray, " k"]
    matrix: Float[np.ndarray, "k m"]

    def transform(self, profiles: Profiles) -> Profiles:
        """Apply to the features named `names`."""
        chosen = profiles.features(self.names)
        return Profiles(chosen.meta, ((chosen.values - self.mean) / self.scale) @ self.matrix, self.out)


SPHERING = ("ZCA", "PCA", "ZCA-cor", "PCA-cor")


def fit_sphering(
    profiles: Profiles, rows: Bool[np.ndarray, " n"], method: str = "ZCA", epsilon: float = 1e-6
) -> Linear:
    """Whitening W with cov(x W) = I on the rows given (usually the DMSO wells); Kessy et al. 2016, arXiv 1512.00809.

    "ZCA" stays as close as possible to the features, "PCA" gives principal components; "-cor" standardises first.
    `epsilon` is added to every singular value, as in pycytominer. With fewer rows than features the missing
    directions get the smallest singular value that is there. The result is checked: where rows outnumber features, the
    covariance must be I within 1 %, else `InvalidProfiles` is raised and names the deviation.
    """
    if method not in SPHERING:
        raise InvalidProfiles(f"method must be one of {list(SPHERING)}, got {method!r}")
    x = _complete(profiles, rows)
    n, d = x.shape
    mean = x.mean(axis=0)
    scale = x.std(axis=0) if method.endswith("-cor") else np.ones(d)
    if (scale == 0).any():
        raise InvalidProfiles(
            f"{int((scale == 0).sum())} features do not vary on the rows to fit on: select features first"
        )
    centred = (x - mean) / scale
    _, sigma, vt = np.linalg.svd(centred, full_matrices=True)
    rank = int((sigma > sigma.max(initial=0.0) * max(n, d) * np.finfo(float).eps).sum())
    if rank < min(d, n - 1):
        raise InvalidProfiles(
            f"the rows to fit on have rank {rank} of {min(d, n - 1)}: drop features that are sums of others"
        )
    if rank < d:
        sigma = np.concatenate([sigma[:rank], np.full(d - rank, sigma[rank - 1])])
    w = (vt / (sigma + epsilon)[:, None]).T * np.sqrt(n - 1)
    matrix = w if method.startswith("PCA") else w @ vt
    if n > d:
        off = float(np.abs(np.cov(centred @ matrix, rowvar=False) - np.eye(d)).max())
        if off > 0.01:
            raise InvalidProfiles(
                f"the covariance after sphering is off the identity by {off:.2g}: epsilon is too large"
            )
    out = tuple(f"PC{i + 1}" for i in range(d)) if method.startswith("PCA") else profiles.names
    return Linear(profiles.names, out, mean, scale, matrix)


def fit_pca(profiles: Profiles, rows: Bool[np.ndarray, " n"], keep: float | int = 0.95) -> Linear:
    """Principal components: `keep` components if it is 1 or more, else as few as hold this share of the variance.

    The sign of each component makes its largest loading positive.
    """
    x = _complete(profiles, rows)
    mean = x.mean(axis=0)
    _, sigma, vt = np.linalg.svd(x - mean, full_matrices=False)
    share = np.cumsum(sigma**2) / (sigma**2).sum()
    count = int(keep) if keep >= 1 else int(np.searchsorted(share, keep - 1e-12) + 1)
    count = min(count, len(sigma))
    loading = vt[:count].T
    loading = loading * np.sign(loading[np.abs(loading).argmax(axis=0), np.arange(count)])
    return Linear(profiles.names, tuple(f"PC{i + 1}" for i in range(count)), mean, np.ones(len(mean)), loading)


@dataclass(frozen=True)
class RankNormal:
    """Quantiles [q, k] of the fitted rows; a value becomes the normal quantile of its place among them."""

    names: tuple[str, ...]
    quantiles: Float[np.ndarray, "q k"]

    def transform(self, profiles: Profiles) -> Profiles:
        """A value outside the fitted range gets the outermost normal quantile, 5.2 (probability 1e-7)."""
        chosen = profiles.features(self.names)
        grid = np.linspace(0, 1, len(self.quantiles))
        place = np.empty_like(chosen.values)
        for j, (x, q) in enumerate(zip(chosen.values.T, self.quantiles.T, strict=True)):
            # the middle of a run of equal quantiles: the mean of both directions
            up, down = np.interp(x, q, grid), np.interp(-x, -q[::-1], -grid[::-1])
            place[:, j] = 0.5 * (up - down)
            place[x == q[-1], j], place[x == q[0], j] = 1.0, 0.0
        edge = 1e-7 - np.spacing(1.0)
        bounds = ndtri(edge), ndtri(1 - edge)
        with np.errstate(divide="ignore"):
            return chosen.with_values(np.clip(ndtri(place), *bounds))


def fit_rank_normal(profiles: Profiles, rows: Bool[np.ndarray, " n"], quantiles: int = 1000) -> RankNormal:
    """Rank-inverse-normal transform with the quantiles of the rows given (scikit-learn's, pycytominer's)."""
    x = _complete(profiles, rows)
    grid = np.linspace(0, 1, min(quantiles, len(x)))
    return RankNormal(profiles.names, np.maximum.accumulate(np.percentile(x, 100 * grid, axis=0), axis=0))


def rank_normal(profiles: Profiles, offset: float = 3 / 8) -> Profiles:
    """Transductive rank-inverse-normal over all rows given: Phi^-1((rank - c) / (n - 2 c + 1)), Blom's c = 3/8."""
    ranks = rankdata(profiles.values, axis=0, nan_policy="omit")
    n = (~np.isnan(profiles.values)).sum(axis=0)
    return profiles.with_values(ndtri((ranks - offset) / (n - 2 * offset + 1)))


@dataclass(frozen=True)
class Shift:
    """x minus a row of `shift` [groups, k], chosen by the columns `by`."""

    by: tuple[str, ...]
    groups: pd.DataFrame
    names: tuple[str, ...]
    shift: Float[np.ndarray, "g k"]

    def transform(self, profiles: Profiles) -> Profiles:
        """Raises `UnknownGroup` for a group that was not fitted."""
        chosen = profiles.features(self.names)
        place = self.groups.reset_index(names="_row")
        found = chosen.meta[list(self.by)].merge(place, on=list(self.by), how="left")["_row"]
        if found.isna().any():
            unknown = chosen.meta.loc[found.isna().to_numpy(), list(self.by)].drop_duplicates().head(5)
            raise UnknownGroup(f"profiles: nothing was fitted for {unknown.to_dict('records')}")
        return chosen.with_values(chosen.values - self.shift[found.to_numpy(dtype=int)])


def _fit_shift(profiles: Profiles, rows: Bool[np.ndarray, " n"], by: Sequence[str], factor: float) -> Shift:
    columns = [c if c.startswith(META) else META + c for c in by]
    chosen = profiles.rows(rows)
    groups = chosen.meta.groupby(columns, sort=True, observed=True)
    code = groups.ngroup().to_numpy()
    keys = groups.size().reset_index()[columns]
    means = np.stack([np.nanmean(chosen.values[code == g], axis=0) for g in range(len(keys))])
    return Shift(tuple(columns), keys, profiles.names, factor * means)


def fit_well_position(profiles: Profiles, rows: Bool[np.ndarray, " n"], by: Sequence[str] = ("Well",)) -> Shift:
    """Subtract the mean of each well position over the plates fitted on (JUMP recipe). Sound only where treatments were
    not always at the same place: a compound that sits in one well is subtracted with it."""
    return _fit_shift(profiles, rows, by, 1.0)


def fit_phenotype_correction(
    profiles: Profiles, controls: Bool[np.ndarray, " n"], by: Sequence[str] = ("Plate",), alpha: float = 0.7
) -> Shift:
    """E - alpha W, W the mean of the control wells of the plate (PhenoProfiler, Equation 17; their alpha is 0.7)."""
    return _fit_shift(profiles, controls, by, alpha)


@dataclass(frozen=True)
class CountRegression:
    """x - (intercept + slope * count) for each feature; `column` holds the cell count."""

    column: str
    names: tuple[str, ...]
    intercept: Float[np.ndarray, " k"]
    slope: Float[np.ndarray, " k"]

    def transform(self, profiles: Profiles) -> Profiles:
        """The residuals."""
        chosen = profiles.features(self.names)
        count = _cell_count(profiles, self.column)
        return chosen.with_values(chosen.values - (self.intercept + np.outer(count, self.slope)))


def fit_cell_count(profiles: Profiles, rows: Bool[np.ndarray, " n"], column: str = "Count_Cells") -> CountRegression:
    """Least-squares line of each feature on the cell count. The count lies on the path from compound to picture, so
    what is left is a *direct* effect, not the total one: say so wherever it is shown. `column` is one of the metadata,
    or else a feature of this name (with or without `Image_`), which itself stays as it is."""
    x = _complete(profiles, rows)
    count = _cell_count(profiles.rows(rows), column)
    centred = count - count.mean()
    if not np.isfinite(centred).all() or (centred == 0).all():
        raise InvalidProfiles(f"column {column!r} has gaps or does not vary on the rows to fit on")
    slope = centred @ (x - x.mean(axis=0)) / (centred @ centred)
    intercept = x.mean(axis=0) - slope * count.mean()
    itself = np.isin(profiles.names, (column, f"Image_{column}"))
    return CountRegression(column, profiles.names, np.where(itself, 0.0, intercept), np.where(itself, 0.0, slope))


def _cell_count(profiles: Profiles, column: str) -> Float[np.ndarray, " n"]:
    full = column if column.startswith(META) else META + column
    for name in (column, f"Image_{column}"):
        if full not in profiles.meta.columns and name in profiles.names:
            return profiles.values[:, profiles.names.index(name)]
    return profiles.column(column).astype(np.float64)
