"""Streaming moments per (compound, group of draws, feature): constant memory in the number of draws, mergeable.

A value that is NaN is a draw that gave none (no cells, failed quality control): it is counted and never replaced. The
mean is then the mean among draws that gave one, a ratio of two sums, and its variance is that of the linearised
z_i = 1_i (f_i - mean) / share, so strata and replicates keep their meaning when draws are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Kind = Literal["iid", "stratified", "replicates"]
KINDS: dict[str, Kind] = {
    "iid": "iid",
    "stratified": "stratified",
    "lhs": "replicates",
    "sobol": "replicates",
    "repeated": "replicates",
}
"""Which variance formula a scheme of `causal.design` needs."""


@dataclass(eq=False)
class Moments:
    """Counts, means and centred sums of squares of f, per (unit, group, feature)."""

    n: Int[np.ndarray, "m g"]
    """Draws seen, with or without a value."""
    valid: Int[np.ndarray, "m g k"]
    """Draws with a value."""
    mean: Float[np.ndarray, "m g k"]
    """Mean of the values (0 where there is none)."""
    m2: Float[np.ndarray, "m g k"]
    """Sum of squared deviations from that mean."""

    @classmethod
    def zeros(cls, units: int, groups: int, features: int) -> Moments:
        """No draw seen yet."""
        shape = (units, groups, features)
        return cls(np.zeros(shape[:2], np.int64), np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape))

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "r k"],
        unit: Int[np.ndarray, "r"],
        group: Int[np.ndarray, "r"],
        units: int,
        groups: int,
    ) -> Moments:
        """Moments of rows that belong to (unit, group); two passes, so no cancellation."""
        out = cls.zeros(units, groups, values.shape[1])
        cell = unit * groups + group
        order = np.argsort(cell, kind="stable")
        present, start, size = np.unique(cell[order], return_index=True, return_counts=True)
        if not len(present):
            return out
        at = np.unravel_index(present, (units, groups))
        sorted_values = values[order]
        seen = ~np.isnan(sorted_values)
        valid = np.add.reduceat(seen.astype(np.int64), start, axis=0)
        total = np.add.reduceat(np.where(seen, sorted_values, 0.0), start, axis=0)
        mean = total / np.maximum(valid, 1)
        deviation = np.where(seen, sorted_values - np.repeat(mean, size, axis=0), 0.0)
        out.n[at], out.valid[at], out.mean[at] = size, valid, mean
        out.m2[at] = np.add.reduceat(deviation**2, start, axis=0)
        return out

    def merged(self, other: Moments) -> Moments:
        """Moments of both sets of draws (Chan, Golub and LeVeque 1979)."""
        valid = self.valid + other.valid
        share = other.valid / np.maximum(valid, 1)
        delta = other.mean - self.mean
        return Moments(
            self.n + other.n,
            valid,
            self.mean + delta * share,
            self.m2 + other.m2 + delta**2 * self.valid * share,
        )

    def resized(self, units: int, groups: int) -> Moments:
        """The same moments with room for more units and groups."""
        out = Moments.zeros(units, groups, self.mean.shape[2])
        m, g = self.n.shape
        out.n[:m, :g], out.valid[:m, :g] = self.n, self.valid
        out.mean[:m, :g], out.m2[:m, :g] = self.mean, self.m2
        return out


@dataclass(frozen=True, eq=False)
class MeanEstimate:
    """A mean with its standard error over draws and the degrees of freedom of that error."""

    value: Float[np.ndarray, "m k"]
    se: Float[np.ndarray, "m k"]
    df: Float[np.ndarray, "m k"]
    n_valid: Int[np.ndarray, "m k"]


def estimate_mean(moments: Moments, kind: Kind) -> MeanEstimate:
    r"""Mean over draws with a value, with a standard error that respects the design.

    With z_i = 1_i (f_i - mean) / p, p the share of draws with a value, n_h the draws of group h, s_h² the variance of
    z within h and z_h its mean:

    * iid: ``se² = s² / n``, n - 1 degrees of freedom;
    * stratified (proportional): ``se² = Σ_h n_h s_h² / n²``, n - H degrees (Cochran 1977, eq. 5.7); a stratum with one
      draw takes the mean variance of the others;
    * replicates (randomised QMC, LHS): ``se² = R/(R-1) Σ_h (n_h/n)² z_h²``, R - 1 degrees (Owen 2013, section 17.3).

    se is NaN where it cannot be known (one draw, one replicate), and the value is NaN where no draw gave one.
    """
    n_h = moments.n[:, :, None].astype(float)
    n = n_h.sum(1)
    valid = moments.valid.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_of_valid = moments.valid / valid[:, None]
        value = np.where(valid > 0, np.nansum(share_of_valid * moments.mean, 1), np.nan)
        p = valid / n
        offset = moments.mean - value[:, None]
        z_mean = moments.valid * offset / p[:, None] / n_h
        z_square = (moments.m2 + moments.valid * offset**2) / p[:, None] ** 2
        used = n_h[:, :, :] > 0
        if kind == "replicates":
            count = used.sum(1).astype(float)
            weighted = np.where(used, (n_h / n[:, None]) ** 2 * z_mean**2, 0.0).sum(1)
            variance = np.where(count > 1, count / (count - 1) * weighted, np.nan)
            df = np.broadcast_to(count - 1, value.shape)
        else:
            spread = np.where(n_h > 1, (z_square - n_h * z_mean**2) / (n_h - 1), np.nan)
            enough = n_h > 1
            known = enough.sum(1)
            pooled = np.where(enough, spread, 0.0).sum(1) / known
            spread = np.where(enough, spread, pooled[:, None])
            variance = np.where(used, n_h * spread, 0.0).sum(1) / n**2
            variance = np.where(known > 0, variance, np.nan)
            df = np.broadcast_to(n - used.sum(1), value.shape)
        # among draws with a value: as many degrees of freedom fewer as draws that gave none
        df = np.maximum(df - (n - valid) * (kind != "replicates"), 0.0)
    se = np.sqrt(np.maximum(variance, 0.0))
    se = np.where((valid > 1) & (df > 0), se, np.nan)
    return MeanEstimate(value, se, np.asarray(df, float), valid)
