"""Real pictures: made ones in the layout of the development data, imported, trained on for a few steps, measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

import chem.encoder
from ldm.data import load_data, philox
from ldm.heldout import VARIANTS, denoising_losses, other_rows
from ldm.intensity import IntensityScale
from ldm.objective import uniform_steps
from ldm.pipeline import CellPaintingPipeline
from ldm.schedule import add_noise, velocity
from ldm.unet import predict
from service.bbbc021 import ABOUT, CHANNELS, UNKNOWN, hold_out, support, training_folder
from service.benchmark_pictures import PicturesConfig, agreement, contrasts, loss_table, run
from service.errors import InvalidRequest
from service.rooms import DMSO_INCHIKEY
from service.simulate import encode_compounds
from service.training import train

SMILES = {"aspirin": "CC(=O)Oc1ccccc1C(=O)O", "caffeine": "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "secret": None, "DMSO": None}
AUTOENCODER = """
[autoencoder]
channels = ["DNA", "Tubulin", "Actin"]
widths = [4, 4, 8]
latent_channels = 2
norm_groups = 2
[autoencoder_training]
batch = 4
crop = 16
steps = 2
bfloat16 = false
threads = 1
log_every = 2
scales = 1
"""
DIFFUSION = """
[unet]
latent_size = 16
latent_channels = 2
widths = [8, 16]
head_width = 8
norm_groups = 4
token_width = 8
pooled = 8
[condition]
hidden = 8
fourier = 1
[diffusion_training]
batch = 4
steps = 3
statistics_steps = 2
statistics_batch = 8
warmup_steps = 1
threads = 1
validate_rows = 4
"""


class Counting:
    """An encoder whose vectors are told by hand: length and letters of the SMILES."""

    def encode(self, smiles: list[str]) -> np.ndarray:
        return np.array([[len(s), s.count("C"), 1.0] for s in smiles], np.float32)


@pytest.fixture(scope="module", autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of four compounds in two batches: two wells of three cells each for a compound and batch; and fields."""
    root, rng = tmp_path_factory.mktemp("published"), np.random.default_rng(0)
    rows = [
        {"compound": name, "concentration": 1.0, "moa": "m", "smiles": SMILES[name], "batch": batch, "well": well}
        | {"plate": f"{batch}_1"}
        for name in SMILES
        for batch in ("Week1", "Week2")
        if (name, batch) != ("caffeine", "Week2")
        for well in ("B02", "G11")
        for _ in range(3)
    ]
    folder = root / "bbbc021_single_cells"
    folder.mkdir()
    table = pd.DataFrame(rows)
    table.insert(0, "index", range(len(table)))
    table.sample(frac=1.0, random_state=0).to_csv(folder / "cells.csv", index=False)  # the order of rows means nothing
    stack = rng.integers(100, 20000, (len(table), 3, 68, 68)).astype(np.uint16)
    tifffile.imwrite(folder / "cells.tif", stack, compression="zlib", predictor=True, photometric="minisblack")
    folder = root / "bbbc021_fields"
    (folder / "images").mkdir(parents=True)
    fields = table[table["compound"] != "DMSO"].drop_duplicates(["compound", "batch", "well"]).reset_index(drop=True)
    fields = fields.assign(file=[f"f{i}.png" for i in range(len(fields))])
    for i, name in enumerate(fields["file"]):
        picture = np.zeros((256, 256, 3), np.uint8)
        picture[:128, 128:] = [10 + i, 50, 200]  # red is actin, green tubulin, blue DNA
        Image.fromarray(picture).save(folder / "images" / name)
    fields.drop(columns="index").to_csv(folder / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def cells(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cells")
    training_folder(published, out, "cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chem.encoder, "load_encoder", lambda _: Counting())
        encode_compounds(out, Path("any"))
    return out


@pytest.fixture(scope="module")
def model(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    for name, text in (("a.toml", AUTOENCODER), ("d.toml", DIFFUSION)):
        (out / name).write_text(text)
        trained = train(out / name, cells, out)
    return trained


def test_cells_keep_their_middle_their_labels_and_their_counts(published: Path, cells: Path) -> None:
    data = load_data(cells)
    stack = tifffile.imread(published / "bbbc021_single_cells" / "cells.tif")
    scale = IntensityScale.load(cells / "intensity.json")
    back = scale.to_camera(data.read(np.arange(4)), ["BBBC021"] * 4)
    inside = (back > scale.low[0][:, None, None]) & (back < scale.high[0][:, None, None])
    # half precision on [-1, 1]: 11 bits, of a range of a third of the counts
    assert np.abs(back - stack[:4, :, 2:66, 2:66] / 65535.0)[inside].max() < 2e-4
    control = (data.rows["compound"] == DMSO_INCHIKEY).to_numpy() & (data.rows["split"] == "train").to_numpy()
    raw = stack[control][:, :, 2:66, 2:66].transpose(1, 0, 2, 3).reshape(3, -1) / 65535.0
    assert np.allclose(scale.high[0], np.percentile(raw, 99.9, axis=1), atol=2e-6)
    assert tuple(json.loads((cells / "intensity.json").read_text())["channels"]) == CHANNELS
    assert data.rows["name"].tolist() == [n for n in SMILES for _ in range(6 if n == "caffeine" else 12)]


def test_compounds_without_structure_share_one_named_token(cells: Path) -> None:
    rows, table = load_data(cells).rows, pd.read_parquet(cells / "compounds.parquet")
    assert set(rows.loc[rows["name"] == "secret", "compound"]) == {UNKNOWN}
    assert rows.loc[rows["name"] == "aspirin", "compound"].iloc[0] == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    vectors = np.load(cells / "compounds.npy")
    unknown = (table["compound"] == UNKNOWN).to_numpy()
    assert unknown.sum() == 1
    assert np.allclose(vectors[unknown][0], vectors[~unknown].mean(0))


def test_held_out_rows_are_whole_wells_of_every_pair(cells: Path) -> None:
    rows = load_data(cells).rows
    wells = rows.groupby(["name", "batch", "plate", "row", "column"])["split"].nunique()
    assert (wells == 1).all()
    of_pairs = rows.groupby(["name", "batch", "split"]).size()
    assert len(of_pairs) == 2 * 7
    assert (of_pairs == 3).all()
    assert rows[["row", "column"]].drop_duplicates().to_numpy().tolist() == [[2, 2], [12, 20]]  # B02 and G11, doubled
    lonely = pd.DataFrame({"name": ["a"] * 4, "batch": "b", "plate": "p", "well": ["B02"] * 4})
    assert set(hold_out(lonely, 0.5, 1)) == {"train"}
    many = pd.DataFrame({"name": "a", "batch": "b", "plate": "p", "well": [f"B{i:02d}" for i in range(1, 11)]})
    assert (hold_out(many, 0.3, 1) == "val").sum() == 3
    assert (hold_out(many, 0.99, 1) == "val").sum() == 9
    assert not np.array_equal(hold_out(many, 0.3, 1), hold_out(many, 0.3, 2))


def test_support_counts_batches_with_controls(cells: Path) -> None:
    table = support(load_data(cells).rows).set_index("name")
    assert table["train_pairs"].to_dict() == {"aspirin": 2, "caffeine": 1, "secret": 2}
    assert (table["val_wells"] == table["val_batches"]).all()
    rows = pd.DataFrame(
        {"name": ["a", "b", "c"], "compound": ["A", "B", "C"], "batch": ["1", "1", "2"], "plate": "p", "well": "B02"}
    ).assign(split="train")
    without = support(rows).set_index("name")["train_pairs"]  # no DMSO: any other compound of the batch
    assert without.to_dict() == {"a": 1, "b": 1, "c": 0}


def test_fields_become_tiles_with_channels_in_order(published: Path, tmp_path: Path) -> None:
    report = training_folder(published, tmp_path, "fields")
    assert report["scaled by"] == "all compounds: there is no DMSO"
    data, scale = load_data(tmp_path), IntensityScale.load(tmp_path / "intensity.json")
    assert data.pictures.shape[1:] == (3, 128, 128)
    second = np.flatnonzero(data.rows["tile"] == 1)
    assert len(second) * 4 == len(data.rows)
    camera = scale.to_camera(data.read(second[:2]), ["BBBC021"] * 2)
    assert np.allclose(camera[0], np.array([200, 50, 10])[:, None, None] / 255.0, atol=2e-3)
    empty = scale.to_camera(data.read(np.flatnonzero(data.rows["tile"] == 0)[:1]), ["BBBC021"])
    assert np.allclose(empty, 0.0, atol=2e-3)


def test_what_is_missing_is_said(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cells\.csv does not exist"):
        training_folder(tmp_path, tmp_path / "out")
    with pytest.raises(InvalidRequest, match="expected one of cells, fields"):
        training_folder(published, tmp_path / "out", "wells")
    with pytest.raises(InvalidRequest, match="share: got 1"):
        training_folder(published, tmp_path / "out", share=1.0)


def test_a_model_of_real_pictures_says_so(model: Path) -> None:
    settings = CellPaintingPipeline.from_pretrained(model).settings
    assert (settings.evidence, settings.conditions) == (ABOUT["evidence"], ABOUT["conditions"])


def test_losses_are_those_of_a_plain_loop(cells: Path, model: Path) -> None:
    pipeline = CellPaintingPipeline.from_pretrained(model)
    pipeline.settings = replace(pipeline.settings, threads=1)
    index, losses = denoising_losses(pipeline, cells, repeats=1, seed=3, batch=5)
    data = load_data(cells)
    assert set(data.rows["split"].iloc[index]) == {"val"}
    rng = philox(3, 1, 5)
    with torch.no_grad():
        x0 = pipeline.autoencoder.encode(torch.from_numpy(data.read(index)))
        noise = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32))
        t = torch.from_numpy(uniform_steps(len(index), 1000, rng))
        table, vectors = pd.read_parquet(cells / "compounds.parquet"), np.load(cells / "compounds.npy")
        place = pd.Index(table["compound"]).get_indexer(pd.Index(data.rows["compound"].iloc[index]))
        given = pipeline.condition.conditions(vectors[place], data.rows.iloc[index].reset_index(drop=True))
        for i in (0, 7):
            one = torch.tensor([i])
            guess = predict(
                pipeline.unet,
                add_noise(x0, noise, t, pipeline.schedule)[one],
                t[one],
                *pipeline.condition(given.rows(one)),
            )
            wanted = float((guess - velocity(x0, noise, t, pipeline.schedule)[one]).pow(2).mean())
            assert losses["conditional"][i] == pytest.approx(wanted, rel=1e-4)
    assert set(losses) == set(VARIANTS)


def test_shuffled_rows_have_another_label() -> None:
    labels = np.array(["a"] * 10 + ["b"] * 5 + ["c"] * 5)
    other = other_rows(labels, np.random.default_rng(0))
    assert sorted(other) == list(range(20))
    assert (labels[other] != labels).all()


def test_contrasts_by_hand() -> None:
    rows = pd.DataFrame(
        {
            "name": ["a", "a", "DMSO", "DMSO", "a", "a", "a", "a", "DMSO", "DMSO", "b", "b", "x", "x"],
            "batch": ["1"] * 4 + ["2"] * 6 + ["3"] * 4,
        }
    )
    rows["compound"] = rows["name"].replace({"DMSO": DMSO_INCHIKEY, "x": UNKNOWN})
    values = np.array([3.0, 5, 1, 1, 10, 10, 10, 12, 2, 4, 7, 7, 9, 9])[:, None]
    found = contrasts(values, rows, 2)
    assert set(found) == {"a"}  # b has no control in its batch, x no structure
    assert found["a"][0] == pytest.approx((2 * 3.0 + 4 * 7.5) / 6)
    assert contrasts(values, rows, 3) == {}
    plain = rows[rows["name"].isin(["b", "x"])].assign(compound="K")
    assert contrasts(values[plain.index], plain.reset_index(drop=True), 2)["b"][0] == pytest.approx(-2.0)


def test_agreement_knows_its_own_compounds() -> None:
    rng = np.random.default_rng(0)
    real = {f"K{i}": rng.standard_normal(30) for i in range(12)}
    near = {name: effect + 0.5 * rng.standard_normal(30) for name, effect in real.items()}
    dealt = dict(zip(real, [near[f"K{(i + 1) % 12}"] for i in range(12)], strict=True))
    good, bad = (agreement(real, one, np.random.default_rng(1), 300) for one in (near, dealt))
    assert good["median"] > 0.75
    assert good["p"] < 0.01
    assert good["low"] < good["median"] < good["high"]
    assert abs(bad["median"]) < 0.3
    assert bad["p"] > 0.05
    assert agreement(real, dict.fromkeys(real, np.zeros(30)), rng, 10)["median"] is None
    assert agreement(real, {}, rng, 10)["compounds"] == 0


def test_losses_are_compared_by_well() -> None:
    losses = {name: np.ones(6) for name in VARIANTS} | {"unconditional": np.array([1.5, 1.5, 1.1, 1.1, 1.3, 1.3])}
    table = loss_table(losses, np.array(list("aabbcc")), np.random.default_rng(0), 500)
    assert table["conditional"]["worse_than_conditional"] == 0.0
    assert table["unconditional"]["worse_than_conditional"] == pytest.approx(0.3)
    assert 0.1 <= table["unconditional"]["low"] < 0.3 < table["unconditional"]["high"] <= 0.5


def test_a_report_of_real_pictures(cells: Path, model: Path, tmp_path: Path) -> None:
    config = PicturesConfig(repeats=1, draws=1, least=2, grid=3, steps=2, threads=1, resamples=50)
    found = run(model, cells, tmp_path, config)
    assert found == json.loads((tmp_path / "real_pictures.json").read_text())
    assert found["evidence"] == "real"
    assert found["held_out"] == {"pictures": 21, "wells": 4, "names": 4}
    assert found["support"]["pairs of each name"] == {"aspirin": 2, "caffeine": 1}
    effects = found["effects"]["against real held-out wells"]
    assert set(effects) == {"generated", "shuffled compounds", "unconditional", "real training wells"}
    assert effects["generated"]["compounds"] == 2
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(tmp_path / "support.csv")["name"].tolist() == ["aspirin", "caffeine", "secret"]


def test_the_published_cells(real_data: Path, tmp_path: Path) -> None:
    report = training_folder(real_data, tmp_path, "cells")
    assert report["names"] == 34
    assert report["batches"] == 10
    assert sum(report["pictures"].values()) == 1701
    assert set(report["unknown"]) == {"AZ-A", "AZ-C", "AZ-J", "AZ-U", "cisplatin"}
    assert report["names supported in none"] == 0
