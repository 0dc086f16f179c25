"""Contexts: where and when a picture is taken, and the distributions p*(C) to average over.

A context is (source, batch, plate, plate format, row, column): a batch belongs to one source, a plate to one batch, and
a well exists only if the plate's format has it. A distribution p*(C) is a map from the unit cube to contexts (an
inverse cumulative distribution), so that independent, stratified and quasi-random draws share one code path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

PLATE_SHAPES: dict[int, tuple[int, int]] = {384: (16, 24), 1536: (32, 48)}
"""Plate format (number of wells) to (rows, columns)."""

JUMP_1536_SOURCES = ("source_1", "source_9")

PLATE_COLUMNS = ("source", "batch", "plate", "plate_format")
CONTEXT_COLUMNS = (*PLATE_COLUMNS, "row", "column")
DISTRIBUTIONS = ("valid", "uniform", "stratified", "observed", "paper")


class InvalidContexts(ValueError):
    """The table of plates is not nested, names an unknown plate format, or lacks a column."""


class UnknownDistribution(ValueError):
    """The name of p*(C) is not known, or it needs a table that was not given."""


@dataclass(frozen=True)
class Condition:
    """A further context beside the place of the well (dose, time, cell line): its values and their p*."""

    name: str
    values: tuple[float | int | str, ...]
    weights: tuple[float | int, ...] = ()

    def __post_init__(self) -> None:
        if not self.values or (self.weights and len(self.weights) != len(self.values)):
            raise InvalidContexts(
                f"condition {self.name!r}: got {len(self.values)} values and {len(self.weights)} weights, expected at "
                "least one value and one weight each (or no weights for equal ones)"
            )

    def probabilities(self) -> Float[np.ndarray, "v"]:
        """p* of each value, shape [v], summing to one."""
        return _normalised(np.array(self.weights or [1.0] * len(self.values)), f"condition {self.name!r}")


@dataclass(frozen=True, eq=False)
class Contexts:
    """The valid contexts: a nested table of plates, the wells in use, and further conditions.

    Args:
        plates: columns source, batch, plate (strings; batch and plate globally unique) and plate_format (384 or 1536).
        positions: wells in use, columns plate_format, row, column (0-based). None: every well of the format.
        conditions: further contexts, drawn independently of the plate.

    Raises:
        InvalidContexts: a column is missing, a batch lies in two sources, a plate in two batches or formats.
    """

    plates: pd.DataFrame
    positions: pd.DataFrame | None = None
    conditions: tuple[Condition, ...] = ()
    _wells: dict[int, pd.DataFrame] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        missing = [c for c in PLATE_COLUMNS if c not in self.plates.columns]
        if missing or self.plates.empty:
            raise InvalidContexts(f"plates: got columns {list(self.plates.columns)} and {len(self.plates)} rows, "
                                  f"expected {list(PLATE_COLUMNS)} and at least one row")  # fmt: skip
        plates = self.plates[list(PLATE_COLUMNS)].drop_duplicates().sort_values(list(PLATE_COLUMNS[:3]))
        plates = plates.astype({"source": str, "batch": str, "plate": str, "plate_format": np.int64})
        unknown = sorted(set(plates.plate_format) - set(PLATE_SHAPES))
        if unknown:
            raise InvalidContexts(f"plate_format: got {unknown}, expected one of {sorted(PLATE_SHAPES)}")
        for inner, outer in (("batch", "source"), ("plate", "batch"), ("plate", "plate_format")):
            several = plates.groupby(inner)[outer].nunique()
            if (several > 1).any():
                raise InvalidContexts(
                    f"{inner} {several.idxmax()!r} lies in {several.max()} values of {outer}, expected one: give "
                    f"every {inner} a name of its own"
                )
        object.__setattr__(self, "plates", plates.reset_index(drop=True))
        object.__setattr__(self, "_wells", {f: self._positions(f) for f in sorted(set(plates.plate_format))})

    @classmethod
    def from_table(cls, table: pd.DataFrame, *, only_seen_wells: bool = False) -> Contexts:
        """Contexts of a table of plates or of wells (for example a model's list of training contexts).

        ``only_seen_wells`` keeps only the (format, row, column) that occur in the table.
        """
        positions = None
        if only_seen_wells:
            positions = table[["plate_format", "row", "column"]].drop_duplicates()
        return cls(table, positions)

    @classmethod
    def from_jump(
        cls,
        plates: pd.DataFrame,
        sources: Sequence[str] = (),
        plate_types: Sequence[str] = ("COMPOUND", "TARGET2"),
    ) -> Contexts:
        """Contexts of JUMP's plate table (``Metadata_Source, _Batch, _Plate, _PlateType``), some sources or all.

        Batches are called source/batch, because two sources may use one name. Sources 1 and 9 have 1536-well plates.
        """
        kept = plates[plates["Metadata_PlateType"].isin(plate_types)]
        if sources:
            kept = kept[kept["Metadata_Source"].isin(sources)]
        source = kept["Metadata_Source"].astype(str)
        table = {
            "source": source,
            "batch": source + "/" + kept["Metadata_Batch"].astype(str),
            "plate": kept["Metadata_Plate"].astype(str),
            "plate_format": np.where(source.isin(JUMP_1536_SOURCES), 1536, 384),
        }
        return cls(pd.DataFrame(table))

    def wells(self, plate_format: int) -> pd.DataFrame:
        """Rows and columns (0-based, row-major) in use on a plate of this format."""
        if plate_format not in PLATE_SHAPES:
            raise InvalidContexts(f"plate_format: got {plate_format}, expected one of {sorted(PLATE_SHAPES)}")
        return self._wells[plate_format] if plate_format in self._wells else self._positions(plate_format)

    def distribution(self, name: str | pd.DataFrame = "valid", observed: pd.DataFrame | None = None) -> Distribution:
        """p*(C) by name, or from a user's table.

        * ``valid``: uniform over batches, then over the plates of the batch, then over the wells of that plate.
        * ``uniform``: uniform over all valid (plate, well).
        * ``stratified``: every source the same weight, then as ``valid``.
        * ``observed``: frequencies of the rows of ``observed`` (columns plate, row, column).
        * ``paper``: uniform over batches and, independently, over all well positions; holds impossible pairs
          (see `impossible`).
        * a table: columns plate (or batch, or source), optionally row and column, optionally weight; what is left out
          is uniform within.

        Raises:
            UnknownDistribution: no such name, or ``observed`` without its table.
        """
        if isinstance(name, pd.DataFrame):
            return self._from_table(name)
        plates, wells = self.plates, self._wells
        batch_size = plates.groupby("batch")["plate"].transform("size").to_numpy(float)
        batches_in_source = plates.groupby("source")["batch"].transform("nunique").to_numpy(float)
        if name == "valid":
            return Distribution(self, plates, _normalised(1 / batch_size, name), wells)
        if name == "uniform":
            n_wells = np.array([len(wells[f]) for f in plates.plate_format], float)
            return Distribution(self, plates, _normalised(n_wells, name), wells)
        if name == "stratified":
            return Distribution(self, plates, _normalised(1 / (batch_size * batches_in_source), name), wells)
        if name == "paper":
            union = pd.concat(list(wells.values())).drop_duplicates().sort_values(["row", "column"])
            union = union.reset_index(drop=True)
            return Distribution(self, plates, _normalised(1 / batch_size, name), dict.fromkeys(wells, union))
        if name == "observed" and observed is not None:
            counts = observed.groupby(["plate", "row", "column"], as_index=False).size()
            return self._from_table(counts.rename(columns={"size": "weight"}))
        if name == "observed":
            raise UnknownDistribution(
                "distribution 'observed': got no table, expected observed= with plate, row, column"
            )
        raise UnknownDistribution(f"distribution: got {name!r}, expected a table or one of {', '.join(DISTRIBUTIONS)}")

    def _positions(self, plate_format: int) -> pd.DataFrame:
        rows, columns = PLATE_SHAPES[plate_format]
        grid = pd.MultiIndex.from_product([range(rows), range(columns)], names=["row", "column"]).to_frame(index=False)
        if self.positions is None:
            return grid
        used = self.positions[self.positions["plate_format"] == plate_format][["row", "column"]].drop_duplicates()
        kept = grid.merge(used.astype(np.int64), on=["row", "column"])
        if len(kept) != len(used) or kept.empty:
            raise InvalidContexts(
                f"positions: {len(used)} wells given for {plate_format}-well plates, {len(kept)} of them exist "
                f"({rows} rows, {columns} columns, 0-based)"
            )
        return kept

    def _from_table(self, table: pd.DataFrame) -> Distribution:
        level = next((c for c in ("plate", "batch", "source") if c in table.columns), None)
        if level is None:
            raise UnknownDistribution(
                f"distribution table: got columns {list(table.columns)}, expected plate, batch or source"
            )
        unknown = sorted(set(table[level].astype(str)) - set(self.plates[level]))
        if unknown:
            raise UnknownDistribution(
                f"distribution table: unknown {level} {unknown[:3]}, expected one of these contexts"
            )
        weight = table["weight"].to_numpy(float) if "weight" in table.columns else np.ones(len(table))
        given = table.assign(**{level: table[level].astype(str), "weight": weight})
        listed = {"row", "column"} <= set(table.columns)
        if listed and level != "plate":
            raise UnknownDistribution(f"distribution table: rows and columns are given per {level}, expected per plate")
        within = self.plates.copy()
        if level == "source":
            within["within"] = 1 / (within.groupby("batch")["plate"].transform("size")
                                    * within.groupby("source")["batch"].transform("nunique"))  # fmt: skip
        else:
            within["within"] = 1 / within.groupby(level)["plate"].transform("size")
        keep = [level, "weight", *(["row", "column"] if listed else [])]
        cells = within.merge(given[keep], on=level)
        cells = cells.sort_values([c for c in CONTEXT_COLUMNS if c in cells.columns], kind="stable").reset_index(
            drop=True
        )
        if listed:
            bad = impossible(cells)
            if bad.any():
                raise UnknownDistribution(
                    f"distribution table: {int(bad.sum())} wells do not exist on their plate, the first is "
                    f"{cells.loc[bad, list(CONTEXT_COLUMNS)].iloc[0].to_dict()}"
                )
        weight = _normalised((cells["weight"] * cells["within"]).to_numpy(float), "distribution table")
        columns = CONTEXT_COLUMNS if listed else PLATE_COLUMNS
        return Distribution(self, cells[list(columns)], weight, None if listed else self._wells)


@dataclass(frozen=True, eq=False)
class Distribution:
    """p*(C) as a map from the unit cube: coordinates (plate, row, column, one per further condition)."""

    contexts: Contexts
    cells: pd.DataFrame
    weight: Float[np.ndarray, "p"]
    wells: dict[int, pd.DataFrame] | None

    @property
    def dimensions(self) -> int:
        """How many uniform numbers one context needs."""
        return 3 + len(self.contexts.conditions)

    def quantile(self, u: Float[np.ndarray, "n d"]) -> pd.DataFrame:
        """Points of the unit cube [n, d] to n contexts; plates are ordered by source, batch, plate."""
        if u.shape[1] != self.dimensions or (len(u) and (u.min() < 0 or u.max() >= 1)):
            raise ValueError(f"u: got shape {u.shape}, expected [n, {self.dimensions}] in [0, 1)")
        drawn = self.cells.iloc[_invert(self.weight, u[:, 0])].reset_index(drop=True)
        if self.wells is not None:
            row, column = np.zeros(len(u), np.int64), np.zeros(len(u), np.int64)
            formats = drawn["plate_format"].to_numpy()
            for plate_format, wells in self.wells.items():
                here = formats == plate_format
                row[here], column[here] = _pick_well(wells, u[here, 1], u[here, 2])
            drawn = drawn.assign(row=row, column=column)
        for i, condition in enumerate(self.contexts.conditions):
            index = _invert(condition.probabilities(), u[:, 3 + i])
            drawn[condition.name] = np.array(condition.values)[index]
        return drawn

    def enumerate(self) -> pd.DataFrame:
        """Every context with its probability in the column ``weight``: the exact sum of the g-formula."""
        if self.wells is None:
            table = self.cells.assign(weight=self.weight)
        else:
            wells = pd.concat([w.assign(plate_format=f, share=1 / len(w)) for f, w in self.wells.items()])
            table = self.cells.assign(weight=self.weight).merge(wells, on="plate_format")
            table = table.assign(weight=table["weight"] * table["share"]).drop(columns="share")
        for condition in self.contexts.conditions:
            values = pd.DataFrame({condition.name: list(condition.values), "share": condition.probabilities()})
            table = table.merge(values, how="cross")
            table = table.assign(weight=table["weight"] * table["share"]).drop(columns="share")
        return table.reset_index(drop=True)


def impossible(rows: pd.DataFrame) -> Bool[np.ndarray, "n"]:
    """Which rows name a well that their plate does not have (columns plate_format, row, column)."""
    formats = rows["plate_format"].to_numpy()
    n_rows = np.array([PLATE_SHAPES[f][0] for f in formats], int)
    n_columns = np.array([PLATE_SHAPES[f][1] for f in formats], int)
    row, column = rows["row"].to_numpy(int), rows["column"].to_numpy(int)
    return np.asarray((row < 0) | (column < 0) | (row >= n_rows) | (column >= n_columns))


def well_name(row: int, column: int) -> str:
    """0-based row and column to the plate's own name: (0, 0) is A01, (31, 47) is AF48."""
    letter = chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)
    return f"{letter}{column + 1:02d}"


