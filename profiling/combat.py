"""ComBat: location and scale of each batch, shrunk over features by empirical Bayes (Johnson, Li and Rabinovic 2007).

doi 10.1093/biostatistics/kxj037, the parametric version. Transductive: it sees all rows at once. Covariates (the
treatment, say) are kept: their effect is fitted with the batches and put back.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from profiling.profiles import META, InvalidProfiles, Profiles, Words

TOLERANCE = 1e-4  # relative change at which the Bayes estimates have settled
MOST_ROUNDS = 10_000


def combat(
    values: Float[np.ndarray, "n k"], batch: Words, covariates: Float[np.ndarray, "n c"] | None = None
) -> Float[np.ndarray, "n k"]:
    """Rows with batch location and scale removed. A feature that does not vary within batches is returned as it is.

    Raises `InvalidProfiles` for NaN, a batch of one row, or covariates that the batches determine.
    """
    if np.isnan(values).any():
        raise InvalidProfiles(f"values contain {int(np.isnan(values).sum())} NaN: select features or rows first")
    words = np.asarray(batch, dtype=object).astype(str)
    names, code, size = np.unique(words, return_inverse=True, return_counts=True)
    if len(names) < 2 or (size < 2).any():
        lonely = names[size < 2].tolist()
        raise InvalidProfiles(f"batch: expected two batches or more of two rows or more, too small are {lonely[:5]}")
    phi = (code[:, None] == np.arange(len(names))).astype(np.float64)
    extra = np.empty((len(values), 0)) if covariates is None else covariates - covariates.mean(axis=0)
    design = np.hstack([phi, extra])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise InvalidProfiles("covariates are determined by the batches: their effect cannot be told from the batch's")
    beta = np.linalg.lstsq(design, values, rcond=None)[0]
    variance = ((values - design @ beta) ** 2).mean(axis=0)
    steady = variance <= 1e-14 * (values**2).mean(axis=0)
    scale = np.sqrt(np.where(steady, 1.0, variance))
    mean = size / len(values) @ beta[: len(names)] + extra @ beta[len(names) :]
    s = (values - mean) / scale
    out = s.copy()
    for b in range(len(names)):
        rows = code == b
        gamma, delta = _shrink(s[rows][:, ~steady])
        out[np.ix_(rows, ~steady)] = (s[rows][:, ~steady] - gamma) / np.sqrt(delta)
    return np.where(steady, values, out * scale + mean)


def _shrink(s: Float[np.ndarray, "m k"]) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Posterior location and scale of one batch: normal prior on the first, inverse gamma on the second."""
    m = len(s)
    gamma_hat, delta_hat = s.mean(axis=0), s.var(axis=0, ddof=1)
    if s.shape[1] < 2 or delta_hat.var(ddof=1) == 0:
        return gamma_hat, delta_hat  # no second feature to borrow from
    centre, spread = gamma_hat.mean(), gamma_hat.var(ddof=1)
    first, second = delta_hat.mean(), delta_hat.var(ddof=1)
    a, b = (2 * second + first**2) / second, (first * second + first**3) / second
    gamma, delta = gamma_hat, delta_hat
    for _ in range(MOST_ROUNDS):
        new_gamma = (spread * m * gamma_hat + delta * centre) / (spread * m + delta)
        new_delta = (0.5 * ((s - new_gamma) ** 2).sum(axis=0) + b) / (m / 2 + a - 1)
        change = max(
            float((np.abs(new_gamma - gamma) / np.maximum(np.abs(gamma), 1e-12)).max()),
            float((np.abs(new_delta - delta) / delta).max()),
        )
        gamma, delta = new_gamma, new_delta
        if change < TOLERANCE:
            break
    return gamma, delta


def combat_profiles(profiles: Profiles, batch: str, keep: Sequence[str] = ()) -> Profiles:
    """Profiles corrected over the metadata column `batch`; the effects of the columns `keep` stay. Transductive."""
    columns = [c if c.startswith(META) else META + c for c in keep]
    covariates = None
    if columns:
        dummies = pd.get_dummies(profiles.meta[columns].astype(str), drop_first=True)
        covariates = dummies.to_numpy(dtype=np.float64)
    return profiles.with_values(combat(profiles.values, profiles.column(batch), covariates))
