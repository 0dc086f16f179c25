"""The paper's model as a recipe: its size, its control without confounders, and a step of training in small."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ldm.autoencoder import AutoencoderConfig, AutoencoderError, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.condition import ConditionEncoder
from ldm.config import ConfigError, described, read_table, read_toml
from ldm.data import load_data
from ldm.objective import DiffusionTraining
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import ConditionConfig, LatentsConfig, autoencoder_of, build_condition
from ldm.progress import check_tracker, clock
from ldm.schedule import Schedule
from ldm.sdxl import SDXL_SCALE, load_autoencoder, sdxl_shape
from ldm.train import check_shards, run
from ldm.unet import PAPER, PAPER_PARAMETERS, UNetConfig, build_unet, n_parameters

VAE = AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def jump(repository: Path) -> Path:
    return repository / "configs" / "ldm" / "jump.toml"


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the SDXL autoencoder comes: one scaling factor, no channels named."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    network = build_network(VAE)
    network.register_to_config(scaling_factor=SDXL_SCALE)
    network.save_pretrained(folder)
    return folder


def small(jump: Path) -> tuple[UNetConfig, DiffusionTraining]:
    """The recipe with everything narrower, its layout kept."""
    unet = read_table(jump, "unet", UNetConfig)
    recipe = read_table(jump, "diffusion_training", DiffusionTraining)
    narrow = replace(
        unet, latent_size=4, latent_channels=4, widths=(8, 16, 16), head_width=8, norm_groups=4, token_width=8
    )
    return narrow, replace(recipe, batch=6, epochs=1.0, tracker="", precision="no", warmup_steps=1, log_every=1)


def test_the_recipe_is_the_papers_model(jump: Path) -> None:
    unet = read_table(jump, "unet", UNetConfig)
    recipe = read_table(jump, "diffusion_training", DiffusionTraining)
    assert unet == PAPER
    with torch.device("meta"):
        assert n_parameters(build_unet(unet)) == PAPER_PARAMETERS == 259_990_024
    assert (recipe.batch, recipe.epochs, recipe.statistics_steps) == (192, 30.0, 0)
    assert Schedule() == Schedule(1000, 0.0015, 0.0205)
    named = read_table(jump, "latents", LatentsConfig)
    groups = ChannelGroups(named.channels)
    assert groups.groups == (("DNA", "ER", "RNA"), ("DNA", "AGP", "Mito"))
    # 384 x 384 pixels become 8 x 48 x 48
    with torch.device("meta"):
        network = sdxl_shape()
        autoencoder = GroupAutoencoder(network, groups)
        assert (autoencoder.latent_channels, 384 // autoencoder.factor) == (unet.latent_channels, unet.latent_size)
        assert network.config["scaling_factor"] == 0.13025
        assert n_parameters(network) == 83_653_863  # of the published SDXL autoencoder


def test_the_control_is_three_lines_and_differs_in_the_context_alone(jump: Path) -> None:
    twin = jump.with_name("jump_scm_free.toml")
    assert len(twin.read_text().splitlines()) == 3
    mine, theirs = read_toml(twin), read_toml(jump)
    assert mine["condition"].pop("context") is False
    assert theirs["condition"].pop("context") is True
    assert mine == theirs


def test_extending_recipes(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n[unet]\nlayers = 3\n')
    (tmp_path / "b.toml").write_text("[unet]\nlayers = 2\nhead_width = 8\n[other]\nx = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"unet": {"layers": 3, "head_width": 8}, "other": {"x": 1}}
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(ConfigError, match="extends itself"):
        read_toml(tmp_path / "a.toml")
    (tmp_path / "b.toml").write_text("extends = 1\n")
    with pytest.raises(ConfigError, match="expected the name of a file beside it"):
        read_toml(tmp_path / "a.toml")


def test_a_later_key_at_its_default_leaves_the_text_of_a_recipe(jump: Path) -> None:
    assert "accumulate" not in described(DiffusionTraining())
    assert "'accumulate': 2" in described(DiffusionTraining(accumulate=2))
    assert "threads" not in described(DiffusionTraining(threads=7))
    later = {f.name for f in dataclasses.fields(DiffusionTraining) if f.metadata.get("later")}
    assert later == {"epochs", "accumulate", "tracker"}


def test_the_recipe_in_small_trains_and_paints(jump: Path, tiny_training: Path, vae: Path, tmp_path: Path) -> None:
    unet, recipe = small(jump)
    # "hub id or folder": the recipe names a folder, whose channels it gives itself
    folder = autoencoder_of({"latents": {"autoencoder": str(vae)}}, jump, tmp_path)
    out = run(unet, read_table(jump, "condition", ConditionConfig), recipe, tiny_training, tmp_path, folder)
    pipeline = CellPaintingPipeline.from_pretrained(out)
    assert pipeline.settings.training_steps == math.ceil(18 / 6)  # one epoch
    rows = pd.read_parquet(tiny_training / "rows.parquet").iloc[:2]
    assert pipeline.paint(np.zeros((2, 5), dtype=np.float32), rows, steps=2, sampler="unipc").shape == (2, 5, 16, 16)


def test_the_control_sees_compounds_and_nothing_else(jump: Path, tiny_training: Path) -> None:
    config = read_table(jump.with_name("jump_scm_free.toml"), "condition", ConditionConfig)
    data = load_data(tiny_training)
    vectors = np.load(tiny_training / "compounds.npy")
    torch.manual_seed(0)
    encoder = build_condition(small(jump)[0], config, data, vectors).eval()
    one, other = data.rows.iloc[:1], data.rows.iloc[1:2]
    tokens, _ = encoder(encoder.conditions(vectors[:1], one))
    assert torch.equal(tokens, encoder(encoder.conditions(vectors[:1], other))[0])
    assert not torch.equal(tokens, encoder(encoder.conditions(vectors[1:2], one))[0])
    full = build_condition(small(jump)[0], replace(config, context=True), data, vectors)
    assert n_parameters(full) == n_parameters(encoder)  # the same budget


def test_the_plate_is_an_optional_token_with_a_null_for_new_plates(
    jump: Path, tiny_training: Path, tmp_path: Path
) -> None:
    data, vectors = load_data(tiny_training), np.load(tiny_training / "compounds.npy")
    config = replace(read_table(jump, "condition", ConditionConfig), plate=True)
    torch.manual_seed(0)
    encoder = build_condition(small(jump)[0], config, data, vectors).eval()
    assert encoder.plates == ("S0P0", "S0P1", "S1P0", "S1P1")
    row = data.rows.iloc[:1]

    def pooled(of: ConditionEncoder, rows: pd.DataFrame) -> torch.Tensor:
        found: torch.Tensor = of(of.conditions(vectors[:1], rows))[1]
        return found

    here, there, new = (pooled(encoder, row.assign(plate=name)) for name in ("S0P0", "S0P1", "never seen"))
    assert not torch.allclose(here, there)
    assert not torch.allclose(here, new)
    torch.testing.assert_close(new, pooled(encoder, row.drop(columns="plate")))
    # what is null is null whatever stands in the table, alone and after a drop
    given = encoder.conditions(vectors[:1], row.assign(plate="S0P1"))
    dropped = encoder(given.keeping("compound", "source", "batch", "plate_format", "well"))[1]
    torch.testing.assert_close(dropped, new)
    encoder.save_pretrained(tmp_path)
    torch.testing.assert_close(pooled(ConditionEncoder.from_pretrained(tmp_path).eval(), row), pooled(encoder, row))


def test_three_channels_train_through_the_same_code(jump: Path, tiny_training: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("rows.parquet", "compounds.npy", "compounds.parquet"):
        (data / name).write_bytes((tiny_training / name).read_bytes())
    np.save(data / "pictures.npy", np.load(tiny_training / "pictures.npy")[:, :3])
    scale = '{"low": [0, 0, 0], "high": [1, 1, 1]}'
    (data / "intensity.json").write_text(
        f'{{"channels": ["Actin", "Tubulin", "DNA"], "sources": {{"S0": {scale}, "S1": {scale}}}}}'
    )
    torch.manual_seed(0)
    four = replace(VAE, latent_channels=4)
    GroupAutoencoder(build_network(four), ChannelGroups(("Actin", "Tubulin", "DNA"))).save(tmp_path / "vae")
    unet, recipe = small(jump)
    out = run(unet, ConditionConfig(hidden=8), replace(recipe, epochs=0.4), data, tmp_path / "out", tmp_path / "vae")
    pipeline = CellPaintingPipeline.from_pretrained(out)
    assert pipeline.channels.groups == (("Actin", "Tubulin", "DNA"),)
    assert pipeline.unet.config["in_channels"] == 4
    rows = pd.read_parquet(data / "rows.parquet").iloc[:1]
    assert pipeline.paint(np.zeros((1, 5), dtype=np.float32), rows, steps=1).shape == (1, 3, 16, 16)


def test_accumulated_gradients_are_those_of_the_whole_batch(
    jump: Path, tiny_training: Path, vae: Path, tmp_path: Path
) -> None:
    unet, recipe = small(jump)
    recipe = replace(recipe, steps=3, epochs=0.0, min_snr=5.0, statistics_steps=1, statistics_batch=12)
    tensors = []
    for parts in (1, 3):
        folder = tmp_path / str(parts)
        run(unet, ConditionConfig(hidden=8), replace(recipe, accumulate=parts), tiny_training, folder, vae)
        tensors.append(load_file(folder / "diffusion.safetensors"))
    whole, cut = tensors
    # AdamW divides by the root of squared gradients: rounding of 1e-7 in sums may show as 1e-4 of a step of 1e-3
    for name, value in whole.items():
        if name.startswith("weights."):
            torch.testing.assert_close(cut[name], value, atol=2e-5, rtol=1e-3)
    with pytest.raises(ConfigError, match="expected multiples of 4"):
        check_shards(replace(recipe, accumulate=4), 1)


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(jump: Path, tiny_training: Path, vae: Path, tmp_path: Path) -> None:
    text = f"""
