r"""How strong a hidden confounder would have to be to explain an effect, or a call, away.

Where no negative control shares the hidden cause, nothing in the data can reveal it; these numbers are what can still
be said honestly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True, eq=False)
class Robustness:
    """Strength of confounding that the estimate withstands, per feature."""

    value_to_null: Float[np.ndarray, "k"]
    """Robustness value: share of the residual variance of both treatment and outcome that a confounder must explain to
    bring the effect to zero."""
    interval_to_null: Float[np.ndarray, "k"]
    """The same until the interval includes zero; 0 where it does already."""
    partial_r2: Float[np.ndarray, "k"]
    """Partial R² of the treatment with the outcome: what a confounder that explains all of the outcome must explain of
    the treatment."""


def robustness(
    value: Float[np.ndarray, "k"], se: Float[np.ndarray, "k"], df: Float[np.ndarray, "k"], level: float = 0.95
) -> Robustness:
    r"""Robustness values of a regression estimate (Cinelli and Hazlett 2020, equations 18 to 20).

    :math:`RV = \frac12 (\sqrt{f^4 + 4 f^2} - f^2)` with :math:`f = |t| / \sqrt{df}`; for the interval
    :math:`f - t^*_{df-1} / \sqrt{df - 1}` in place of f. Partial R² is :math:`t^2 / (t^2 + df)`.
    """
    t = np.abs(value) / se
    f = t / np.sqrt(df)
    f_interval = np.maximum(f - stats.t.ppf(0.5 + level / 2, df - 1) / np.sqrt(df - 1), 0)

    def strength(g: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 * (np.sqrt(g**4 + 4 * g**2) - g**2))

    return Robustness(strength(f), strength(f_interval), t**2 / (t**2 + df))


def confounding_bias(
    se: Float[np.ndarray, "k"], df: Float[np.ndarray, "k"], r2_outcome: float, r2_treatment: float
) -> Float[np.ndarray, "k"]:
    r"""Largest bias of a confounder of this strength, in units of the effect (Cinelli and Hazlett 2020, equation 12).

    :math:`|bias| = se \sqrt{df\; R^2_{Y \sim Z | T, X}\, R^2_{T \sim Z | X} / (1 - R^2_{T \sim Z | X})}`.
    """
    if not (0 <= r2_outcome <= 1 and 0 <= r2_treatment < 1):
        raise ValueError(f"partial R²: got {r2_outcome} and {r2_treatment}, expected shares, the second below 1")
    return np.asarray(se * np.sqrt(df * r2_outcome * r2_treatment / (1 - r2_treatment)))


def e_value(standardised: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    r"""E-value of an effect in standard deviations of the outcome (VanderWeele and Ding 2017).

    Risk ratio :math:`RR \approx e^{0.91 |d|}`, :math:`E = RR + \sqrt{RR (RR - 1)}`: the association that a hidden
    confounder must have with both treatment and outcome, each on the risk-ratio scale. 1: none is needed.
    """
    ratio = np.exp(0.91 * np.abs(standardised))
    return np.asarray(ratio + np.sqrt(ratio * (ratio - 1)))


def e_value_of_interval(low: Float[np.ndarray, "k"], high: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """E-value of the end of an interval (in standard deviations) that is nearer to zero; 1 where it includes zero."""
    nearer = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return e_value(nearer)


def tipping_point(
    value: Float[np.ndarray, "k"],
    call: Callable[[Float[np.ndarray, "k"]], object],
    direction: Float[np.ndarray, "k"] | None = None,
    largest: float = 1.0,
    steps: int = 200,
) -> float:
    """The smallest strength s at which ``call(value - s * direction)`` is no longer ``call(value)``.

    Args:
        value: effects of one compound.
        call: effects to a decision, such as the MoA of the best Biosimilarity, or whether it is active.
        direction: bias per unit of strength, for example that of a known batch; None: the value itself, so that s = 1
            removes the effect altogether.
        largest: where to give up.
        steps: grid of the search, refined by bisection.

    Returns:
        s, or infinity if the call stands up to ``largest``.
    """
    toward = value if direction is None else direction
    kept = call(value)
    before = 0.0
    for s in np.linspace(0, largest, steps + 1)[1:]:
        if call(value - s * toward) != kept:
            low, high = before, float(s)
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (low, middle) if call(value - middle * toward) != kept else (middle, high)
            return high
        before = float(s)
    return float("inf")
