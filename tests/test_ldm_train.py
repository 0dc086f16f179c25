"""Training: an interrupted run ends with the same weights, a bad loss stops it, damaged checkpoints are refused by
name.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ldm import train_autoencoder
from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.checkpoint import CheckpointError
from ldm.data import TrainingDataError, load_data
from ldm.intensity import IntensityScale
from ldm.latents import cached_latents, latent_statistics
from ldm.objective import DiffusionTraining, uniform_steps
from ldm.pipeline import CellPaintingPipeline
from ldm.train import ConditionConfig, run, train
from ldm.train_autoencoder import AutoencoderTraining, TrainingStopped
from ldm.unet import UNetConfig

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
VAE = AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)
UNET = UNetConfig(
    latent_size=4, latent_channels=4, widths=(8, 16), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=8
)
CONDITION = ConditionConfig(hidden=8, fourier=1)
RECIPE = DiffusionTraining(
    batch=4, steps=6, statistics_steps=3, statistics_batch=8, warmup_steps=2, log_every=2, validate_rows=4
)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng, n = np.random.default_rng(0), 24
    np.save(folder / "pictures.npy", rng.uniform(-1, 1, (n, 5, 16, 16)).astype(np.float16))
    source = [f"S{i % 2}" for i in range(n)]
    rows = pd.DataFrame(
        {
            "compound": [f"K{i % 3}" for i in range(n)],
            "source": source,
            "batch": [f"{s}B{i % 3}" for i, s in enumerate(source)],
            "plate": [f"{s}P" for s in source],
            "plate_format": 384,
            "row": rng.integers(0, 16, n),
            "column": rng.integers(0, 24, n),
            "seed": np.arange(n, dtype=np.uint64),
            "split": ["train"] * 18 + ["val"] * 6,
        }
    )
    rows.to_parquet(folder / "rows.parquet")
    np.save(folder / "compounds.npy", rng.standard_normal((3, 5)).astype(np.float32))
    pd.DataFrame({"compound": ["K0", "K1", "K2"]}).to_parquet(folder / "compounds.parquet")
    low, high = np.zeros((2, 5)), np.ones((2, 5))
    IntensityScale(("S0", "S1"), CHANNELS, low, high).save(folder / "intensity.json")
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    GroupAutoencoder(build_network(VAE), ChannelGroups()).save(folder)
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("stop", [2, 3, 7])
def test_an_interrupted_run_ends_with_the_same_weights(data: Path, vae: Path, tmp_path: Path, stop: int) -> None:
    run(UNET, CONDITION, RECIPE, data, tmp_path / "whole", vae)
    run(UNET, CONDITION, RECIPE, data, tmp_path / "parts", vae, stop_at=stop)
    assert not same(tmp_path / "whole" / "diffusion.safetensors", tmp_path / "parts" / "diffusion.safetensors")
    run(UNET, CONDITION, RECIPE, data, tmp_path / "parts", vae)
    assert same(tmp_path / "whole" / "diffusion.safetensors", tmp_path / "parts" / "diffusion.safetensors")


def test_an_interrupted_autoencoder_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    recipe = AutoencoderTraining(batch=2, crop=8, steps=6, bfloat16=False, threads=1, log_every=4, scales=1)
    opened = load_data(data)
    whole = train_autoencoder.run(VAE, recipe, opened, tmp_path / "whole")
    train_autoencoder.run(VAE, recipe, opened, tmp_path / "parts", stop_at=3)
    parts = train_autoencoder.run(VAE, recipe, opened, tmp_path / "parts")
    assert same(whole / "diffusion_pytorch_model.safetensors", parts / "diffusion_pytorch_model.safetensors")
    z = GroupAutoencoder.load(whole).encode(torch.from_numpy(opened.read(np.arange(18))))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.ones(4), atol=2e-2, rtol=0)


def test_the_result_is_a_model_folder_that_paints_and_can_be_started_from(
    data: Path, vae: Path, tmp_path: Path
) -> None:
    folder = run(UNET, CONDITION, RECIPE, data, tmp_path / "a", vae)
    pipeline = CellPaintingPipeline.from_pretrained(folder)
    rows = pd.read_parquet(data / "rows.parquet").iloc[:2]
    pictures = pipeline.paint(np.zeros((2, 5), dtype=np.float32), rows, steps=2)
    assert pictures.shape == (2, 5, 16, 16)
    assert pd.read_parquet(folder / "training_compounds.parquet")["compound"].tolist() == ["K0", "K1", "K2"]
    assert pipeline.settings.training_steps == 9
    still = replace(RECIPE, learning_rate=0.0, statistics_rate=0.0, statistics_steps=0, steps=1)
    again = CellPaintingPipeline.from_pretrained(run(UNET, CONDITION, still, data, tmp_path / "b", vae, folder))
    for name, tensor in pipeline.unet.state_dict().items():
        assert torch.equal(again.unet.state_dict()[name], tensor)


def test_a_start_from_weights_keeps_the_scale_of_the_new_vectors(data: Path, vae: Path, tmp_path: Path) -> None:
    first = run(UNET, CONDITION, RECIPE, data, tmp_path / "a", vae)
    other = tmp_path / "other"
    shutil.copytree(data, other)
    vectors = 3.0 * np.load(data / "compounds.npy") + 5.0  # the same molecules by another encoder
    np.save(other / "compounds.npy", vectors)
    again = run(UNET, CONDITION, replace(RECIPE, steps=1, statistics_steps=0), other, tmp_path / "b", vae, first)
    condition = CellPaintingPipeline.from_pretrained(again).condition
    np.testing.assert_allclose(condition.compound_mean, vectors.mean(0), rtol=1e-3)
    np.testing.assert_allclose(condition.compound_sd, vectors.std(0), rtol=1e-3)
    steps = [CellPaintingPipeline.from_pretrained(folder).settings.training_steps for folder in (first, again)]
    assert steps == [9, 10]  # 3 + 6 of the first run, 1 of the second


def test_a_loss_that_is_not_a_number_stops_clearly(data: Path, vae: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match="lower learning_rate"):
        run(UNET, CONDITION, replace(RECIPE, statistics_rate=1e30, clip=1e30), data, tmp_path, vae)


def test_another_recipe_is_not_continued(data: Path, vae: Path, tmp_path: Path) -> None:
    run(UNET, CONDITION, RECIPE, data, tmp_path, vae, stop_at=2)
    with pytest.raises(CheckpointError, match="made under another configuration"):
        run(UNET, CONDITION, replace(RECIPE, batch=5), data, tmp_path, vae)
    run(UNET, CONDITION, replace(RECIPE, log_every=1), data, tmp_path, vae, stop_at=3)


def test_a_truncated_checkpoint_is_refused_by_name(data: Path, vae: Path, tmp_path: Path) -> None:
    run(UNET, CONDITION, RECIPE, data, tmp_path, vae, stop_at=2)
    path = tmp_path / "diffusion.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"diffusion\.safetensors is not a whole safetensors file"):
        run(UNET, CONDITION, RECIPE, data, tmp_path, vae)


def test_latents_are_made_once_for_each_autoencoder(data: Path, vae: Path, tmp_path: Path) -> None:
    opened, autoencoder = load_data(data), GroupAutoencoder.load(vae)
    z = cached_latents(autoencoder, opened, tmp_path)
    made = (tmp_path / "latents.npy").stat().st_mtime_ns
    expected = autoencoder.encode(torch.from_numpy(opened.read(np.arange(24))))
    np.testing.assert_allclose(z, expected.numpy(), atol=0.02)  # made in bfloat16
    cached_latents(autoencoder, opened, tmp_path)
    assert (tmp_path / "latents.npy").stat().st_mtime_ns == made
    autoencoder.store_scale(torch.ones(4), torch.ones(4))
    other = cached_latents(autoencoder, opened, tmp_path)
    assert not np.allclose(other, z, atol=0.1)


def test_statistics_of_known_latents() -> None:
    z = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    z[:, 1] = 0.6 * z[:, 0] + 0.8 * z[:, 1]
    z = z * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1) + torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    expected = [3.0, 0.0, np.log(2.0), 0.0, np.log(16.0), np.log(4.0), 0.6]
    np.testing.assert_allclose(latent_statistics(z)[0].numpy(), expected, atol=0.06)


def test_time_steps_are_uniform() -> None:
    t = np.concatenate([uniform_steps(10, 1000, np.random.default_rng(i)) for i in range(300)])
    assert t.min() >= 0
    assert t.max() <= 999
    assert np.histogram(t, bins=10, range=(0, 1000))[0].tolist() == [300] * 10


def test_incomplete_data_are_refused(data: Path, tmp_path: Path, repository: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"has no pictures\.npy"):
        train(repository / "configs" / "ldm" / "small_autoencoder.toml", tmp_path, tmp_path / "out")
    np.save(tmp_path / "pictures.npy", np.zeros((2, 5, 8, 8), dtype=np.float16))
    pd.read_parquet(data / "rows.parquet").to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(TrainingDataError, match="has 24 rows"):
        load_data(tmp_path)
