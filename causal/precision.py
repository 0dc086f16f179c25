"""What a design buys at equal cost: the variance of stratified and QMC draws against the paper's iid draws.

Contexts carry a share of the variance of a draw; a design over contexts can remove that share and no more, so the
variance can be divided by 1 / (1 - share) at most: the ceiling. Pairing (common random numbers) comes on top: it
removes what compound and control share, context and noise alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.design import draw_contexts
from causal.tabular import FEATURES, TabularWorlds
from causal.variance import split_variance

DESIGNS: dict[str, tuple[str, int | None]] = {
    "iid (paper)": ("iid", None),
    "stratified": ("stratified", None),
    "lhs, 2 replicates": ("lhs", 2),
    "sobol, 8 replicates": ("sobol", 8),
    "sobol, 2 replicates": ("sobol", 2),
}

BEST = "lhs, 2 replicates"
"""The design that must reach nine tenths of the ceiling: each replicate visits every one of 24 plates twice. More
replicates give its error more degrees of freedom (8 have 7, 2 have 1) and leave more of the contexts to chance."""


def variance_at_equal_cost(
    n_draws: int = 96, replicates: int = 300, worlds: int = 8, seed: int = 0, designs: Sequence[str] = tuple(DESIGNS)
) -> pd.DataFrame:
    """Variance of the mean under do(compound) and of the paired effect, each design against iid draws.

    Args:
        n_draws: draws per design (the paper has 100); every design costs the same pictures.
        replicates: independent designs, whose scatter is the variance.
        worlds: worlds over which variances are averaged.
        seed: determines worlds and draws.
        designs: names of `DESIGNS`.

    Returns:
        a row per (quantity, feature, design): variance ratio to iid, share of the variance that contexts carry, the
        ceiling that it implies, share of the ceiling reached; and for the effect the gain of pairing.
    """
    made = TabularWorlds.make(worlds, seed)
    target = made.contexts.distribution("valid")
    names = list(dict.fromkeys(["iid (paper)", *designs]))
    means = {name: np.empty((replicates, worlds, 2, len(FEATURES))) for name in names}
    for name in names:
        scheme, groups = DESIGNS[name]
        for r in range(replicates):
            draws = draw_contexts(made.contexts, n_draws, scheme, target, seed + 1000 + r, groups=groups)
            means[name][r] = _means(made, draws)
    variance = {name: m.var(0, ddof=1).mean(0) for name, m in means.items()}
    context, total, unpaired = _parts(made, seed)
    share = np.clip(context / total, 0, 1)
    rows = []
    for q, quantity in enumerate(("mean", "effect")):
        for k, feature in enumerate(FEATURES):
            ceiling = 1 / (1 - share[q, k])
            for name in names:
                ratio = total[q, k] / n_draws / variance[name][q, k]
                line: dict[str, object] = {
                    "study": "variance at equal cost",
                    "setting": f"{quantity} of {feature}, {n_draws} draws",
                    "estimator": name,
                    "n": replicates,
                    "variance_ratio": ratio,
                    "context_share": share[q, k],
                    "ceiling": ceiling,
                    "of_ceiling": ratio / ceiling,
                }
                if quantity == "effect":
                    line["pairing_gain"] = unpaired[k] / n_draws / variance[name][q, k]
                if name == BEST:
                    line |= {"wanted": "0.90 of the ceiling or more", "holds": bool(ratio / ceiling >= 0.9)}
                rows.append(line)
    return pd.DataFrame(rows)


def _means(made: TabularWorlds, draws: pd.DataFrame) -> Float[np.ndarray, "w 2 k"]:
    """Mean under do(compound) and paired effect of every world under the same draws."""
    worlds, n = len(made), len(draws)
    world = np.repeat(np.arange(worlds), n)
    rows = draws.iloc[np.tile(np.arange(n), worlds)]
    with np.errstate(over="ignore"):  # every world has noise of its own
        rows = rows.assign(seed=rows["seed"].to_numpy() + world.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03))
    treated = np.ones(worlds * n, bool)
    one = made.outcome(world, treated, rows).reshape(worlds, n, -1)
    zero = made.outcome(world, ~treated, rows).reshape(worlds, n, -1)
    return np.stack([one.mean(1), (one - zero).mean(1)], 1)


def _parts(
    made: TabularWorlds, seed: int, contexts: int = 4096
) -> tuple[Float[np.ndarray, "2 k"], Float[np.ndarray, "2 k"], Float[np.ndarray, "k"]]:
    """Variance of one iid draw, of the mean and of the paired difference: its context part, all of it; and all of the
    difference of two arms that share neither context nor noise."""
    draws = draw_contexts(made.contexts, 2 * contexts, "iid", seed=seed, seeds_per_context=2)
    context, total, unpaired = [], [], []
    for w in range(len(made)):
        world, treated = np.full(len(draws), w), np.ones(len(draws), bool)
        one, zero = made.outcome(world, treated, draws), made.outcome(world, ~treated, draws)
        split = [split_variance(v, draws) for v in (one, one - zero)]
        context.append([s.context for s in split])
        total.append([s.total for s in split])
        unpaired.append(split[0].total + split_variance(zero, draws).total)
    return np.mean(context, 0), np.mean(total, 0), np.mean(unpaired, 0)
