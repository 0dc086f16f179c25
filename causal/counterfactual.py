"""Counterfactual checks of any generator on twins: composition, effectiveness, minimality.

Axioms and names from Monteiro et al. 2023 ("Measuring axiomatic soundness of counterfactual image models"). The
generator is a callable from rows to pictures, `measure` one from pictures to features; twins come from the simulator
(same seed, another compound or context), so the right answer is known and not judged by another network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

Generator = Callable[[pd.DataFrame], Float[np.ndarray, "n c h w"]]
Measure = Callable[[Float[np.ndarray, "n c h w"]], Float[np.ndarray, "n k"]]


@dataclass(frozen=True)
class CounterfactualScore:
    """composition: mean absolute change of a picture under no intervention, in picture units (0 is perfect).
    effectiveness: correlation of generated with true feature changes over rows and moved features (1 is perfect).
    minimality: root mean square change of features that must not move, over that of features that must (0 is perfect).
    """

    composition: float
    effectiveness: float
    minimality: float


def moved_features(
    changes: Float[np.ndarray, "n k"], noise: Float[np.ndarray, " k"], threshold: float = 3.0
) -> Bool[np.ndarray, " k"]:
    """Features whose mean true change is beyond `threshold` standard errors and a tenth of their spread `noise`."""
    mean = changes.mean(0)
    error = changes.std(0, ddof=1) / np.sqrt(len(changes))
    return np.asarray((np.abs(mean) > threshold * error) & (np.abs(mean) > 0.1 * noise))


def check_twins(
    generator: Generator, truth: Generator, measure: Measure, factual: pd.DataFrame, intervened: pd.DataFrame
) -> CounterfactualScore:
    """Compare a generator with the truth on pairs of rows (factual[i], intervened[i]).

    Raises ValueError when the tables differ in length or seeds, have fewer than 3 rows, or the intervention moves
    every feature or none, so that effectiveness or minimality has no meaning.
    """
    if len(factual) != len(intervened) or len(factual) < 3:
        raise ValueError(
            f"rows: {len(factual)} factual and {len(intervened)} intervened; give the same number, 3 or more"
        )
    if not np.array_equal(factual["seed"].to_numpy(), intervened["seed"].to_numpy()):
        raise ValueError("seed: twins must share their seeds row by row; copy the seeds of the factual rows")
    start = generator(factual)
    composition = float(np.abs(generator(factual) - start).mean())
    base = measure(truth(factual))
    true = measure(truth(intervened)) - base
    made = measure(generator(intervened)) - measure(start)
    noise = base.std(0) + 1e-12
    true, made = true / noise, made / noise
    moved = moved_features(true, np.ones(true.shape[1]))
    if moved.all() or not moved.any():
        raise ValueError(
            f"intervention: it moves {int(moved.sum())} of {len(moved)} features; choose one that moves some"
        )
    a, b = true[:, moved].ravel(), made[:, moved].ravel()
    effectiveness = float(np.corrcoef(a, b)[0, 1]) if b.std() > 0 else 0.0
    still = float(np.sqrt((made[:, ~moved] ** 2).mean()))
    should = float(np.sqrt((true[:, moved] ** 2).mean()))
    return CounterfactualScore(composition, effectiveness, still / should)
