"""TOML recipes: the shipped ones are read, unknown keys and wrong types are refused."""

from pathlib import Path

import pytest

from ldm.autoencoder import AutoencoderConfig
from ldm.config import ConfigError, read_table
from ldm.objective import DiffusionTraining
from ldm.train import ConditionConfig
from ldm.train_autoencoder import AutoencoderTraining
from ldm.unet import UNetConfig

TABLES = {
    "autoencoder": AutoencoderConfig,
    "autoencoder_training": AutoencoderTraining,
    "unet": UNetConfig,
    "condition": ConditionConfig,
    "diffusion_training": DiffusionTraining,
}


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("small_autoencoder", ("autoencoder", "autoencoder_training")),
        ("small", ("unet", "condition", "diffusion_training")),
    ],
)
def test_shipped_recipes_are_read(repository: Path, name: str, tables: tuple[str, ...]) -> None:
    for table in tables:
        read_table(repository / "configs" / "ldm" / f"{name}.toml", table, TABLES[table])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[unet]\nlayer = 2", "unknown key layer"),
        ("[unet]\nlayers = 'two'", "layers = 'two' is a str, expected int"),
        ("[vnet]", r"has no table \[unet\]; it has vnet"),
        ("[unet", "is not valid TOML"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_table(path, "unet", UNetConfig)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a file"):
        read_table(tmp_path / "no.toml", "unet", UNetConfig)
