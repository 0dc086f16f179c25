"""Axioms of counterfactual pictures, measured on twins: rows that differ in one cause alone, whose truth a simulator
knows. All functions take features [n, k] of pictures, row by row.

Composition: asking for what already is changes nothing. Effectiveness: the change that was asked for happens, as far as
in truth. Minimality: nothing else happens (Monteiro et al. 2023, arXiv:2303.01274; Melistas et al. 2024,
arXiv:2403.20287; here with the true twin in place of a classifier's guess).
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from jaxtyping import Float


class CounterfactualError(ValueError):
    """Raised when tables of features do not have the same shape."""


class Axioms(TypedDict):
    """composition: median distance between a picture and itself painted under its own conditions, in sds of the real
    pictures; 0 is best. effectiveness: 1 - sum |generated change - true change|^2 / sum |true change|^2; 1 is best, 0
    is a model that changes nothing. reach: median length of the generated change along the true one, over its length;
    1 is best. minimality: median length of the generated change across the true one, over the length of the true one;
    0 is best. target: share of changes nearer to the true change than to no change.
    """

    composition: float
    effectiveness: float
    reach: float
    minimality: float
    target: float


def _check(*tables: np.ndarray) -> None:
    shapes = {table.shape for table in tables}
    if len(shapes) != 1 or tables[0].ndim != 2 or not len(tables[0]):
        raise CounterfactualError(
            f"features: got shapes {', '.join(map(str, sorted(shapes)))}, expected one shape [n, k] with n above 0; "
            "measure the same rows in the same order"
        )


def composition(factual: Float[np.ndarray, "n k"], again: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " n"]:
    """Distance of each picture to the same picture after a null intervention, root mean square over features, in the
    features' sd over `factual`.
    """
    _check(factual, again)
    sd = np.maximum(factual.std(0), 1e-12)
    return np.sqrt((((again - factual) / sd) ** 2).mean(1))


def along_across(
    change: Float[np.ndarray, "n k"], truth: Float[np.ndarray, "_ _"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Lengths of the part of `change` along `truth` (signed) and across it, both over the length of `truth`; NaN where
    the truth is nothing.
    """
    _check(change, truth)
    size = np.linalg.norm(truth, axis=1)
    known = size > 0.0
    unit = truth / np.where(known, size, 1.0)[:, None]
    along = (change * unit).sum(1)
    across = np.linalg.norm(change - along[:, None] * unit, axis=1)
    scale = np.where(known, size, np.nan)
    return along / scale, across / scale


def axioms(
    true_factual: Float[np.ndarray, "n k"],
    true_counterfactual: Float[np.ndarray, "_ _"],
    factual: Float[np.ndarray, "_ _"],
    counterfactual: Float[np.ndarray, "_ _"],
    again: Float[np.ndarray, "_ _"],
) -> Axioms:
    """All axioms of n twins. true_*: features of the simulator's pictures. factual, counterfactual: of the model's
    pictures under both conditions and one noise. again: of the model's second answer to the factual condition (its own
    picture encoded, noised and painted back, or painted again).

    Features should be on a common scale (sds of real pictures). Raises CounterfactualError.
    """
    _check(true_factual, true_counterfactual, factual, counterfactual, again)
    truth, change = true_counterfactual - true_factual, counterfactual - factual
    along, across = along_across(change, truth)
    total = float((truth**2).sum())
    return {
        "composition": float(np.median(composition(factual, again))),
        "effectiveness": 1.0 - float(((change - truth) ** 2).sum()) / total if total > 0 else float("nan"),
        "reach": float(np.nanmedian(along)),
        "minimality": float(np.nanmedian(across)),
        "target": float(np.mean(np.linalg.norm(change - truth, axis=1) < np.linalg.norm(change, axis=1))),
    }
