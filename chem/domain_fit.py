"""Learn an applicability domain from held-out compounds: a model's error on each, and how near it lies to training.

The score that orders compounds is a mix of similarity and density; its weight is the one under which error falls most
steadily (Spearman). The thresholds cut the score into three classes that explain most of the error's variance, with the
mean error rising from in to edge to out. Whether there is anything to learn is asked of the same data twice: a
permutation test of the whole choice, and a cross-fit, in which no compound is judged by thresholds it helped to choose.
If the error does not rise, nothing is learned, and the domain says so.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from chem.domain import EDGE_FROM, IN_FROM, Domain, DomainError, DomainModel

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
CLASSES = (Domain.IN, Domain.EDGE, Domain.OUT)
LEAST = 20  # held-out compounds
SHARE = 0.1  # of them in each class, at least, and never fewer than 3
FOLDS = 5
SIGNIFICANT = 0.05


def fit_domain(
    error: Float[np.ndarray, " n"],
    similarity: Float[np.ndarray, " n"],
    density: Float[np.ndarray, " n"] | None = None,
    *,
    name: str = "error",
    seed: int = 0,
    permutations: int = 999,
) -> DomainModel:
    """The domain of a model from its errors (any scale, larger is worse) on held-out compounds.

    `similarity` is the Tanimoto similarity to the nearest training compound, `density` that of `EncoderSpace`, both in
    [0, 1]; without `density` the similarity decides alone. `name` says what the error is.
    Raises `DomainError` for fewer than 20 compounds, numbers that are not finite, or lengths that differ.
    """
    parts = [np.asarray(part, np.float64) for part in (error, similarity, similarity if density is None else density)]
    if len({part.shape for part in parts}) != 1 or len(error) < LEAST or not np.isfinite(np.stack(parts)).all():
        raise DomainError(
            f"errors, similarities and densities of held-out compounds: got {[len(part) for part in parts]} numbers; "
            f"expected as many of each, all finite, and at least {LEAST}."
        )
    weights = WEIGHTS if density is not None else WEIGHTS[:1]
    scores = np.stack([(1.0 - w) * parts[1] + w * parts[2] for w in weights])
    rng = np.random.default_rng(seed)
    p = _p_value(parts[0], scores, rng, permutations)
    chosen = _choose(parts[0], scores)
    folded = _cross_fit(parts[0], scores, rng)
    errors = _class_errors(parts[0], folded, rng)
    rises = len(errors) == len(CLASSES) and errors["in"]["mean"] < errors["out"]["mean"]
    if chosen is None or not rises or p > SIGNIFICANT:
        return DomainModel(
            basis=(
                f"Tanimoto to the nearest training compound: in from {IN_FROM:.2f}, edge from {EDGE_FROM:.2f}; fixed: "
                f"on {len(error)} held-out compounds the {name} does not rise from near to far (p = {p:.3f})"
            ),
            error=name,
            compounds=len(error),
            p=p,
        )
    place, edge_from, in_from = chosen
    weight = weights[place]
    what = "Tanimoto similarity to the nearest training compound"
    if weight:
        what = f"{1 - weight:.2f} x {what} + {weight:.2f} x density of training compounds around it"
    means = ", ".join(f"{errors[one]['mean']:.2f} {one}" for one in ("in", "edge", "out"))
    return DomainModel(
        weight=weight,
        in_from=round(in_from, 6),
        edge_from=round(edge_from, 6),
        learned=True,
        basis=(
            f"{what}: in from {in_from:.2f}, edge from {edge_from:.2f}; learned from {len(error)} held-out compounds, "
            f"cross-fitted {name}: {means} (p = {p:.3f})"
        ),
        error=name,
        compounds=len(error),
        p=p,
        errors=errors,
    )


def _steadiness(error: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """How steadily the error falls as each score rises: minus Spearman's rank correlation, one number a score."""
    ranks = rankdata(error)
    ranks = ranks - ranks.mean()
    ordered = rankdata(scores, axis=1)
    ordered = ordered - ordered.mean(1, keepdims=True)
    scale = np.sqrt((ranks**2).sum() * (ordered**2).sum(1))
    return -np.divide(ordered @ ranks, scale, out=np.zeros(len(scores)), where=scale > 0)


def _p_value(error: np.ndarray, scores: np.ndarray, rng: np.random.Generator, permutations: int) -> float:
    """Share of shuffled errors under which the best score falls as steadily; the choice of the weight included."""
    found = _steadiness(error, scores).max()
    chance = [_steadiness(rng.permutation(error), scores).max() >= found - 1e-12 for _ in range(permutations)]
    return round((1 + sum(chance)) / (1 + permutations), 6)


def _choose(error: np.ndarray, scores: np.ndarray) -> tuple[int, float, float] | None:
    """(which score, edge from, in from); None where no cut has the error rising through three classes."""
    place = int(_steadiness(error, scores).argmax())
    order = np.argsort(scores[place], kind="stable")
    score, sums = scores[place][order], np.concatenate([[0.0], np.cumsum(error[order])])
    n, least = len(error), max(3, round(SHARE * len(error)))
    cuts = [i for i in range(least, n - least + 1) if score[i - 1] < score[i]] if n > 2 * least else []
    best: tuple[float, int, int] | None = None
    for a in cuts:
        for b in cuts:
            if b - a < least:
                continue
            out, edge, inside = sums[a] / a, (sums[b] - sums[a]) / (b - a), (sums[n] - sums[b]) / (n - b)
            if inside < edge < out:
                explained = a * out**2 + (b - a) * edge**2 + (n - b) * inside**2
                if best is None or explained > best[0]:
                    best = (explained, a, b)
    if best is None:
        return None
    _, a, b = best
    return place, float(score[a - 1] + score[a]) / 2, float(score[b - 1] + score[b]) / 2


def _cross_fit(error: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Class of each compound (0 in, 1 edge, 2 out; -1 none) by a choice made without its fold."""
    fold = rng.permutation(np.arange(len(error)) % FOLDS)
    found = np.full(len(error), -1)
    for part in range(FOLDS):
        own = fold == part
        chosen = _choose(error[~own], scores[:, ~own])
        if chosen is not None:
            place, edge_from, in_from = chosen
            score = scores[place][own]
            found[own] = np.where(score >= in_from, 0, np.where(score >= edge_from, 1, 2))
    return found


def _class_errors(error: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Mean error of each class that has compounds, with the 95 % bootstrap interval over them."""
    found: dict[str, dict[str, float]] = {}
    for number, name in enumerate(CLASSES):
        own = error[classes == number]
        if len(own):
            means = own[rng.integers(len(own), size=(2000, len(own)))].mean(1)
            low, high = np.percentile(means, [2.5, 97.5])
            numbers = {"mean": own.mean(), "low": low, "high": high, "compounds": len(own)}
            found[name.value] = {key: round(float(value), 6) for key, value in numbers.items()}
    return found
