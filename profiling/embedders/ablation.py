"""Which part of a training folder a recipe learns from: data ablations, and groups left out to be scored later.

    [data]
    channels = ["DNA", "ER"]          # these only
    only = ["source=S1"]              # rows of these values only
    without = ["cell_line=A549-sim"]  # not these
    share = 0.5                       # of the training rows that are left, drawn by seed
    leave = "compound"                # whole groups of this column are left out: fold `fold` of `folds`

CHAMMI-75 ablates lines, modalities, channels and size this way; PhenoProfiler leaves perturbations, plates, sites or
data sets out. Rows that are not learned from have the split "left out" or keep the one they had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from profiling.embedders.data import InvalidTrainingData, TrainingPictures
from profiling.embedders.recipe import InvalidRecipe

LEFT_OUT, UNUSED = "left out", "unused"


@dataclass(frozen=True)
class DataConfig:
    """See the top of the file; the defaults take everything."""

    channels: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    share: float = 1.0
    leave: str = ""
    folds: int = 5
    fold: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0 or not 0 <= self.fold < self.folds:
            raise InvalidRecipe(
                f"data: share {self.share}, fold {self.fold} of {self.folds}; expected a share up to 1 and a fold "
                "below folds"
            )


def matching(rows: pd.DataFrame, conditions: Sequence[str]) -> Bool[np.ndarray, " n"]:
    """Rows that meet one of the conditions "column=value". Raises InvalidTrainingData for an unknown column."""
    found = np.zeros(len(rows), dtype=bool)
    for condition in conditions:
        column, sign, value = condition.partition("=")
        if not sign or column not in rows.columns:
            raise InvalidTrainingData(
                f"data: condition {condition!r}, expected column=value with one of {', '.join(map(str, rows.columns))}"
            )
        found |= (rows[column].astype(str) == value).to_numpy()
    return found


def left_out(rows: pd.DataFrame, config: DataConfig) -> Bool[np.ndarray, " n"]:
    """Rows of the groups of this fold; none without `leave`. Groups are dealt out at random, a few a fold."""
    if not config.leave:
        return np.zeros(len(rows), dtype=bool)
    if config.leave not in rows.columns:
        raise InvalidTrainingData(
            f"data: no column {config.leave!r} to leave out, it has {', '.join(map(str, rows.columns))}"
        )
    words = rows[config.leave].astype(str)
    groups = np.array(sorted(words.unique()), dtype=object)
    if len(groups) < config.folds:
        raise InvalidTrainingData(
            f"data: {len(groups)} groups of {config.leave!r} for {config.folds} folds; ask for fewer folds"
        )
    fold = np.random.default_rng(config.seed).permutation(len(groups)) % config.folds
    return words.isin(groups[fold == config.fold]).to_numpy()


def part(data: TrainingPictures, config: DataConfig) -> TrainingPictures:
    """The folder as the recipe sees it. Raises InvalidTrainingData where nothing is left or a channel is missing."""
    rows, learned = data.rows, data.rows["split"].to_numpy() == "train"
    out = left_out(rows, config)
    used = learned & ~out
    if config.only:
        used &= matching(rows, config.only)
    used &= ~matching(rows, config.without)
    if config.share < 1.0:
        at = np.flatnonzero(used)
        drop = np.random.default_rng(config.seed).permutation(at)[max(1, round(config.share * len(at))) :]
        used[drop] = False
    if not used.any():
        raise InvalidTrainingData("data: no training row is left; loosen only, without or leave")
    split = np.where(out, LEFT_OUT, np.where(learned & ~used, UNUSED, rows["split"].to_numpy()))
    shown = config.channels or data.channels
    if missing := [name for name in shown if name not in data.channels]:
        raise InvalidTrainingData(f"data: channels {', '.join(missing)} are not among {', '.join(data.channels)}")
    return replace(data, rows=rows.assign(split=split), shown=tuple(shown))
