"""Profiles: features and their metadata, split once, travelling together.

Arrows in this file: measurements of single cells -> one row a field of view (`field_medians`), rows -> fewer rows
(`aggregate`: field -> well -> treatment). Files are in `tables.py`.

The order of averaging is the paper's: median over cells, then means over fields, wells and draws.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

META = "Metadata_"
Words = Sequence[str] | np.ndarray  # one word a row: labels, groups, plates
OUTCOME = "Metadata_Outcome"
REASON = "Metadata_Reason"
ROWS_IN = "Metadata_Rows_In"
ROWS_USED = "Metadata_Rows_Used"
COUNT_CELLS = "Image_Count_Cells"
COUNT_NUCLEI = "Image_Count_Nuclei"


class InvalidProfiles(ValueError):
    """A profile table that contradicts itself: names, shapes or metadata columns do not fit together."""


@runtime_checkable
class FieldMeasurement(Protocol):
    """What a measuring engine gives for one field of view.

    `outcome` is "ok", "no_cells" or "failed"; `reason` is a sentence when it is not "ok". `objects` maps an object name
    ("Nuclei", "Cells", "Cytoplasm") to its feature names (k) and a float64 array [cells, k]. `image` holds
    values that belong to the whole field, such as "Count_Cells".
    """

    @property
    def outcome(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def objects(self) -> Mapping[str, Any]: ...
    @property
    def image(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Profiles:
    """A table of profiles: row i of `meta` (columns `Metadata_...`) describes row i of `values` [n, k].

    `names` are the k feature names, unique, none beginning with `Metadata_`. NaN means "not measured".
    Raises `InvalidProfiles` when the three do not fit together.
    """

    meta: pd.DataFrame
    values: Float[np.ndarray, "n k"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        if len(self.meta) != rows:
            raise InvalidProfiles(
                f"meta has {len(self.meta)} rows, values has {rows}: expected one row of meta a profile"
            )
        if len(self.names) != columns:
            raise InvalidProfiles(
                f"names has {len(self.names)} entries, values has {columns} columns: expected as many"
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted(pd.Index(self.names)[pd.Index(self.names).duplicated()])
            raise InvalidProfiles(f"names must be unique, got twice: {twice[:5]}")
        if wrong := [c for c in self.meta.columns if not str(c).startswith(META)]:
            raise InvalidProfiles(f"meta columns must begin with {META!r}, got {wrong[:5]}: rename them")
        if wrong := [n for n in self.names if n.startswith(META)]:
            raise InvalidProfiles(f"feature names must not begin with {META!r}, got {wrong[:5]}: move them to meta")

    def __len__(self) -> int:
        return len(self.meta)

    def rows(self, keep: Bool[np.ndarray, " n"] | Sequence[int] | np.ndarray) -> "Profiles":
        """The chosen rows, in the order given (a mask or positions)."""
        index = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, dtype=int)
        return Profiles(self.meta.iloc[index].reset_index(drop=True), self.values[index], self.names)

    def features(self, names: Sequence[str]) -> "Profiles":
        """The chosen features in the order given. Raises `InvalidProfiles` naming the features that are missing."""
        if tuple(names) == self.names:
            return self
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [n for n in names if n not in place]:
            raise InvalidProfiles(f"names: {len(missing)} features are not in the profiles, first {missing[:5]}")
        return Profiles(self.meta, self.values[:, [place[n] for n in names]], tuple(names))

    def with_values(self, values: Float[np.ndarray, "n k"]) -> "Profiles":
        """The same rows and features with other numbers."""
        return Profiles(self.meta, values, self.names)

    def column(self, name: str) -> np.ndarray:
        """One metadata column as an array; `name` with or without the `Metadata_` prefix."""
        full = name if name.startswith(META) else META + name
        if full not in self.meta.columns:
            raise InvalidProfiles(f"meta has no column {full!r}: it has {list(self.meta.columns)}")
        return self.meta[full].to_numpy()


def concatenate(parts: Sequence[Profiles]) -> Profiles:
    """Rows of several tables with the same features one under another. Raises `InvalidProfiles` where features
    differ."""
    if not parts:
        raise InvalidProfiles("parts is empty: expected at least one table of profiles")
    if wrong := [i for i, p in enumerate(parts) if p.names != parts[0].names]:
        raise InvalidProfiles(f"parts {wrong[:5]} have other features than part 0: select the shared features first")
    meta = pd.concat([p.meta for p in parts], ignore_index=True)
    return Profiles(meta, np.concatenate([p.values for p in parts]), parts[0].names)


def nan_median(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Median of each column over the rows that have a value; NaN for a column (or table) without any."""
    if len(values) == 0:
        return np.full(values.shape[1], np.nan)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice encountered", category=RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=0), dtype=np.float64)


def _numbers(measurement: FieldMeasurement) -> Iterator[tuple[str, float]]:
    for obj, (names, values) in measurement.objects.items():
        for name, value in zip(names, nan_median(np.asarray(values, dtype=np.float64)), strict=True):
            yield f"{obj}_{name}", float(value)


