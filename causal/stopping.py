r"""Sequential stopping: draw until every requested feature's interval is narrow enough, and still cover.

Looking at an ordinary 95 % interval after every draw and stopping when it is narrow covers less than 95 %: it stops
when the variance happens to look small. Two rules that stay valid:

* ``two-stage`` (Stein 1945): the variance s0² of a pilot of n0 units fixes N = max(n0, ⌈(2 t s0 / width)²⌉); the
  interval is mean_N ± t_{n0-1} s0/√N. For normal units (mean_N - μ)√N/s0 is exactly Student with n0 - 1 degrees of
  freedom, because N depends on s0 alone and the mean does not: coverage is the level itself, not only at least.
* ``sequence`` (asymptotic confidence sequence, Waudby-Smith et al. 2024, theorem 2.2): valid at all times at once, so
  for any reason to stop; wider, so it covers more than the level at its stopping time.

A unit is one draw, or one randomised QMC block of several draws (its mean). Draws without cells are counted and never
replaced: a feature's mean is over units that have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from causal.contexts import Contexts
from causal.design import InvalidDesign, cross, draw_contexts

RULES = ("two-stage", "sequence")


@dataclass(frozen=True)
class StoppingRule:
    """When to stop drawing."""

    width: float
    """Wanted full width of every interval, in units of the feature."""
    level: float = 0.95
    pilot: int = 32
    """Units before the first decision."""
    max_units: int = 10_000
    """Give up here and say so."""
    batch: int = 32
    """Units painted at once."""
    rule: str = "two-stage"
    """two-stage or sequence."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InvalidDesign(f"rule: got {self.rule!r}, expected one of {', '.join(RULES)}")
        if self.width <= 0 or not 0 < self.level < 1 or not 2 <= self.pilot <= self.max_units or self.batch < 1:
            raise InvalidDesign(
                f"stopping rule: got {self}, expected width > 0, 0 < level < 1, 2 <= pilot <= max_units, batch >= 1"
            )


@dataclass(frozen=True, eq=False)
class Stopped:
    """Means at the stopping time and intervals of their draws that are valid there."""

    value: Float[np.ndarray, "k"]
    low: Float[np.ndarray, "k"]
    high: Float[np.ndarray, "k"]
    n_units: int
    n_valid: Int[np.ndarray, "k"]
    reached: Bool[np.ndarray, "k"]
    """Whether the interval is as narrow as asked for; False where max_units came first."""
    rule: str
    covers: str = "draws"


def draw_until(sample: Callable[[int, int], Float[np.ndarray, "b k"]], rule: StoppingRule) -> Stopped:
    """Take units until every feature's interval is narrower than ``rule.width``.

    Args:
        sample: (first unit, how many) to values [how many, k], NaN where a unit has none; unit i is always the same.
        rule: the wanted width, the level and the limits.

    Returns:
        means, intervals and how many units they took.
    """
    total = _Running.of(np.asarray(sample(0, rule.pilot), float))
    if rule.rule == "two-stage":
        pilot = total
        needed = _stein_size(pilot, rule)
        while True:
            short = int(np.max(np.where(pilot.n > 1, needed - total.n, 0), initial=0))
            take = min(max(short, 0), rule.max_units - total.seen, rule.batch)
            if take <= 0:
                break
            total = total.with_rows(np.asarray(sample(total.seen, take), float))
        with np.errstate(invalid="ignore", divide="ignore"):
            quantile = stats.t.ppf(0.5 + rule.level / 2, np.maximum(pilot.n - 1, 1))
            half = np.where(pilot.n > 1, quantile * pilot.sd() / np.sqrt(total.n), np.nan)
    else:
        while True:
            half = confidence_sequence(total.sd(), total.n, rule.pilot, rule.level)
            take = min(rule.batch, rule.max_units - total.seen)
            if (np.nan_to_num(2 * half, nan=np.inf) <= rule.width).all() or take <= 0:
                break
            total = total.with_rows(np.asarray(sample(total.seen, take), float))
    reached = np.nan_to_num(2 * half, nan=np.inf) <= rule.width * (1 + 1e-9)
    mean = np.where(total.n > 0, total.mean, np.nan)
    return Stopped(mean, mean - half, mean + half, total.seen, total.n, reached, rule.rule)


