r"""The Monte Carlo g-formula: mean and contrast of features under do(compound = t), with standard errors.

.. math:: E[f(O) \mid do(T = t)] = \int E[f(O) \mid t, c]\, p^*(c)\, dc \approx \frac{1}{N} \sum_i f(O_i), \quad
          O_i \sim p(O \mid t, c_i)

Back-door standardisation (Robins 1986; Hernan and Robins 2020, chapter 13). The paper calls the same average
"g-estimation-based" (its equations 1 and 2); in the literature g-estimation is another method. The average is over
features, never over pictures; features are medians over cells. Compound and control meet the same contexts and noise,
so the contrast is paired: its standard error is that of the mean of differences over draws in which both have cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from causal.design import cross
from causal.moments import KINDS, Moments, estimate_mean

COVERS = ("draws", "estimation", "total")


class UnpairedDraws(ValueError):
    """A draw without its control, a (compound, draw) twice, or partial results of different designs."""


class GuidedSamples(ValueError):
    """Samples with a guidance scale other than 1: they do not come from p(O | t, c)."""


class UnknownEstimationError(ValueError):
    """An interval for the fitted mechanism was asked for, but no estimation error is known."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects per compound and feature: E[f | do(t)] minus the control's (or the mean itself without a control)."""

    compounds: tuple[str, ...]
    names: tuple[str, ...]
    value: Float[np.ndarray, "m k"]
    se: Float[np.ndarray, "m k"]
    """Standard error over draws; NaN where one draw cannot tell."""
    df: Float[np.ndarray, "m k"]
    n_draws: Int[np.ndarray, "m"]
    n_without_cells: Int[np.ndarray, "m"]
    """Draws in which the compound's picture had no cells or failed quality control: counted, never replaced."""
    cells_value: Float[np.ndarray, "m"]
    """Effect on the share of draws with cells."""
    cells_se: Float[np.ndarray, "m"]
    control: str | None = None
    estimation_se: Float[np.ndarray, "m k"] | None = None
    """Error of the fitted mechanism (ensemble, refits, bootstrap over wells); None: unknown."""
    estimation_df: float = np.inf

    def standard_error(self, covers: str = "draws") -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
        """Standard error and degrees of freedom of what an interval covers (Welch-Satterthwaite for ``total``).

        Raises:
            UnknownEstimationError: ``estimation`` or ``total`` without an estimation error.
        """
        if covers not in COVERS:
            raise ValueError(f"covers: got {covers!r}, expected one of {', '.join(COVERS)}")
        if covers == "draws":
            return self.se, self.df
        if self.estimation_se is None:
            raise UnknownEstimationError(
                f"covers={covers!r}: these effects know the error of their draws only, not that of the model; "
                "give refits to `with_estimation` or ask for covers='draws'"
            )
        if covers == "estimation":
            return self.estimation_se, np.full_like(self.se, self.estimation_df)
        a, b = self.se**2, self.estimation_se**2
        with np.errstate(invalid="ignore", divide="ignore"):
            df = np.where(a + b > 0, (a + b) ** 2 / (a**2 / self.df + b**2 / self.estimation_df), np.inf)
        return np.sqrt(a + b), df

    def intervals(self, level: float = 0.95, covers: str = "draws") -> Float[np.ndarray, "m k 2"]:
        """Low and high end of the Student interval, shape [m, k, 2], for ``draws``, ``estimation`` or ``total``."""
        if not 0 < level < 1:
            raise ValueError(f"level: got {level}, expected a number between 0 and 1")
        se, df = self.standard_error(covers)
        with np.errstate(invalid="ignore"):
            half = stats.t.ppf(0.5 + level / 2, np.where(df > 0, df, np.nan)) * se
        return np.stack([self.value - half, self.value + half], axis=-1)

    def to_frame(self, level: float = 0.95, covers: str = "draws") -> pd.DataFrame:
        """One row per (compound, feature): value, se, low, high, covers, n_draws, n_without_cells."""
        m, k = self.value.shape
        ends = self.intervals(level, covers)
        se, _ = self.standard_error(covers)
        return pd.DataFrame(
            {
                "compound": np.repeat(np.array(self.compounds, object), k),
                "feature": np.tile(np.array(self.names, object), m),
                "value": self.value.ravel(),
                "se": se.ravel(),
                "low": ends[..., 0].ravel(),
                "high": ends[..., 1].ravel(),
                "covers": covers,
                "n_draws": np.repeat(self.n_draws, k),
                "n_without_cells": np.repeat(self.n_without_cells, k),
            }
        )