def _count(measurement: FieldMeasurement, obj: str) -> float:
    if obj in measurement.objects:
        return float(len(measurement.objects[obj][1]))
    if f"Count_{obj}" in measurement.image:
        return float(measurement.image[f"Count_{obj}"])
    return 0.0 if measurement.outcome == "no_cells" else float("nan")


def field_medians(measurements: Sequence[FieldMeasurement], meta: pd.DataFrame) -> Profiles:
    """Measurements of cells -> one profile a field: the median over its cells.

    Features are named "<Object>_<CellProfiler feature>", in the order of first appearance, after `Image_Count_Cells`
    and `Image_Count_Nuclei`. Every field keeps its row: one without cells has NaN features and a count of 0, a
    failed one has NaN throughout; `Metadata_Outcome` and `Metadata_Reason` say which and why.
    `meta` (n rows) gets the prefix `Metadata_` where it is missing.
    """
    if len(measurements) != len(meta):
        raise InvalidProfiles(f"measurements has {len(measurements)} entries, meta {len(meta)} rows: expected as many")
    place: dict[str, int] = {COUNT_CELLS: 0, COUNT_NUCLEI: 1}
    rows: list[dict[int, float]] = []
    for measurement in measurements:
        row = {0: _count(measurement, "Cells"), 1: _count(measurement, "Nuclei")}
        row.update((place.setdefault(name, len(place)), value) for name, value in _numbers(measurement))
        rows.append(row)
    values = np.full((len(rows), len(place)), np.nan)
    for i, row in enumerate(rows):
        values[i, list(row.keys())] = list(row.values())
    table = with_prefix(meta).reset_index(drop=True)
    table[OUTCOME] = [m.outcome for m in measurements]
    table[REASON] = [m.reason for m in measurements]
    return Profiles(table, values, tuple(place))


def with_prefix(meta: pd.DataFrame) -> pd.DataFrame:
    """A copy whose columns all begin with `Metadata_`."""
    return meta.rename(columns={c: c if str(c).startswith(META) else f"{META}{c}" for c in meta.columns})


def aggregate(
    profiles: Profiles, by: Sequence[str], how: str = "mean", use: Bool[np.ndarray, " n"] | None = None
) -> Profiles:
    """Rows -> one row for each combination of the columns `by`, by "mean" or "median" over the values present.

    A feature is averaged over the rows where it was measured; rows that `use` excludes (quality control) are counted
    and not averaged. `Metadata_Rows_In` counts all rows of the group, `Metadata_Rows_Used` those with any value
    beside the cell counts; a group without any stays, with NaN. Cell counts are averaged over every used row, those
    without cells included. Other metadata columns stay where they are constant in every group. Groups come in sorted
    order of `by`.
    """
    if how not in REDUCERS:
        raise InvalidProfiles(f"how must be one of {sorted(REDUCERS)}, got {how!r}")
    columns = [c if c.startswith(META) else META + c for c in by]
    if missing := [c for c in columns if c not in profiles.meta.columns]:
        raise InvalidProfiles(f"by: meta has no columns {missing}: it has {list(profiles.meta.columns)}")
    wanted = np.ones(len(profiles), dtype=bool) if use is None else use
    groups = profiles.meta.groupby(columns, sort=True, dropna=False, observed=True)
    code = groups.ngroup().to_numpy()
    first = groups.head(1).index
    first_rows = profiles.meta.loc[first].iloc[np.argsort(code[profiles.meta.index.get_indexer(first)])]
    constant = [c for c in profiles.meta.columns if c not in (*columns, ROWS_IN, ROWS_USED, OUTCOME, REASON)]
    steady = groups[constant].nunique(dropna=False).max() if constant else pd.Series(dtype=int)
    meta = first_rows[columns + [c for c in constant if steady[c] == 1]].reset_index(drop=True)
    n = len(meta)
    morphology = [i for i, name in enumerate(profiles.names) if name not in (COUNT_CELLS, COUNT_NUCLEI)]
    used = wanted & np.isfinite(profiles.values[:, morphology]).any(axis=1)
    meta[ROWS_IN] = np.bincount(code, minlength=n)
    meta[ROWS_USED] = np.bincount(code[used], minlength=n)
    values = REDUCERS[how](profiles.values[wanted], code[wanted], n)
    return Profiles(meta, values, profiles.names)


def _group_means(values: Float[np.ndarray, "n k"], code: np.ndarray, groups: int) -> Float[np.ndarray, "g k"]:
    order = np.argsort(code, kind="stable")
    present = np.unique(code)
    out = np.full((groups, values.shape[1]), np.nan)
    if len(present) == 0:
        return out
    starts = np.searchsorted(code[order], present)
    finite = ~np.isnan(values[order])
    total = np.add.reduceat(np.where(finite, values[order], 0.0), starts, axis=0)
    count = np.add.reduceat(finite, starts, axis=0, dtype=np.int64)
    out[present] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return out


def _group_medians(values: Float[np.ndarray, "n k"], code: np.ndarray, groups: int) -> Float[np.ndarray, "g k"]:
    order = np.argsort(code, kind="stable")
    parts = np.split(values[order], np.searchsorted(code[order], np.arange(1, groups)))
    return np.stack([nan_median(part) for part in parts]) if groups else np.empty((0, values.shape[1]))


REDUCERS = {"mean": _group_means, "median": _group_medians}
