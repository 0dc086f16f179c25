"""Phenotypic activity and consistency (CHAMMI-75's JUMP-CP tasks): mAP where what is not significant counts as 0.

Activity: do replicates of a compound find each other among controls? Consistency: do active compounds of one target
(mechanism) find each other among other compounds? A compound or target with p above the level counts as 0, and so does
a target none of whose compounds is active.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from profiling.profiles import META, InvalidProfiles, Profiles, aggregate
from profiling.retrieval import Pairing, average_precisions, mean_average_precision


@dataclass(frozen=True)
class Consistency:
    """Means over compounds and over targets, with the share that is significant, and the tables behind them."""

    activity: float
    active: float
    consistency: float
    consistent: float
    compounds: pd.DataFrame
    targets: pd.DataFrame


def activity_and_consistency(
    wells: Profiles,
    controls: Bool[np.ndarray, " n"],
    rng: np.random.Generator,
    compound: str = "compound",
    target: str = "moa",
    within: tuple[str, ...] = ("plate",),
    level: float = 0.05,
    size: int = 10_000,
) -> Consistency:
    """`wells`: corrected well profiles (the paper: ZCA-whitened to the controls). Negatives of activity are controls
    that share the columns `within` (of the same plate). Tables have columns compound or target, `map`, `p`, `counted`.
    """
    treated = ~controls
    pairing = Pairing((compound,), (), within, (compound,))
    found = average_precisions(wells, pairing, queries=treated, negatives=controls)
    own = mean_average_precision(found, [compound], rng, size)
    compounds = _counted(own.rename(columns={META + compound: "compound"}), "compound", level)
    active = set(compounds.loc[compounds["counted"] > 0, "compound"])
    known = wells.rows(treated & wells.meta[META + target].notna().to_numpy())
    everything = sorted({t for word in known.column(target) for t in str(word).split("|") if t})
    rows = known.rows(np.isin(known.column(compound).astype(str), sorted(map(str, active))))
    per_target = _of_targets(rows, compound, target, everything, rng, size)
    targets = _counted(per_target, "target", level)
    return Consistency(
        float(compounds["counted"].mean()),
        float((compounds["p"] <= level).mean()),
        float(targets["counted"].mean()) if len(targets) else float("nan"),
        float((targets["p"] <= level).mean()) if len(targets) else float("nan"),
        compounds,
        targets,
    )


def _of_targets(
    rows: Profiles, compound: str, target: str, everything: list[str], rng: np.random.Generator, size: int
) -> pd.DataFrame:
    """mAP and p of every target; 0 and 1 for one without two active compounds."""
    table = pd.DataFrame({"target": everything, "map": 0.0, "p": 1.0})
    if len(rows) < 2:
        return table
    consensus = aggregate(rows, [compound, target])
    pairing = Pairing((target,), (compound,), (), (target,), several=(target,))
    try:
        found = average_precisions(consensus, pairing)
    except InvalidProfiles as error:
        if "no query" not in str(error):
            raise
        return table
    split = found.assign(target=found[META + target].astype(str).str.split("|")).explode("target")
    scored = mean_average_precision(split.rename(columns={"target": META + "one"}), ["one"], rng, size)
    found_at = scored.set_index(META + "one")
    for column in ("map", "p"):
        table[column] = table["target"].map(found_at[column]).fillna(table[column])
    return table


def _counted(table: pd.DataFrame, name: str, level: float) -> pd.DataFrame:
    counted = np.where(table["p"] <= level, table["map"], 0.0)
    return table[[name, "map", "p"]].assign(counted=counted)
