"""Normalisation of each feature by itself: (x - centre) / scale, fitted on chosen wells and frozen.

`fit` looks at the controls only; `transform` may then be given any rows, one new compound included. The frozen
numbers are a plain table, so they travel beside a model in a parquet file. Methods that mix features are in
`correct.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from profiling.profiles import META, InvalidProfiles, Profiles

MAD_TO_SD = 1.4826  # the MAD of a normal distribution times this is its standard deviation; pycytominer's digits


class UnknownGroup(ValueError):
    """Rows belong to a group (a plate, a batch) on which the normalisation was not fitted."""


COLUMNS = 64  # features gathered at once, so that each is contiguous in memory
CELLS = 65_536  # numbers centred and scaled at once: they stay in the cache between the two steps


def _columns(
    values: Float[np.ndarray, "n k"], reduce: Callable[..., np.ndarray], plain: Callable[..., np.ndarray]
) -> np.ndarray:
    if not np.isnan(values).any():
        return plain(values, axis=0)
    out = np.full(values.shape[1], np.nan)
    holes = np.isnan(values).any(axis=0)
    out[~holes] = plain(values[:, ~holes], axis=0)
    some = holes & ~np.isnan(values).all(axis=0)
    if some.any():
        out[some] = reduce(values[:, some], axis=0)
    return out


def _median(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    return _columns(values, np.nanmedian, np.median)


def median_mad(values: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Median and 1.4826 × median |x − median| of each column, over the rows that have a value."""
    centre, spread = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    for start in range(0, values.shape[1], COLUMNS):
        at = slice(start, start + COLUMNS)
        block = values[:, at].T.copy()
        holes = np.isnan(block).any(axis=1)
        centre[at][~holes], spread[at][~holes] = _median_mad_rows(block if not holes.any() else block[~holes])
        for i in np.flatnonzero(holes):
            present = block[i][~np.isnan(block[i])]
            if len(present):
                centre[start + i], spread[start + i] = (part[0] for part in _median_mad_rows(present[None, :]))
    return centre, MAD_TO_SD * spread


