r"""Linear and logistic regression with honest standard errors, for many responses at once.

Least squares of k features on one design matrix. The variance of a linear function a'β is the sandwich
:math:`\sum_i g_i^2 e_i^2 / (1 - h_i)` with g = X (X'X)⁺ a (HC2, MacKinnon and White 1985), or with sums of g e within
clusters (CR1, Liang and Zeger 1986) where wells of one plate share an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from causal.contexts import CONTEXT_COLUMNS


class NotEstimable(ValueError):
    """The data do not determine this effect: positivity fails for the model that was asked for."""


class UnknownLevel(ValueError):
    """A row names a source, batch or other level that the fitted table does not have."""


@dataclass(frozen=True)
class Encoding:
    """Columns of a table to columns of a design matrix: floats as they are, else a dummy per level but the first."""

    columns: tuple[str, ...]
    levels: tuple[tuple[object, ...], ...]
    """Per column: its levels; empty for a number."""

    @classmethod
    def of(cls, table: pd.DataFrame, columns: Sequence[str]) -> Encoding:
        """Learn the levels. Source, batch, plate, row and column count as categories."""
        missing = [c for c in columns if c not in table.columns]
        if missing:
            raise UnknownLevel(
                f"covariates: the table has no column {missing[0]!r}, expected some of {list(table.columns)}"
            )
        levels = [
            ()
            if pd.api.types.is_float_dtype(table[c]) and c not in CONTEXT_COLUMNS
            else tuple(sorted(table[c].unique()))
            for c in columns
        ]
        return cls(tuple(columns), tuple(levels))

    def matrix(self, table: pd.DataFrame) -> Float[np.ndarray, "n p"]:
        """The design matrix of these rows, without an intercept.

        Raises:
            UnknownLevel: a level that was not in the fitted table.
        """
        parts = [np.zeros((len(table), 0))]
        for column, levels in zip(self.columns, self.levels, strict=True):
            if not levels:
                parts.append(table[column].to_numpy(float)[:, None])
                continue
            code = pd.Categorical(table[column], categories=list(levels)).codes
            if (code < 0).any():
                bad = table[column].to_numpy()[code < 0][0]
                raise UnknownLevel(f"{column}: {bad!r} is not in the table that the model was fitted on")
            parts.append((code[:, None] == np.arange(1, len(levels))).astype(float))
        return np.hstack(parts)


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """β = (X'X)⁺ X'Y and what its standard errors need."""

    x: Float[np.ndarray, "n p"]
    bread: Float[np.ndarray, "p p"]
    beta: Float[np.ndarray, "p k"]
    residual: Float[np.ndarray, "n k"]
    leverage: Float[np.ndarray, "n"]
    df: int
    cluster: Int[np.ndarray, "n"] | None = None

    @classmethod
    def fit(
        cls, x: Float[np.ndarray, "n p"], y: Float[np.ndarray, "n k"], cluster: Int[np.ndarray, "n"] | None = None
    ) -> LeastSquares:
        """Ordinary least squares; a rank-deficient X is allowed, what it leaves open is refused by `function`."""
        bread = np.linalg.pinv(x.T @ x, hermitian=True, rcond=1e-10)
        beta = bread @ (x.T @ y)
        leverage = np.clip(np.einsum("ij,jk,ik->i", x, bread, x), 0, 1)
        rank = round(float(leverage.sum()))
        df = len(x) - rank if cluster is None else len(np.unique(cluster)) - 1
        return cls(x, bread, beta, y - x @ beta, leverage, df, cluster)

    def function(self, a: Float[np.ndarray, "p"]) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
        """a'β and its sandwich standard error, per feature.

        Raises:
            NotEstimable: a is not in the row space of X.
        """
        if np.abs(a - (a @ self.bread) @ (self.x.T @ self.x)).max(initial=0) > 1e-6 * max(np.abs(a).max(initial=0), 1):
            raise NotEstimable(
                "the effect is not determined by the table: the compound is never seen where the model asks for it; "
                "drop the interaction or restrict the contexts"
            )
        g = self.x @ (self.bread @ a)
        if self.cluster is None:
            free = np.where(self.leverage < 1 - 1e-9, 1 - self.leverage, np.inf)
            variance = (g**2 / free) @ self.residual**2
        else:
            count = int(self.cluster.max()) + 1
            sums = np.stack([np.bincount(self.cluster, s, count) for s in (g[:, None] * self.residual).T])
            used = len(np.unique(self.cluster))
            n, rank = len(self.x), round(float(self.leverage.sum()))
            variance = (sums**2).sum(1) * used / (used - 1) * (n - 1) / max(n - rank, 1)
        return a @ self.beta, np.sqrt(variance)


@dataclass(frozen=True, eq=False)
class Logistic:
    """P(T = 1 | x) = 1 / (1 + exp(-x'β)) by penalised maximum likelihood, with the influence of each row on β."""

    beta: Float[np.ndarray, "p"]
    probability: Float[np.ndarray, "n"]
    influence: Float[np.ndarray, "n p"]

    @classmethod
    def fit(cls, x: Float[np.ndarray, "n p"], t: Float[np.ndarray, "n"], ridge: float = 1e-3) -> Logistic:
        """Newton's method; the ridge keeps β finite where a batch holds no treated well (separation)."""
        beta = np.zeros(x.shape[1])
        penalty = ridge * np.eye(x.shape[1])
        hessian = penalty
        for _ in range(100):
            p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
            hessian = x.T @ (x * (p * (1 - p))[:, None]) + penalty
            step = np.linalg.solve(hessian, x.T @ (t - p) - penalty @ beta)
            beta = beta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-300))
            if np.abs(step).max() < 1e-10:
                break
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        influence = len(x) * (x * (t - p)[:, None]) @ np.linalg.inv(hessian)
        return cls(beta, p, influence)
