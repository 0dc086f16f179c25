"""How good an estimator is where the truth is known: bias, RMSE, coverage, width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True)
class Score:
    """An estimator over n worlds; every share and mean with its own error."""

    n: int
    bias: float
    bias_se: float
    """Monte Carlo standard error of the bias over the worlds."""
    rmse: float
    coverage: float
    coverage_low: float
    """Low end of the 95 % Clopper-Pearson interval of the coverage."""
    coverage_high: float
    width: float
    """Median width of the intervals."""


def score(
    value: Float[np.ndarray, "n"],
    low: Float[np.ndarray, "n"],
    high: Float[np.ndarray, "n"],
    truth: Float[np.ndarray, "n"],
) -> Score:
    """Bias, root mean squared error and coverage of n estimates of n truths.

    An estimate that is NaN (the estimator gave none) counts as not covering and is left out of bias and RMSE.

    Raises:
        ValueError: the arrays differ in length or are empty.
    """
    if not len({len(value), len(low), len(high), len(truth)}) == 1 or not len(truth):
        raise ValueError(
            f"score: got lengths {len(value)}, {len(low)}, {len(high)}, {len(truth)}, expected one length >= 1"
        )
    error = (value - truth)[np.isfinite(value)]
    widths = (high - low)[np.isfinite(high - low)]
    covered = int(np.sum((low <= truth) & (truth <= high)))
    ends = stats.binomtest(covered, len(truth)).proportion_ci(method="exact")
    return Score(
        n=len(truth),
        bias=float(error.mean()) if len(error) else float("nan"),
        bias_se=float(error.std(ddof=1) / np.sqrt(len(error))) if len(error) > 1 else float("nan"),
        rmse=float(np.sqrt((error**2).mean())) if len(error) else float("nan"),
        coverage=covered / len(truth),
        coverage_low=float(ends.low),
        coverage_high=float(ends.high),
        width=float(np.median(widths)) if len(widths) else float("nan"),
    )