def _median_mad_rows(rows: Float[np.ndarray, "k n"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Median and median absolute deviation of each row; the rows are overwritten."""
    centre = np.asarray(np.median(rows, axis=1, overwrite_input=True))
    rows -= centre[:, None]
    np.abs(rows, out=rows)
    return centre, np.asarray(np.median(rows, axis=1, overwrite_input=True))


def mean_sd(values: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Mean and standard deviation (divisor n) of each column, over the rows that have a value."""
    return _columns(values, np.nanmean, np.mean), _columns(values, np.nanstd, np.std)


def median_iqr(values: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Median and interquartile range of each column, over the rows that have a value."""

    def spread(of: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        return lambda x, axis: np.subtract(*of(x, [75, 25], axis=axis))

    return _median(values), _columns(values, spread(np.nanpercentile), spread(np.percentile))


KINDS: dict[str, Callable[[Float[np.ndarray, "n k"]], tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]]] = {
    "mad_robustise": median_mad,
    "standardise": mean_sd,
    "robustise": median_iqr,
}


@dataclass(frozen=True)
class Normalisation:
    """Frozen centres and scales: one row of `centre` and `scale` [groups, k] for each row of `groups`.

    `groups` has the columns in `by` (none: one row for all wells) and `Metadata_Rows_Fitted`. A feature that does not
    vary among the controls has scale 0 and is NaN after `transform`, unless `epsilon` (added to every scale) is above
    0.
    """

    kind: str
    by: tuple[str, ...]
    groups: pd.DataFrame
    names: tuple[str, ...]
    centre: Float[np.ndarray, "g k"]
    scale: Float[np.ndarray, "g k"]
    epsilon: float = 0.0

    def to_table(self) -> pd.DataFrame:
        """One row a group and feature: `kind`, `epsilon`, group columns, `feature`, `centre`, `scale`."""
        g, k = self.centre.shape
        table = self.groups.loc[np.repeat(np.arange(g), k)].reset_index(drop=True)
        table.insert(0, "epsilon", self.epsilon)
        table.insert(0, "kind", self.kind)
        return table.assign(feature=list(self.names) * g, centre=self.centre.ravel(), scale=self.scale.ravel())

    @staticmethod
    def from_table(table: pd.DataFrame) -> "Normalisation":
        """The inverse of `to_table`. Raises `InvalidProfiles` when a group lacks a feature of another."""
        names = tuple(dict.fromkeys(table["feature"]))
        if not names or len(table) % len(names) or list(table["feature"]) != list(names) * (len(table) // len(names)):
            raise InvalidProfiles(
                "table is no normalisation: expected every feature once, in one order, for each group"
            )
        columns = [c for c in table.columns if c.startswith(META)]
        groups = table.iloc[:: len(names)][columns].reset_index(drop=True)
        shape = (-1, len(names))
        return Normalisation(
            kind=str(table["kind"].iloc[0]),
            by=tuple(c for c in columns if c != ROWS_FITTED),
            groups=groups,
            names=names,
            centre=table["centre"].to_numpy(dtype=np.float64).reshape(shape),
            scale=table["scale"].to_numpy(dtype=np.float64).reshape(shape),
            epsilon=float(table["epsilon"].iloc[0]),
        )

    def write(self, path: str | Path) -> None:
        """To parquet."""
        self.to_table().to_parquet(path, index=False)

    @staticmethod
    def read(path: str | Path) -> "Normalisation":
        """From parquet."""
        return Normalisation.from_table(pd.read_parquet(path))


ROWS_FITTED = "Metadata_Rows_Fitted"


def fit(
    profiles: Profiles,
    controls: Bool[np.ndarray, " n"],
    kind: str = "mad_robustise",
    by: Sequence[str] = (),
    epsilon: float = 0.0,
) -> Normalisation:
    """Centres and scales of the rows marked in `controls`, apart for each combination of the columns `by`.

    Raises `InvalidProfiles` for an unknown `kind` and for a group without controls (they are named): a plate that
    has no DMSO well cannot be normalised to it.
    """
    if kind not in KINDS:
        raise InvalidProfiles(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    columns = tuple(c if c.startswith(META) else META + c for c in by)
    keys, code = _group_codes(profiles, columns)
    fitted = np.bincount(code[controls], minlength=len(keys))
    if (fitted == 0).any():
        without = keys[fitted == 0].head(5).to_dict("records") if columns else "all rows"
        raise InvalidProfiles(f"controls: {int((fitted == 0).sum())} groups have none, first {without}")
    pairs = [KINDS[kind](profiles.values[controls & (code == g)]) for g in range(len(keys))]
    centre, scale = (np.stack([pair[i] for pair in pairs]) for i in (0, 1))
    return Normalisation(kind, columns, keys.assign(**{ROWS_FITTED: fitted}), profiles.names, centre, scale, epsilon)


def transform(profiles: Profiles, normalisation: Normalisation) -> Profiles:
    """(x − centre) / (scale + epsilon) with the frozen numbers of each row's group; scale 0 gives NaN.

    The features of the result are those of the normalisation, in its order. Raises `UnknownGroup` for a row whose group
    was not fitted and `InvalidProfiles` for a missing feature.
    """
    chosen = profiles.features(normalisation.names)
    keys, code = _group_codes(chosen, normalisation.by)
    if normalisation.by:
        known = normalisation.groups[list(normalisation.by)].reset_index(names="_row")
        found = keys.merge(known, on=list(normalisation.by), how="left")["_row"]
        if found.isna().any():
            unknown = keys[found.isna().to_numpy()].head(5).to_dict("records")
            raise UnknownGroup(
                f"profiles: no normalisation was fitted for {unknown}: fit it with controls of that group"
            )
        row = found.to_numpy(dtype=int)[code]
    else:
        row = np.zeros(len(chosen), dtype=int)
    scale = normalisation.scale + normalisation.epsilon
    scale = np.where(scale == 0, np.nan, scale)
    return chosen.with_values(_scaled(chosen.values, row, normalisation.centre, scale))


def _scaled(
    values: Float[np.ndarray, "n k"],
    row: Int[np.ndarray, " n"],
    centre: Float[np.ndarray, "g k"],
    scale: Float[np.ndarray, "g k"],
) -> Float[np.ndarray, "n k"]:
    """(x - centre) / scale with the numbers of each row's group; beside the result it takes the memory of a block."""
    out = np.empty_like(values)
    step = max(1, CELLS // max(values.shape[1], 1))
    for group in range(len(centre)):
        at = np.flatnonzero(row == group)
        contiguous = len(at) == len(row)
        for start in range(0, len(at), step):
            rows = slice(start, start + step) if contiguous else at[start : start + step]
            block = values[rows] - centre[group]
            block /= scale[group]
            out[rows] = block
    return out


def _group_codes(profiles: Profiles, columns: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    if not columns:
        return pd.DataFrame(index=range(1)), np.zeros(len(profiles), dtype=int)
    if missing := [c for c in columns if c not in profiles.meta.columns]:
        raise InvalidProfiles(f"by: meta has no columns {missing}: it has {list(profiles.meta.columns)}")
    groups = profiles.meta.groupby(list(columns), sort=True, dropna=False, observed=True)
    code = groups.ngroup().to_numpy()
    first = pd.Series(np.arange(len(code))).groupby(code).first().to_numpy()
    return profiles.meta.iloc[first][list(columns)].reset_index(drop=True), code
