"""The pipeline and its folder: a row determines its picture, the folder comes back whole, damage is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import ldm.pipeline
from ldm.autoencoder import AutoencoderConfig, build_network
from ldm.channels import CHANNELS, ChannelGroups
from ldm.condition import ConditionEncoder, UnknownContext
from ldm.intensity import IntensityError, IntensityScale
from ldm.pipeline import CellPaintingPipeline, ModelFolderError, PipelineSettings, model_hash, scheduler_of
from ldm.schedule import Schedule, ScheduleError
from ldm.unet import UNetConfig, build_unet

DIM, N = 6, 7
UNET = UNetConfig(
    latent_size=8, latent_channels=4, widths=(16, 32), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=12
)


def build() -> CellPaintingPipeline:
    torch.manual_seed(0)
    condition = ConditionEncoder(
        DIM, ("S1", "S2"), ("S1B1", "S2B1"), ("S1", "S2"), width=8, pooled=12, hidden=16, fourier=2
    )
    rng = np.random.default_rng(0)
    low = rng.uniform(0.0, 0.1, (2, 5))
    return CellPaintingPipeline(
        vae=build_network(AutoencoderConfig(widths=(8, 8, 16), latent_channels=2, norm_groups=4)),
        unet=build_unet(UNET),
        condition=condition,
        scheduler=scheduler_of(Schedule()),
        channels=ChannelGroups(),
        intensity=IntensityScale(("S1", "S2"), CHANNELS, low, low + 0.5),
        known_contexts=pd.DataFrame({"source": ["S1"], "batch": ["S1B1"], "plate": ["S1B1P1"], "plate_format": [384]}),
        settings=PipelineSettings(micro_batch=4, threads=1, steps=3),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    build().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> CellPaintingPipeline:
    return CellPaintingPipeline.from_pretrained(folder)


VECTORS = np.random.default_rng(1).standard_normal((N, DIM)).astype(np.float32)
DESIGN = pd.DataFrame(
    {
        "source": ["S1", "S2"] * 3 + ["S1"],
        "batch": ["S1B1", "S2B1"] * 3 + ["S1B1"],
        "plate_format": [384] * N,
        "row": range(N),
        "column": range(N),
        "seed": np.arange(N, dtype=np.uint64) + np.uint64(2**63),
    }
)


@pytest.fixture(scope="module")
def painted(pipeline: CellPaintingPipeline) -> np.ndarray:
    return pipeline.paint(VECTORS, DESIGN)


def test_pictures_are_camera_units(pipeline: CellPaintingPipeline, painted: np.ndarray) -> None:
    assert painted.shape == (N, *pipeline.picture_shape) == (N, 5, 32, 32)
    assert painted.dtype == np.float32
    assert painted.min() >= 0.0
    assert painted.max() <= 1.0
    assert painted.std() > 0.0


@pytest.mark.parametrize("size", [1, 3])
def test_a_picture_does_not_depend_on_its_batch(pipeline: CellPaintingPipeline, painted: np.ndarray, size: int) -> None:
    parts = [pipeline.paint(VECTORS[i : i + size], DESIGN.iloc[i : i + size]) for i in range(0, N, size)]
    assert np.array_equal(np.concatenate(parts), painted)


def test_a_picture_does_not_depend_on_the_order(pipeline: CellPaintingPipeline, painted: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(N)
    assert np.array_equal(pipeline.paint(VECTORS[order], DESIGN.iloc[order]), painted[order])


def test_the_number_of_threads_is_given_back(pipeline: CellPaintingPipeline) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    pipeline.paint(VECTORS[:1], DESIGN[:1], steps=1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_seed_compound_and_context_each_change_the_picture(pipeline: CellPaintingPipeline, painted: np.ndarray) -> None:
    first, design = VECTORS[:1], DESIGN[:1]
    for vectors, rows in (
        (first, design.assign(seed=np.uint64(5))),
        (first + 1, design),
        (first, design.assign(row=9)),
        (first, design.assign(source="S2", batch="S2B1")),
    ):
        assert not np.array_equal(pipeline.paint(vectors, rows)[0], painted[0])


def test_unconditional_pictures_ignore_compound_and_well(pipeline: CellPaintingPipeline) -> None:
    free = pipeline.paint(VECTORS[:2], DESIGN.iloc[[0, 0]].assign(row=[0, 9]), unconditional=True)
    assert np.array_equal(free[0], free[1])


def test_guidance_moves_away_from_unconditional(pipeline: CellPaintingPipeline, painted: np.ndarray) -> None:
    free = pipeline.paint(VECTORS[:4], DESIGN[:4], unconditional=True)
    np.testing.assert_allclose(pipeline.paint(VECTORS[:4], DESIGN[:4], guidance=0.0), free, atol=1e-5)
    assert not np.allclose(pipeline.paint(VECTORS[:4], DESIGN[:4], guidance=3.0), painted[:4], atol=1e-5)


def test_progress_counts_pictures(pipeline: CellPaintingPipeline) -> None:
    told: list[int] = []
    pipeline.paint(VECTORS, DESIGN, steps=1, progress=told.append)
    assert told == [4, 7]


def test_the_folder_comes_back_the_same(folder: Path, painted: np.ndarray, tmp_path: Path) -> None:
    loaded = CellPaintingPipeline.from_pretrained(folder)
    assert loaded.settings == PipelineSettings(micro_batch=4, threads=1, steps=3)
    assert loaded.channels == ChannelGroups()
    assert all(p.dtype == torch.float32 for p in loaded.unet.parameters())
    loaded.save_pretrained(tmp_path / "copy")
    assert np.array_equal(CellPaintingPipeline.from_pretrained(tmp_path / "copy").paint(VECTORS, DESIGN), painted)
    assert model_hash(tmp_path / "copy") == model_hash(folder)
    assert not [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".json", ".safetensors", ".parquet")]
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "CellPaintingPipeline"


def test_large_parts_are_written_in_shards(
    folder: Path, painted: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ldm.pipeline, "SHARD", "40KB")
    CellPaintingPipeline.from_pretrained(folder).save_pretrained(tmp_path)
    shards = list((tmp_path / "unet").glob("*.safetensors"))
    assert len(shards) > 2
    assert np.array_equal(CellPaintingPipeline.from_pretrained(tmp_path).paint(VECTORS, DESIGN), painted)


@pytest.mark.parametrize(
    "part", ["unet/config.json", "intensity.json", "condition/diffusion_pytorch_model.safetensors"]
)
def test_the_hash_knows_each_part(tmp_path: Path, part: str) -> None:
    build().save_pretrained(tmp_path)
    before = model_hash(tmp_path)
    raw = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert model_hash(tmp_path) != before


WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


def truncate(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])


def flip(folder: Path) -> None:
    raw = bytearray((folder / WEIGHTS).read_bytes())
    raw[-1000] ^= 4
    (folder / WEIGHTS).write_bytes(raw)


def pickle_beside(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / "unet" / "diffusion_pytorch_model.bin")


def pickle_instead(folder: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder / WEIGHTS)


def other_shape(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    config["block_out_channels"] = [16, 64]
    path.write_text(json.dumps(config))
    settings = json.loads((folder / "dopaint.json").read_text())
    del settings["files"]["unet/config.json"]
    (folder / "dopaint.json").write_text(json.dumps(settings))


def remove(folder: Path) -> None:
    (folder / "intensity.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"unet/diffusion_pytorch_model\.safetensors is not a whole safetensors file"),
        (flip, r"unet/diffusion_pytorch_model\.safetensors is not what was written"),
        (pickle_beside, r"unet/diffusion_pytorch_model\.bin is not safetensors and is never opened"),
        (pickle_instead, r"unet/diffusion_pytorch_model\.safetensors is not a whole safetensors file"),
        (other_shape, r"unet cannot be loaded"),
        (remove, r"lacks intensity\.json"),
    ],
)
def test_damage_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    build().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ModelFolderError, match=message):
        CellPaintingPipeline.from_pretrained(tmp_path)


def test_a_missing_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="does not exist; give the folder of a trained model"):
        CellPaintingPipeline.from_pretrained(tmp_path / "no")


def test_unknown_contexts_samplers_and_steps_are_refused(pipeline: CellPaintingPipeline) -> None:
    with pytest.raises(UnknownContext, match="expected one of S1B1, S2B1"):
        pipeline.paint(VECTORS[:1], DESIGN[:1].assign(batch="S9B9"))
    with pytest.raises(ScheduleError, match="sampler: got 'euler'"):
        pipeline.paint(VECTORS[:1], DESIGN[:1], sampler="euler")
    with pytest.raises(ScheduleError, match="number of steps: got 0"):
        pipeline.paint(VECTORS[:1], DESIGN[:1], steps=0)


def test_the_autoencoder_alone_keeps_shape_and_units(pipeline: CellPaintingPipeline, painted: np.ndarray) -> None:
    out = pipeline.compress(painted, DESIGN["source"].tolist())
    assert out.shape == painted.shape
    assert out.min() >= 0.0
    assert out.max() <= 1.0


def test_intensity_scale_goes_both_ways(tmp_path: Path) -> None:
    scale = build().intensity
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 5, 4, 4)).astype(np.float32)
    camera = scale.to_camera(pictures, ["S2", "S1"])
    np.testing.assert_allclose(scale.to_network(camera, ["S2", "S1"]), pictures, atol=1e-5)
    np.testing.assert_allclose(scale.to_camera(-np.ones((1, 5, 1, 1), np.float32), ["S2"])[0, :, 0, 0], scale.low[1])
    scale.save(tmp_path / "intensity.json")
    np.testing.assert_array_equal(IntensityScale.load(tmp_path / "intensity.json").high, scale.high)
    with pytest.raises(IntensityError, match="expected one of S1, S2"):
        scale.to_camera(pictures, ["S3", "S1"])
    with pytest.raises(IntensityError, match="high above low"):
        IntensityScale(("S1",), ("DNA",), np.ones((1, 1)), np.ones((1, 1)))