class EffectsAccumulator:
    """Streams rows of a design into effects; memory does not grow with the number of draws.

    Every chunk holds whole draws: with a control, the control's row of each draw that occurs in it (shards by compound
    repeat the control's rows, shards by draw do not). Partial results add up with `merge`; the counts of the control
    itself then count its repeated rows too.
    """

    def __init__(self, names: Sequence[str], control: str | None = None) -> None:
        self.names = tuple(names)
        self.control = control
        self.scheme: str | None = None
        self._index: dict[str, int] = {}
        self._moments = Moments.zeros(0, 1, len(self.names) + 1)  # the last column: has cells
        self._without = np.zeros(0, np.int64)

    def update(
        self, values: Float[np.ndarray, "r k"], rows: pd.DataFrame, has_cells: Bool[np.ndarray, "r"] | None = None
    ) -> None:
        """Add the features of some rows of the design.

        Args:
            values: features [r, k]; NaN where the picture gave none.
            rows: the r design rows (compound, draw; scheme and group if the draws are not iid).
            has_cells: which pictures have cells and passed quality control. None: those with any feature that is
                not NaN, features of the picture as a whole (``Image_...``) left aside.

        Raises:
            UnpairedDraws: a draw without its control or a (compound, draw) twice in this chunk.
            GuidedSamples: a column ``guidance`` holds a scale other than 1.
        """
        if values.shape != (len(rows), len(self.names)):
            raise ValueError(f"values: got shape {values.shape}, expected ({len(rows)}, {len(self.names)})")
        if not len(rows):
            return
        if "guidance" in rows.columns and (rows["guidance"] != 1).any():
            raise GuidedSamples(
                f"guidance: got {sorted(set(rows['guidance']))}, expected 1: guided samples are not from p(O | t, c)"
            )
        self._learn_scheme(str(rows["scheme"].iloc[0]) if "scheme" in rows.columns else "iid")
        if rows.duplicated(["compound", "draw"]).any():
            raise UnpairedDraws("rows: the same (compound, draw) occurs twice in one chunk, expected once")
        cells = ~np.isnan(values[:, _of_cells(self.names)]).all(axis=1) if has_cells is None else has_cells
        kept = cells[:, None] | ~_of_cells(self.names)  # a count of 0 cells is a value of the picture
        full = np.column_stack([np.where(kept, values, np.nan), cells.astype(float)])
        compound = rows["compound"].to_numpy()
        if self.control is not None:
            full = full - self._control_rows(full, rows)
        unit = np.array([self._index.setdefault(c, len(self._index)) for c in compound], np.int64)
        group = rows["group"].to_numpy(np.int64) if "group" in rows.columns else np.zeros(len(rows), np.int64)
        units, groups = len(self._index), max(int(group.max()) + 1, self._moments.n.shape[1])
        chunk = Moments.of(full, unit, group, units, groups)
        self._moments = self._moments.resized(units, groups).merged(chunk)
        self._without = np.concatenate([self._without, np.zeros(units - len(self._without), np.int64)])
        self._without += np.bincount(unit, weights=~cells, minlength=units).astype(np.int64)

    def merge(self, other: EffectsAccumulator) -> EffectsAccumulator:
        """Both partial results together; neither is changed.

        Raises:
            UnpairedDraws: other features, another control or another scheme.
        """
        if (self.names, self.control) != (other.names, other.control):
            raise UnpairedDraws("merge: the partial results differ in features or control, expected the same")
        out = EffectsAccumulator(self.names, self.control)
        for part in (self, other):
            if part.scheme is not None:
                out._learn_scheme(part.scheme)
            for compound in part._index:
                out._index.setdefault(compound, len(out._index))
        units = len(out._index)
        groups = max(self._moments.n.shape[1], other._moments.n.shape[1])
        out._moments = Moments.zeros(units, groups, len(self.names) + 1)
        out._without = np.zeros(units, np.int64)
        for part in (self, other):
            to = np.array([out._index[c] for c in part._index], np.int64)
            wide = part._moments.resized(len(to), groups)
            moved = Moments.zeros(units, groups, len(self.names) + 1)
            moved.n[to], moved.valid[to], moved.mean[to], moved.m2[to] = wide.n, wide.valid, wide.mean, wide.m2
            out._moments = out._moments.merged(moved)
            out._without[to] += part._without
        return out

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The partial result as plain arrays, for ``numpy.savez``: what a shard leaves behind."""
        return {
            "names": np.array(self.names, str),
            "control": np.array(self.control or "", str),
            "scheme": np.array(self.scheme or "", str),
            "compounds": np.array(list(self._index), str),
            "n": self._moments.n,
            "valid": self._moments.valid,
            "mean": self._moments.mean,
            "m2": self._moments.m2,
            "without": self._without,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> EffectsAccumulator:
        """The inverse of `to_arrays`."""
        out = cls([str(n) for n in arrays["names"]], str(arrays["control"]) or None)
        out.scheme = str(arrays["scheme"]) or None
        out._index = {str(c): i for i, c in enumerate(arrays["compounds"])}
        out._moments = Moments(arrays["n"], arrays["valid"], arrays["mean"], arrays["m2"])
        out._without = arrays["without"]
        return out

    def effects(self) -> Effects:
        """The estimate so far, compounds in order of first appearance."""
        estimate = estimate_mean(self._moments, KINDS[self.scheme or "iid"])
        return Effects(
            tuple(self._index),
            self.names,
            estimate.value[:, :-1],
            estimate.se[:, :-1],
            estimate.df[:, :-1],
            self._moments.n.sum(1),
            self._without.copy(),
            estimate.value[:, -1],
            estimate.se[:, -1],
            self.control,
        )

    def _learn_scheme(self, scheme: str) -> None:
        if scheme not in KINDS:
            raise ValueError(f"scheme: got {scheme!r}, expected one of {', '.join(KINDS)}")
        if self.scheme not in (None, scheme):
            raise UnpairedDraws(f"scheme: got {scheme!r} after {self.scheme!r}, expected draws of one design")
        self.scheme = scheme

    def _control_rows(self, full: Float[np.ndarray, "r k1"], rows: pd.DataFrame) -> Float[np.ndarray, "r k1"]:
        """The control's features under the same draw, for every row."""
        is_control = rows["compound"].to_numpy() == self.control
        draws, of_control = rows["draw"].to_numpy(), rows["draw"].to_numpy()[is_control]
        order = np.argsort(of_control, kind="stable")
        at = np.searchsorted(of_control[order], draws)
        found = at < len(of_control)
        found[found] = of_control[order][at[found]] == draws[found]
        if not found.all():
            missing = sorted(set(draws[~found].tolist()))
            raise UnpairedDraws(
                f"rows: {len(missing)} draws have no row of the control {self.control!r}, the first is draw "
                f"{missing[0]}; give whole draws, the control among them"
            )
        return full[is_control][order][at]


