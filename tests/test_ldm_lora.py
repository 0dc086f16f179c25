"""Adapting to a new batch: old contexts stay as they were, the new batch learns, the adapter is small and merges."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ldm import lora
from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.condition import ConditionEncoder, UnknownContext
from ldm.config import ConfigError, read_table
from ldm.lora import LoraTraining, extended
from ldm.objective import DiffusionTraining
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import ConditionConfig
from ldm.train import run as train_model
from ldm.unet import UNetConfig

UNET = UNetConfig(
    latent_size=4, latent_channels=4, widths=(8, 16), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=8
)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tiny_training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    vae = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2))
    GroupAutoencoder(vae, ChannelGroups()).save(folder / "vae")
    recipe = DiffusionTraining(batch=4, steps=2, statistics_steps=1, statistics_batch=8, validate_rows=4)
    return train_model(UNET, ConditionConfig(hidden=8, fourier=1), recipe, tiny_training, folder, folder / "vae")


@pytest.fixture(scope="module")
def new_laboratory(tiny_training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as if a new source S9 had taken them, twelve control wells of one batch."""
    folder = tmp_path_factory.mktemp("new") / "data"
    shutil.copytree(tiny_training, folder)
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows.assign(source="S9", batch="S9B0", plate="S9P0", compound="K0")
    rows.to_parquet(folder / "rows.parquet")
    np.save(folder / "pictures.npy", (np.load(folder / "pictures.npy") * 0.2 + 0.7).astype(np.float16))
    content = json.loads((folder / "intensity.json").read_text())
    content["sources"] = {"S9": {"low": [0.1] * 5, "high": [0.8] * 5}}
    (folder / "intensity.json").write_text(json.dumps(content))
    return folder


def test_a_longer_vocabulary_changes_nothing_that_is_known(base: Path, tiny_training: Path) -> None:
    old = CellPaintingPipeline.from_pretrained(base).condition
    rows = pd.read_parquet(tiny_training / "rows.parquet").iloc[:4]
    vectors = np.load(tiny_training / "compounds.npy")[[0, 1, 2, 0]]
    new = extended(old, rows.assign(source="S0", batch="S0B77")).eval()
    assert new.batches == (*old.batches, "S0B77")
    torch.testing.assert_close(new(new.conditions(vectors, rows))[1], old(old.conditions(vectors, rows))[1])
    mine = [i for i, source in enumerate(old.batch_sources) if source == "S0"]
    torch.testing.assert_close(new.batch.weight[-1], old.batch.weight[mine].mean(0))
    foreign = extended(old, rows.assign(source="S9", batch="S9B0"))
    torch.testing.assert_close(foreign.source.weight[-1], old.source.weight.mean(0))
    with pytest.raises(ConfigError, match="the model knows it under S0"):
        extended(old, rows.assign(source="S9", batch="S0B0"))


def test_a_new_laboratory_is_learnt_and_the_old_ones_are_kept(
    base: Path, new_laboratory: Path, tiny_training: Path, tmp_path: Path
) -> None:
    config = LoraTraining(base=str(base), rank=2, alpha=2.0, batch=6, steps=12, warmup_steps=1, log_every=6)
    adapted = CellPaintingPipeline.from_pretrained(lora.run(config, new_laboratory, tmp_path))
    before = CellPaintingPipeline.from_pretrained(base)
    rows, vectors = pd.read_parquet(new_laboratory / "rows.parquet").iloc[:2], np.zeros((2, 5), dtype=np.float32)
    with pytest.raises(UnknownContext, match="source: got 'S9'"):
        before.paint(vectors, rows, steps=1)
    pictures = adapted.paint(vectors, rows, steps=2)
    assert pictures.shape == (2, 5, 16, 16)
    assert adapted.intensity.sources[-1] == "S9"
    assert "S9P0" in set(adapted.known_contexts["plate"])
    # only low-rank layers changed, and known rows of the vocabularies did not
    changed = {
        name.removesuffix(".weight")
        for name, value in adapted.unet.state_dict().items()
        if not torch.equal(value, before.unet.state_dict()[name])
    }
    assert changed
    assert all(name.endswith(config.layers) for name in changed)
    known = len(before.condition.batches)
    assert torch.equal(adapted.condition.batch.weight[:known], before.condition.batch.weight)
    assert isinstance(adapted.condition, ConditionEncoder)
    # the adapter is a small part of the model
    small = load_file(tmp_path / lora.ADAPTER)
    assert 0 < sum(t.numel() for t in small.values()) < 0.3 * sum(p.numel() for p in before.unet.parameters())
    assert all("lora_" in name for name in small)


def test_adapting_lowers_the_loss_on_held_out_wells(base: Path, new_laboratory: Path, tmp_path: Path) -> None:
    from ldm.data import load_data
    from ldm.latents import cached_latents
    from ldm.objective import held_out
    from ldm.prepare import prepare
    from ldm.unet import Denoiser

    config = LoraTraining(base=str(base), rank=4, alpha=8.0, batch=18, steps=60, warmup_steps=2, learning_rate=5e-3)
    found = {}
    data, recipe = load_data(new_laboratory), DiffusionTraining(validate_rows=6, batch=6)
    untrained = LoraTraining(**{**config.__dict__, "steps": 0})
    for name, one in (("before", untrained), ("after", config)):
        pipeline = CellPaintingPipeline.from_pretrained(lora.run(one, new_laboratory, tmp_path / name))
        held = prepare(
            pipeline.condition, data, new_laboratory, cached_latents(pipeline.autoencoder, data, tmp_path / name)
        )
        net = Denoiser(pipeline.unet, pipeline.condition, held.statistics.shape[1])
        found[name] = held_out(net, held, pipeline.schedule, recipe, unet=True)["v_conditional"]
    assert found["after"] < 0.97 * found["before"]


def test_the_shipped_recipe_is_read_and_odd_layers_are_refused(
    repository: Path, base: Path, new_laboratory: Path, tmp_path: Path
) -> None:
    read_table(repository / "configs" / "ldm" / "lora.toml", "lora", LoraTraining)
    with pytest.raises(ConfigError, match="no linear layer of the U-Net ends in one of nothing"):
        lora.run(LoraTraining(base=str(base), layers=("nothing",)), new_laboratory, tmp_path)