def confidence_sequence(
    sd: Float[np.ndarray, "k"], n: Int[np.ndarray, "k"], best_at: int, level: float
) -> Float[np.ndarray, "k"]:
    r"""Half-width of the asymptotic confidence sequence at n units, tightest near ``best_at``.

    :math:`\hat\sigma_t \sqrt{\frac{t\rho^2 + 1}{t^2\rho^2} \log\frac{t\rho^2 + 1}{\alpha^2}}` (Waudby-Smith et
    al. 2024, theorem 2.2), with their choice (equation 22) of ρ for t = ``best_at``.
    """
    alpha = 1 - level
    rho2 = (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / best_at
    t = np.maximum(n, 1).astype(float)
    half = sd * np.sqrt((t * rho2 + 1) / (t**2 * rho2) * np.log((t * rho2 + 1) / alpha**2))
    return np.where(n > 1, half, np.nan)


def effects_until(
    mechanism: Callable[[pd.DataFrame], np.ndarray],
    outcome: Callable[[np.ndarray], np.ndarray],
    compounds: Sequence[str],
    contexts: Contexts,
    control: str,
    rule: StoppingRule,
    *,
    seed: int,
    distribution: str = "valid",
    block: int = 1,
) -> Stopped:
    """Sequential stopping of the whole chain: contexts, pictures, features, paired differences.

    Args:
        mechanism: design rows to pictures.
        outcome: pictures to features [r, k].
        compounds: m compounds other than the control.
        contexts: the valid contexts.
        control: the control compound.
        rule: when to stop; a unit is a block of draws.
        seed: determines all draws; unit i is the same whenever it is drawn.
        distribution: p*(C).
        block: draws per unit; more than 1 makes the unit a scrambled Sobol set of that size.

    Returns:
        one value per (compound, feature), compounds first: reshape to [m, k].
    """
    names = [c for c in compounds if c != control]

    def sample(start: int, count: int) -> Float[np.ndarray, "b mk"]:
        scheme = "iid" if block == 1 else "sobol"
        units = [
            draw_contexts(contexts, block, scheme, distribution, _block_seed(seed, i), groups=1)
            for i in range(start, start + count)
        ]
        draws = pd.concat(units, ignore_index=True)
        draws["draw"] = np.arange(len(draws))
        rows = cross([control, *names], draws)
        values = np.asarray(outcome(mechanism(rows)), float)
        by_draw = values.reshape(len(draws), len(names) + 1, -1)
        paired = (by_draw[:, 1:] - by_draw[:, :1]).reshape(count, block, -1)
        there = ~np.isnan(paired)
        mean = np.where(there, paired, 0.0).sum(1) / np.maximum(there.sum(1), 1)
        return np.where(there.any(1), mean, np.nan)

    return draw_until(sample, rule)


@dataclass(frozen=True, eq=False)
class _Running:
    """Count, mean and centred sum of squares per feature."""

    seen: int
    n: Int[np.ndarray, "k"]
    mean: Float[np.ndarray, "k"]
    m2: Float[np.ndarray, "k"]

    @classmethod
    def of(cls, rows: Float[np.ndarray, "b k"]) -> _Running:
        there = ~np.isnan(rows)
        n = there.sum(0)
        mean = np.where(there, rows, 0.0).sum(0) / np.maximum(n, 1)
        return cls(len(rows), n, mean, (np.where(there, rows - mean, 0.0) ** 2).sum(0))

    def with_rows(self, rows: Float[np.ndarray, "b k"]) -> _Running:
        new = _Running.of(rows)
        n = self.n + new.n
        share = new.n / np.maximum(n, 1)
        delta = new.mean - self.mean
        m2 = self.m2 + new.m2 + delta**2 * self.n * share
        return _Running(self.seen + new.seen, n, self.mean + delta * share, m2)

    def sd(self) -> Float[np.ndarray, "k"]:
        return np.sqrt(self.m2 / np.maximum(self.n - 1, 1))


def _stein_size(pilot: _Running, rule: StoppingRule) -> Int[np.ndarray, "k"]:
    """N = max(n0, ⌈(2 t s0 / width)²⌉), Stein 1945."""
    quantile = stats.t.ppf(0.5 + rule.level / 2, np.maximum(pilot.n - 1, 1))
    wanted = np.ceil((2 * quantile * pilot.sd() / rule.width) ** 2)
    return np.maximum(pilot.n, np.minimum(wanted, 2**53)).astype(np.int64)


def _block_seed(seed: int, block: int) -> int:
    return int(np.random.SeedSequence([seed, 3, block]).generate_state(1, np.uint64)[0])