def contrast(
    values: Float[np.ndarray, "n k"],
    design: pd.DataFrame,
    control: str | None,
    *,
    names: Sequence[str] | None = None,
    has_cells: Bool[np.ndarray, "n"] | None = None,
) -> Effects:
    """Effects of every compound of a design against its control, paired by draw (common random numbers).

    Args:
        values: features, row i belongs to design row i; NaN where the picture gave none.
        design: columns compound and draw, and scheme and group as `causal.design.draw_contexts` gives them.
        control: the control compound; its own effect is 0. None: the means E[f | do(t)] themselves.
        names: names of the k features.
        has_cells: see `EffectsAccumulator.update`.

    Raises:
        UnpairedDraws: the control is missing for a draw, or a row occurs twice.
    """
    accumulator = EffectsAccumulator(names or [f"f{i}" for i in range(values.shape[1])], control)
    accumulator.update(values, design, has_cells)
    return accumulator.effects()


def g_formula(
    mechanism: Callable[[pd.DataFrame], np.ndarray],
    outcome: Callable[[np.ndarray], np.ndarray],
    compounds: Sequence[str],
    draws: pd.DataFrame,
    control: str | None,
    names: Sequence[str],
    *,
    draws_at_once: int = 8,
) -> Effects:
    """Draw, paint, measure, contrast: a simulator's or a model's effects with bounded memory.

    Args:
        mechanism: design rows to pictures [r, ...]; a function of each row alone.
        outcome: pictures to features [r, k].
        compounds: the compounds of interest; the control is added if it is not among them.
        draws: from `causal.design.draw_contexts`.
        control: the control compound, or None for means.
        names: names of the k features.
        draws_at_once: draws per chunk, each with all compounds.
    """
    wanted = list(compounds) if control is None or control in compounds else [control, *compounds]
    accumulator = EffectsAccumulator(names, control)
    for start in range(0, len(draws), draws_at_once):
        rows = cross(wanted, draws.iloc[start : start + draws_at_once])
        accumulator.update(np.asarray(outcome(mechanism(rows)), float), rows)
    return accumulator.effects()


def with_estimation(
    effects: Effects, refits: Sequence[Effects] | Float[np.ndarray, "m k"], df: float = np.inf
) -> Effects:
    """Add the error of the fitted mechanism, so that ``estimation`` and ``total`` intervals can be asked for.

    Args:
        effects: the estimate.
        refits: effects of B refits (ensemble members, bootstraps over wells) under the same draws, whose standard
            deviation is the estimation error with B - 1 degrees of freedom; or that standard error itself.
        df: degrees of freedom of a standard error that is given.
    """
    if isinstance(refits, np.ndarray):
        return replace(effects, estimation_se=refits, estimation_df=df)
    if len(refits) < 2 or any((r.compounds, r.names) != (effects.compounds, effects.names) for r in refits):
        raise ValueError(f"refits: got {len(refits)}, expected two or more with the same compounds and features")
    se = np.std(np.stack([r.value for r in refits]), axis=0, ddof=1)
    return replace(effects, estimation_se=se, estimation_df=float(len(refits) - 1))


def _of_cells(names: Sequence[str]) -> Bool[np.ndarray, "k"]:
    """Which features are measured on cells; those named ``Image_...`` exist for an empty picture too."""
    of_cells = np.array([not n.startswith("Image_") for n in names], bool)
    return of_cells if of_cells.any() else ~of_cells