import sys; from dataclasses import replace; from pathlib import Path
from ldm.config import read_table; from ldm.objective import DiffusionTraining; from ldm.prepare import ConditionConfig
from ldm.train import run; from ldm.unet import UNetConfig
jump = Path({str(jump)!r})
unet = replace(read_table(jump, "unet", UNetConfig), latent_size=4, latent_channels=4, widths=(8, 16, 16), head_width=8,
               norm_groups=4, token_width=8)
recipe = replace(read_table(jump, "diffusion_training", DiffusionTraining), batch=6, epochs=0.0, steps=3, tracker="",
                 precision="no", warmup_steps=1)
run(unet, ConditionConfig(hidden=8), recipe, Path({str(tiny_training)!r}), Path(sys.argv[1]), Path({str(vae)!r}))
"""
    script = tmp_path / "script.py"
    script.write_text(text)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes"]
    root = str(jump.parents[2])
    for processes in ("1", "2"):
        command = [*launch, processes, "--mixed_precision", "no", "--dynamo_backend", "no", str(script)]
        done = subprocess.run(
            [*command, str(tmp_path / processes)], cwd=root, env=environment(root), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / n / "diffusion.safetensors") for n in ("1", "2"))
    for name, value in one.items():
        if name.startswith("weights."):
            torch.testing.assert_close(two[name], value, atol=2e-5, rtol=1e-3)


def environment(root: str) -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": root, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside tensorboard
def test_a_run_is_followed_by_tensorboard(jump: Path, tiny_training: Path, vae: Path, tmp_path: Path) -> None:
    unet, recipe = small(jump)
    run(unet, ConditionConfig(hidden=8), replace(recipe, tracker="tensorboard"), tiny_training, tmp_path, vae)
    assert list((tmp_path / "dopaint").glob("events.out.tfevents*"))
    with pytest.raises(ConfigError, match="tracker: got 'crayon', expected one of tensorboard"):
        check_tracker("crayon")
    assert clock(3725.0) == "1:02:05"
    assert clock(float("inf")) == "?"


def test_autoencoders_come_from_folders_and_are_refused_by_name(vae: Path, tmp_path: Path) -> None:
    loaded = load_autoencoder(vae, ("Actin", "Tubulin", "DNA"))
    assert loaded.channels.names == ("Actin", "Tubulin", "DNA")
    pictures = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(pictures), loaded.encode_raw(pictures) * SDXL_SCALE)
    loaded.save(tmp_path / "named")
    with pytest.raises(AutoencoderError, match="was made for Actin, Tubulin, DNA, expected DNA, ER"):
        load_autoencoder(tmp_path / "named")
    with pytest.raises(AutoencoderError, match="no/such-autoencoder is no folder here and could not be fetched"):
        load_autoencoder("no/such-autoencoder")
