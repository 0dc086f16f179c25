r"""Interval of a Biosimilarity over draws: what it would be with infinitely many of them.

Estimand: theta = Pearson(E[x], v) on the features of a label, x the effect vector of one draw, v the sub-profile.

Estimate: noise in the mean of n draws leaves cov(x, v) unbiased and inflates the variance over features, so the plain
correlation is drawn towards 0, and a bootstrap over draws adds that noise once more: its percentile interval covers 1
% instead of 95 % with 8 draws in the world of `tests/test_profiling_interval.py`. Products of *different* draws carry
no such noise:

    theta_U = mean_i <x_i, v> / sqrt(U),   U = mean over i != j of <x_i, x_j>,   x_i and v centred over features, |v|
    = 1

Variance: jackknife over draws, Student's t with n - 1 degrees of freedom. Where U or one of its leave-one-out values
is not positive, the draws do not show that there is an effect at all, and the interval is the whole range. The
interval is widened to contain the score itself. Assumption: draws are independent given the compound.

Measured coverage of the 95 % interval, 2,000 worlds each of 80 features with correlated noise: 0.944 to 0.99 for 3 to
100 draws at noise up to 5 times the effect; conservative with few draws. Where there is no effect, theta has no
meaning.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from profiling.profiles import InvalidProfiles
from profiling.subprofile import CLIP, SubProfiles


def correlation_interval(
    draws: Float[np.ndarray, "d k"], reference: Float[np.ndarray, " k"], level: float = 0.95
) -> tuple[float, float]:
    """Interval in [-1, 1] of the correlation of E[draw] with `reference`; (NaN, NaN) with fewer than 3 draws or 2
    features or a constant reference."""
    n, k = draws.shape
    v = reference - reference.mean() if k else reference
    size = float(np.linalg.norm(v))
    if n < 3 or k < 2 or size == 0.0:
        return float("nan"), float("nan")
    x = draws - draws.mean(axis=1, keepdims=True)
    a = x @ (v / size)
    g = x @ x.T
    row, own, total = g.sum(axis=1), np.diag(g), g.sum()
    u = (total - own.sum()) / (n * (n - 1))
    u_without = (total - 2 * row + own - (own.sum() - own)) / ((n - 1) * (n - 2))
    plain = float(np.clip(a.sum() / np.sqrt(total), -1.0, 1.0)) if total > 0 else float("nan")
    if u <= 0 or (u_without <= 0).any():
        return -1.0, 1.0
    theta = a.mean() / np.sqrt(u)
    without = (a.sum() - a) / (n - 1) / np.sqrt(u_without)
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    half = float(student.ppf((1 + level) / 2, n - 1) * error)
    return max(-1.0, min(float(theta) - half, plain)), min(1.0, max(float(theta) + half, plain))


def biosimilarity_interval(
    draws: Float[np.ndarray, "d k"], subprofiles: SubProfiles, level: float = 0.95
) -> tuple[Float[np.ndarray, " l"], Float[np.ndarray, " l"]]:
    """Low and high of the Biosimilarity with each label, in the units of the convention; NaN where it is not defined.

    Features that some draw does not have are left out. A feature whose mean is clipped (reference convention) counts as
    constant. Raises `InvalidProfiles` for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InvalidProfiles(f"level must lie between 0 and 1, got {level!r}")
    clip = CLIP[subprofiles.convention]
    shared = ~np.isnan(draws).any(axis=0) if len(draws) else np.zeros(draws.shape[1], dtype=bool)
    mean = np.where(shared, draws[:, :].sum(axis=0) / max(len(draws), 1), 0.0)
    linear = np.where(np.abs(mean) < clip, draws, np.clip(mean, -clip, clip))
    bounds = np.full((2, len(subprofiles.labels)), np.nan)
    for j in range(len(subprofiles.labels)):
        used = subprofiles.mask[j] & shared
        values = np.clip(subprofiles.values[j, used], -clip, clip)
        bounds[:, j] = correlation_interval(linear[:, used], values, level)
    if subprofiles.convention == "reference":
        bounds = 100.0 * np.maximum(bounds, 0.0)
    return bounds[0], bounds[1]
