"""`dopaint train configs/embedders/trex_moa.toml --data FOLDER --out RUN`: an adaptation of the profiles in FOLDER.

FOLDER/profiles.parquet: rows of any level with the label's column; FOLDER/base: the weights of the engine that made
them, if `base` names one. `dopaint embedders adapt` reads the result, RUN/model; with a base `--engine trex` does.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from profiling.embedders.data import InvalidTrainingData
from profiling.embedders.recipe import read_recipe, table_of
from profiling.embedders.trex.fit import TrexConfig, fit
from profiling.embedders.weights import read_card
from profiling.tables import read_profiles

log = logging.getLogger("dopaint.training")
PROFILES = "profiles.parquet"


def train(config_path: Path, data: Path, out: Path) -> Path:
    """Fit and write the folder; returns it. Raises InvalidRecipe, InvalidTrainingData, InvalidProfiles."""
    config = table_of(read_recipe(config_path), "trex", TrexConfig, str(config_path))
    path = data / PROFILES
    if not path.is_file():
        raise InvalidTrainingData(f"training data: {data} has no {PROFILES}; make it with dopaint profile")
    if config.base:
        read_card(data / "base", config.base)
    made = fit(read_profiles(path), config)
    for line in made.history.itertuples():
        log.info(f"epoch {line.epoch} loss {line.loss:.5f} validation mAP {line.validation:.4f} rate {line.rate:.1e}")
    folder = made.save(out / "model")
    if config.base:
        shutil.copytree(data / "base", folder / "base", dirs_exist_ok=True)
    made.history.to_csv(out / "log.csv", index=False)
    return folder
