r"""A mechanism fitted on a finite table of wells: a linear model per feature, with the error of its fit.

:math:`\hat E[Y \mid t, x] = \alpha + x\beta + \tau_t + z\gamma_t`: covariates x (source, batch, plate, position), one
effect per compound, and interactions of the compound with z. It stands where a diffusion model stands (design rows in,
features out), is fitted in milliseconds, and its estimation error is known, so ``total`` intervals can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from causal.gformula import Effects, with_estimation
from causal.regression import Encoding, LeastSquares, UnknownLevel


@dataclass(frozen=True, eq=False)
class TabularMechanism:
    """A fitted linear outcome model for several compounds and a control."""

    control: str
    compounds: tuple[str, ...]
    covariates: Encoding
    interactions: Encoding
    least_squares: LeastSquares

    @classmethod
    def fit(
        cls,
        values: Float[np.ndarray, "n k"],
        table: pd.DataFrame,
        control: str,
        covariates: Sequence[str],
        interactions: Sequence[str] = (),
        *,
        cluster: str | None = None,
    ) -> TabularMechanism:
        """Least squares on observed wells.

        Args:
            values: features of the wells.
            table: their compound, covariates and interactions.
            control: the control compound, the reference level.
            covariates: columns that close the back doors.
            interactions: columns whose effect differs by compound (C → P).
            cluster: column of wells that share an error, for the standard errors.
        """
        compounds = tuple(sorted(set(table["compound"]) - {control}))
        model = cls(control, compounds, Encoding.of(table, covariates), Encoding.of(table, interactions),
                    LeastSquares.fit(np.ones((1, 1)), np.ones((1, 1))))  # fmt: skip
        groups = None if cluster is None else pd.factorize(table[cluster])[0]
        fitted = LeastSquares.fit(model._matrix(table), values, groups)
        return cls(control, compounds, model.covariates, model.interactions, fitted)

    def __call__(self, rows: pd.DataFrame) -> Float[np.ndarray, "n k"]:
        """Expected features of design rows: the mechanism and the outcome of `causal.gformula.g_formula` in one.

        Raises:
            UnknownLevel: a compound or context that the table does not have.
        """
        return self._matrix(rows) @ self.least_squares.beta

    def with_error(self, effects: Effects, draws: pd.DataFrame) -> Effects:
        """Effects under these draws with the estimation error of the fit, so that ``total`` can be asked for.

        Raises:
            NotEstimable: the table does not determine an effect (positivity).
        """
        se = np.zeros_like(effects.value)
        for i, compound in enumerate(effects.compounds):
            if compound != self.control:
                difference = self._matrix(draws.assign(compound=compound)) - self._matrix(
                    draws.assign(compound=self.control)
                )
                se[i] = self.least_squares.function(difference.mean(0))[1]
        return with_estimation(effects, se, df=float(max(self.least_squares.df, 1)))

    def _matrix(self, rows: pd.DataFrame) -> Float[np.ndarray, "n p"]:
        compound = rows["compound"].to_numpy()
        unknown = sorted(set(compound) - {self.control, *self.compounds})
        if unknown:
            raise UnknownLevel(f"compound: {unknown[0]!r} is not in the table that the model was fitted on")
        treated = (compound[:, None] == np.array(self.compounds, object)).astype(float)
        z = self.interactions.matrix(rows)
        crossed = (treated[:, :, None] * z[:, None, :]).reshape(len(rows), -1)
        return np.hstack([np.ones((len(rows), 1)), self.covariates.matrix(rows), treated, crossed])


def resample_wells(
    table: pd.DataFrame, seed: int, *, within: Sequence[str] = ("compound",), cluster: str | None = None
) -> Int[np.ndarray, "n"]:
    """Positions of a bootstrap sample of wells, for refits of any mechanism (`causal.gformula.with_estimation`).

    Args:
        table: observed wells.
        seed: which sample; give 0, 1, 2, ... for the refits.
        within: wells are drawn with replacement within each combination of these columns, so no compound is lost.
        cluster: whole plates (or batches) are drawn instead of wells; the number of rows may then differ.
    """
    rng = np.random.default_rng([seed, 7])
    if cluster is not None:
        groups = list(table.groupby(cluster, sort=True).indices.values())
        return np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))])
    strata = table.groupby(list(within), sort=True).indices.values()
    return np.concatenate([rng.choice(wells, len(wells)) for wells in strata])