def well_position(name: str) -> tuple[int, int]:
    """A01 to (0, 0), AF48 to (31, 47); the inverse of `well_name`."""
    letters = name.rstrip("0123456789")
    digits = name[len(letters) :]
    if not digits or not 1 <= len(letters) <= 2 or not letters.isalpha() or not letters.isupper():
        raise InvalidContexts(f"well: got {name!r}, expected letters and a number as in 'B07' or 'AF48'")
    row = ord(letters[-1]) - 65 + (26 * (ord(letters[0]) - 64) if len(letters) == 2 else 0)
    return row, int(digits) - 1


def _normalised(weight: Float[np.ndarray, "v"], what: str) -> Float[np.ndarray, "v"]:
    if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() <= 0:
        raise UnknownDistribution(f"weights of {what}: expected finite numbers >= 0 with a positive sum")
    return np.asarray(weight / weight.sum())


def _invert(weight: Float[np.ndarray, "v"], u: Float[np.ndarray, "n"]) -> np.ndarray:
    edges = np.cumsum(weight)
    edges[-1] = 1.0
    return np.searchsorted(edges, u, side="right").clip(0, len(weight) - 1)


def _pick_well(wells: pd.DataFrame, u: Float[np.ndarray, "n"], v: Float[np.ndarray, "n"]) -> Sequence[np.ndarray]:
    """A row by its share of the wells, then a column of that row: uniform over the listed wells."""
    rows, start, count = np.unique(wells["row"].to_numpy(), return_index=True, return_counts=True)
    index = _invert(count / count.sum(), u)
    pick = start[index] + np.floor(v * count[index]).astype(int)
    return rows[index], wells["column"].to_numpy()[pick]
