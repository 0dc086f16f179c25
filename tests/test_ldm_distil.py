"""Few-step students and the small decoder: the equations against steps taken one by one, exact resume, and what the
pipeline does with the results.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ldm import distil, train_decoder
from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.cached_attention import cached_attention
from ldm.channels import ChannelGroups
from ldm.condition import ConditionEncoder
from ldm.config import ConfigError, read_table
from ldm.distil import Distillation, ddim_step, levels, target_velocity
from ldm.equivalence import EquivalenceError, verdict
from ldm.flops import decoder_flops, flops, unet_flops
from ldm.folder import model_hash
from ldm.mixture import GaussianMixture
from ldm.objective import DiffusionTraining
from ldm.pipeline import CellPaintingPipeline, ModelFolderError
from ldm.prepare import ConditionConfig
from ldm.sampler import ddim
from ldm.schedule import Schedule, trailing_steps
from ldm.sdxl import sdxl_shape
from ldm.small_decoder import SmallDecoder
from ldm.train import run as train_model
from ldm.train_decoder import DecoderConfig, DecoderTraining, psnr
from ldm.unet import PAPER, UNetConfig, build_unet

UNET = UNetConfig(
    latent_size=4, latent_channels=4, widths=(8, 16), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=8
)
RECIPE = Distillation(stages=(4, 2), first_substeps=2, batch=4, steps=3, warmup_steps=1, log_every=1)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher(tiny_training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    vae = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2))
    GroupAutoencoder(vae, ChannelGroups()).save(folder / "vae")
    recipe = DiffusionTraining(batch=4, steps=2, statistics_steps=1, statistics_batch=8, validate_rows=4)
    return train_model(UNET, ConditionConfig(hidden=8, fourier=1), recipe, tiny_training, folder, folder / "vae")


def test_the_target_lands_where_the_teachers_steps_land() -> None:
    schedule = Schedule()
    exact = GaussianMixture((0.4, 0.6), (-1.0, 1.0), (0.3, 0.4)).velocity(schedule)
    inside, abar = levels(schedule, 4, 2)
    assert inside[:, 0].tolist() == trailing_steps(schedule, 4).tolist()
    assert inside.ravel().tolist() == trailing_steps(schedule, 8).tolist()
    assert abar[-1, -1] == 1.0
    start = torch.linspace(-2, 2, 7, dtype=torch.float64).view(-1, 1, 1, 1)
    # one student step after the other with the target velocity is the teacher's DDIM with twice as many steps
    x = start
    for n in range(4):
        marks = torch.from_numpy(abar[n]).expand(7, -1)
        end = x
        for k in range(2):
            end = ddim_step(end, exact(end, int(inside[n, k])), marks[:, k], marks[:, k + 1])
        v = target_velocity(x, end, marks[:, 0], marks[:, -1])
        x = ddim_step(x, v, marks[:, 0], marks[:, -1])
        torch.testing.assert_close(x, end, atol=1e-9, rtol=1e-9)
    teacher = ddim(exact, start, schedule, trailing_steps(schedule, 8), lambda _: start)
    torch.testing.assert_close(x, teacher, atol=1e-9, rtol=1e-9)


def test_a_stopped_distillation_ends_with_the_same_student(teacher: Path, tiny_training: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, teacher=str(teacher))
    whole = distil.run(recipe, tiny_training, tmp_path / "whole")
    for stop in (2, 4):
        distil.run(recipe, tiny_training, tmp_path / "parts", stop_at=stop)
    parts = distil.run(recipe, tiny_training, tmp_path / "parts")
    for name in ("unet", "condition"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        one, other = load_file(whole / file), load_file(parts / file)
        assert all(torch.equal(one[key], other[key]) for key in one)
    student = CellPaintingPipeline.from_pretrained(whole)
    assert (student.settings.sampler, student.settings.steps, student.settings.spacing) == ("ddim", 2, "trailing")
    rows = pd.read_parquet(tiny_training / "rows.parquet").iloc[:2]
    assert student.paint(np.zeros((2, 5), dtype=np.float32), rows).shape == (2, 5, 16, 16)
    first = CellPaintingPipeline.from_pretrained(teacher).unet.state_dict()
    assert any(not torch.equal(first[key], value) for key, value in student.unet.state_dict().items())


@pytest.mark.slow
def test_a_student_comes_near_its_teacher(teacher: Path, tiny_training: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, teacher=str(teacher), steps=150, batch=18, learning_rate=2e-3)
    student = CellPaintingPipeline.from_pretrained(distil.run(recipe, tiny_training, tmp_path))
    rows = pd.read_parquet(tiny_training / "rows.parquet").iloc[:8]
    vectors = np.load(tiny_training / "compounds.npy")[[int(c[1]) for c in rows["compound"]]]
    long = CellPaintingPipeline.from_pretrained(teacher)
    long.settings = replace(long.settings, spacing="trailing")
    wanted = long.paint(vectors, rows, steps=8, sampler="ddim")
    before = np.abs(long.paint(vectors, rows, steps=2, sampler="ddim") - wanted).mean()
    assert np.abs(student.paint(vectors, rows) - wanted).mean() < 0.7 * before


def test_stages_that_do_not_divide_are_refused() -> None:
    for stages in ((), (4, 8), (8, 3)):
        with pytest.raises(ConfigError, match="expected falling numbers"):
            distil.check(Distillation(stages=stages))


def test_shipped_recipes_are_read(repository: Path) -> None:
    configs = repository / "configs" / "ldm"
    distil.check(read_table(configs / "distil.toml", "distillation", Distillation))
    read_table(configs / "small_decoder.toml", "decoder_training", DecoderTraining)
    size = read_table(configs / "small_decoder.toml", "small_decoder", DecoderConfig)
    vae = json.loads((repository / "models/simulation-128/vae/config.json").read_text())
    with torch.device("meta"):
        large = build_network(
            AutoencoderConfig(
                widths=tuple(vae["block_out_channels"]),
                layers_per_block=vae["layers_per_block"],
                latent_channels=vae["latent_channels"],
                norm_groups=vae["norm_num_groups"],
                mid_attention=vae["mid_block_add_attention"],
            )
        )
        small = SmallDecoder(2 * vae["latent_channels"], 5, size.widths, size.blocks)
    theirs = 2 * decoder_flops(lambda z: large.decode(z).sample, (vae["latent_channels"], 16, 16))
    assert theirs >= 20 * decoder_flops(small, (2 * vae["latent_channels"], 16, 16))


def test_a_small_decoder_learns_and_goes_on_where_it_was(teacher: Path, tiny_training: Path, tmp_path: Path) -> None:
    recipe = DecoderTraining(
        batch=6, crop=4, steps=30, warmup_steps=2, scales=1, log_every=10, learning_rate=5e-3, ema_decay=0.9
    )
    size = DecoderConfig(widths=(8, 8, 8), blocks=(1, 0, 0))
    whole = train_decoder.run(size, recipe, teacher / "vae", tiny_training, tmp_path / "whole")
    train_decoder.run(size, recipe, teacher / "vae", tiny_training, tmp_path / "parts", stop_at=11)
    parts = train_decoder.run(size, recipe, teacher / "vae", tiny_training, tmp_path / "parts")
    file = "diffusion_pytorch_model.safetensors"
    one, other = load_file(whole / file), load_file(parts / file)
    assert all(torch.equal(one[key], other[key]) for key in one)
    autoencoder = GroupAutoencoder.load(teacher / "vae")
    z = torch.randn(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(recipe.seed)
    fresh = SmallDecoder(4, 5, size.widths, size.blocks)
    trained = SmallDecoder.from_pretrained(whole)
    with torch.no_grad():
        wanted = autoencoder.decode(z)
        assert trained(z).shape == wanted.shape
        assert psnr(wanted, trained(z)) > psnr(wanted, fresh(z)) + 0.5
    assert psnr(torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.2)) == pytest.approx(20.0, abs=1e-4)


def test_a_pipeline_paints_with_the_small_decoder_when_its_settings_say_so(
    teacher: Path, tiny_training: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pipeline = CellPaintingPipeline.from_pretrained(teacher)
    rows = pd.read_parquet(tiny_training / "rows.parquet").iloc[:2]
    vectors = np.zeros((2, 5), dtype=np.float32)
    plain = pipeline.paint(vectors, rows, steps=2)
    parts = {name: getattr(pipeline, name) for name in ("vae", "unet", "condition", "scheduler")}
    parts |= {name: getattr(pipeline, name) for name in ("channels", "intensity", "known_contexts")}
    small = SmallDecoder(4, 5, (8, 8, 8), (1, 0, 0))
    settings = replace(pipeline.settings, decoder="small")
    CellPaintingPipeline(**parts, settings=settings, small=small).save_pretrained(tmp_path / "small")
    CellPaintingPipeline(**parts, settings=pipeline.settings, small=small).save_pretrained(tmp_path / "both")
    loaded = CellPaintingPipeline.from_pretrained(tmp_path / "small")
    assert not np.allclose(loaded.paint(vectors, rows, steps=2), plain, atol=1e-3)
    assert np.array_equal(CellPaintingPipeline.from_pretrained(tmp_path / "both").paint(vectors, rows, steps=2), plain)
    assert len({model_hash(folder) for folder in (teacher, tmp_path / "small", tmp_path / "both")}) == 3
    weights = tmp_path / "small" / "decoder" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ModelFolderError, match="decoder/diffusion_pytorch_model"):
        CellPaintingPipeline.from_pretrained(tmp_path / "small")


def test_cached_keys_give_the_same_bytes_and_are_made_once() -> None:
    torch.manual_seed(0)
    unet = build_unet(replace(UNET, attention=(1,), pooled=0)).eval()
    x, tokens = torch.randn(2, 4, 4, 4), torch.randn(2, 5, 8)
    calls = []
    attn = next(m for n, m in unet.named_modules() if n.endswith("attn2"))
    attn.to_k.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        plain = [unet(x, t, encoder_hidden_states=tokens).sample for t in (999, 500, 3)]
        calls.clear()
        with cached_attention(unet):
            cached = [unet(x, t, encoder_hidden_states=tokens).sample for t in (999, 500, 3)]
            assert len(calls) == 1
            other = unet(x, 3, encoder_hidden_states=tokens + 1.0).sample
        assert not torch.equal(other, cached[2])
        assert torch.equal(unet(x, 3, encoder_hidden_states=tokens).sample, plain[2])
    assert all(torch.equal(a, b) for a, b in zip(plain, cached, strict=True))


def test_flop_counts_are_those_of_the_design() -> None:
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert flops(lambda: a @ b) == 2 * 3 * 5 * 7
    with torch.device("meta"):
        paper, vae = build_unet(PAPER), sdxl_shape()
    # the design counts 172 and 1,395 GFLOP; the two products of each attention, counted here, add two per cent
    assert unet_flops(paper) / 1e9 == pytest.approx(172, rel=0.03)
    assert decoder_flops(lambda z: vae.decode(z).sample, (4, 48, 48)) / 1e9 == pytest.approx(1395, rel=0.03)


def test_equivalence_of_students_whose_error_is_known() -> None:
    rng = np.random.default_rng(0)
    compound = np.repeat(["DMSO", *(f"K{i}" for i in range(24))], 10)
    level = np.repeat(rng.standard_normal((25, 60)), 10, axis=0)
    teacher = level + 0.2 * rng.standard_normal(level.shape)
    rows = pd.DataFrame({"compound": compound})
    same = verdict(teacher, teacher + 0.1 * rng.standard_normal(level.shape), rows, "DMSO")
    assert same["equivalent"]
    assert same["rows"] == 250
    shifted = verdict(teacher, teacher + 0.2, rows, "DMSO")  # every feature by 0.2 between-compound sd
    assert shifted["within"] < 0.1
    assert shifted["correlation"] == pytest.approx(1.0)
    assert not shifted["equivalent"]
    deaf = verdict(
        teacher, np.broadcast_to(teacher.mean(0), teacher.shape) + 0.1 * rng.standard_normal(level.shape), rows, "DMSO"
    )
    assert deaf["within"] > 0.9
    assert not deaf["equivalent"]
    few = np.flatnonzero(np.arange(250) % 2 == 0)
    assert not verdict(teacher[few], teacher[few], rows.iloc[few], "DMSO")["equivalent"]  # 125 rows are too few
    with pytest.raises(EquivalenceError, match="expected the same rows"):
        verdict(teacher, teacher[:3], rows, "DMSO")


def test_condition_encoders_keep_their_name_for_the_pipeline(teacher: Path) -> None:
    assert isinstance(CellPaintingPipeline.from_pretrained(teacher).condition, ConditionEncoder)
