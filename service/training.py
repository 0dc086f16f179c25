"""`dopaint train`: which trainer a recipe belongs to, told by the tables in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from service.errors import InvalidRequest

Trainer = Callable[[Path, Path, Path, Path | None], Path]

# A key or table that only this kind of recipe has -> the module whose `train(config, data, out, start_from)` runs it.
_TRAINERS: dict[str, str] = {
    "autoencoder_training": "ldm.train_autoencoder",
    "diffusion_training": "ldm.train",
    "distillation": "ldm.distil",
    "decoder_training": "ldm.train_decoder",
    "decoder_refinement": "ldm.refine_decoder",
    "lora": "ldm.lora",
    "embedder": "profiling.embedders.train",
    "trex": "profiling.embedders.train",
}
_ENCODER_KEY = "tokenizer_sample"


def train(config: Path, data: Path | None, out: Path, start_from: Path | None = None) -> Path:
    """Run the recipe `config` on the folder `data` (default: DOPAINT_DATA); returns the folder of what was trained.

    Raises `InvalidRequest` for a file that is no recipe, or when a folder is missing.
    """
    if not config.is_file():
        raise InvalidRequest(f"config {str(config)!r} does not exist: give a recipe such as configs/ldm/small.toml")
    from ldm.config import read_toml

    table = read_toml(config)
    folder = data or (Path(os.environ["DOPAINT_DATA"]) if os.environ.get("DOPAINT_DATA") else None)
    if folder is None or not folder.is_dir():
        raise InvalidRequest(f"data folder {str(folder)!r} does not exist: give --data, made by `dopaint simulate`")
    if _ENCODER_KEY in table:
        return _encoder(config, folder, out, start_from)
    for key, module in _TRAINERS.items():
        if key in table:
            trained: Path = import_module(module).train(config, folder, out, start_from)
            return trained
    raise InvalidRequest(f"config {config.name!r} is no recipe: it has none of {', '.join([*_TRAINERS, _ENCODER_KEY])}")


def _encoder(config: Path, data: Path, out: Path, start_from: Path | None) -> Path:
    from chem.train_encoder import EncoderRecipe, train_encoder

    return train_encoder(EncoderRecipe.from_toml(config), data, out, start_from=start_from)
