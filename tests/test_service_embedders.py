"""Painted screens, targets, the leaderboard and the brightfield steps on tiny worlds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from causal.phenotype import DMSO
from profiling.embedders.cells import CropConfig
from profiling.embedders.data import load_pictures
from profiling.embedders.methods.distillation import DinoConfig
from profiling.embedders.networks.build import NetworkConfig
from profiling.embedders.train import EmbedderConfig, Recipe, TrainingConfig, run
from profiling.profiles import Profiles
from service import representations
from service.brightfield_evaluation import BrightfieldConfig, by_count, evaluate, nuclei, write
from service.cli import app
from service.cli_embedders import pairs
from service.embedder_screen import ScreenConfig, compounds_of, design, paint
from service.embedder_targets import camera, write_targets
from service.errors import InvalidRequest
from service.library import world
from service.measure import Options
from service.representation_scores import MECHANISM, REPLICATES, UNSEEN, ScoreConfig, gain, prepared, scores

SMALL = ScreenConfig(moas=3, per_moa=2, unseen=1, wells=4, test_wells=6, dial=0.0, control_share=0.4)
TINY = Recipe(
    EmbedderConfig("dino_boc"),
    NetworkConfig(image=32, patch=8, dim=32, depth=1, heads=2),
    CropConfig(most=4),
    DinoConfig(prototypes=16, hidden=16, bottleneck=16, local_crops=1, local_size=16),
    TrainingConfig(batch=4, steps=1),
)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("screen")
    paint(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bright")
    few = {"moas": 2, "per_moa": 1, "unseen": 0, "wells": 6, "doses": (1.0, 10.0), "control_share": 0.85}
    paint(folder, replace(SMALL, kind="brightfield", **few))
    return folder


@pytest.fixture(scope="module")
def trained(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(TINY, load_pictures(screen), tmp_path_factory.mktemp("run"))


def test_a_screen_keeps_batches_and_compounds_apart(screen: Path) -> None:
    rows = pd.read_parquet(screen / "rows.parquet")
    train, test = rows[rows["split"] != "test"], rows[rows["split"] == "test"]
    assert set(train["batch"]) & set(test["batch"]) == set()
    new = set(test["compound"]) - set(train["compound"])
    assert len(new) == 3
    assert set(rows.loc[rows["unseen"], "compound"]) == new
    assert rows.loc[rows["compound"] == DMSO, "moa"].isna().all()
    assert (rows.loc[rows["compound"] == DMSO, "strength"] == 0).all()
    assert len(rows[["compound", "moa"]].drop_duplicates()) == rows["compound"].nunique()
    data = load_pictures(screen)
    assert data.pictures.shape[1:] == (5, 128, 128)
    again = world().paint(rows.iloc[:2])
    np.testing.assert_array_equal(data.pictures[:2], again.astype(np.float16))
    true = pd.read_parquet(screen / "nuclei.parquet")
    assert true["row"].nunique() == len(rows)
    assert true[["y", "x"]].to_numpy().max() < 128
    dna, centres = again[0, 0], true.loc[true["row"] == 0, ["y", "x"]].to_numpy().astype(int)
    assert dna[centres[:, 0], centres[:, 1]].mean() > 2 * np.median(dna)  # nuclei are where the table says


def test_designs_cross_doses_times_and_lines() -> None:
    config = replace(SMALL, doses=(1.0, 10.0), hours=(6.0, 48.0), lines=("U2OS-sim", "A549-sim"))
    rows = design(config, world())
    treated = rows[rows["compound"] != DMSO]
    counts = treated[treated["split"] == "test"].groupby(["compound", "dose", "hours", "cell_line"]).size()
    assert (counts == 6).all()
    assert len(counts) == 9 * 8
    assert rows["seed"].is_unique
    assert len(compounds_of(config)) == 9
    with pytest.raises(InvalidRequest, match="ask for fewer"):
        compounds_of(replace(SMALL, moas=500))
    with pytest.raises(InvalidRequest, match="xray"):
        ScreenConfig(kind="xray")


def test_camera_units_come_back(tmp_path: Path) -> None:
    stored = np.array([[[[-1.0, 1.0], [0.0, 3.0]]]], np.float16)
    np.save(tmp_path / "pictures.npy", stored)
    pd.DataFrame({"compound": ["A"], "batch": ["B"], "plate": ["P"], "split": ["train"], "source": ["S1"]}).to_parquet(
        tmp_path / "rows.parquet"
    )
    said = {"channels": ["DNA"], "sources": {"S1": {"low": [0.1], "high": [0.5]}}}
    (tmp_path / "intensity.json").write_text(json.dumps(said))
    values = camera(tmp_path, load_pictures(tmp_path), np.array([0]))
    np.testing.assert_allclose(values[0, 0], [[0.1, 0.5], [0.3, 0.9]], atol=1e-6)


def test_targets_are_standardised_features(screen: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", np.load(screen / "pictures.npy", mmap_mode="r")[:8, :2, :40, :40])
    pd.read_parquet(screen / "rows.parquet").head(8).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "intensity.json").write_text(json.dumps({"channels": ["DNA", "ER"]}))
    count = write_targets(tmp_path, Options(engine="random_conv", workers=1))
    data = load_pictures(tmp_path)
    assert data.targets.shape == (len(data), count)
    np.testing.assert_allclose(data.targets.mean(axis=0), 0, atol=0.05)  # 0 but for clipping at 10 deviations
    assert float(data.targets.std(axis=0).max()) <= 1.001


def planted(signal: float, seed: int = 0) -> tuple[Profiles, np.ndarray]:
    """Nine compounds of three mechanisms in three batches of two plates; a direction a mechanism, one a compound."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(1).normal(size=(12, 12))
    rows, values = [], []
    for batch in range(3):
        for plate in range(2):
            for c in range(9):
                for w in range(2):
                    rows.append((f"C{c}", f"M{c % 3}", f"B{batch}", f"B{batch}P{plate}", f"w{c}{w}", c > 5, float(c)))
                    values.append(signal * (directions[c % 3] + 0.5 * directions[3 + c]) + rng.normal(size=12))
            for w in range(12):
                rows.append((DMSO, None, f"B{batch}", f"B{batch}P{plate}", f"d{w}", False, 0.0))
                values.append(rng.normal(size=12))
    names = ["compound", "moa", "batch", "plate", "well", "unseen", "strength"]
    meta = pd.DataFrame(rows, columns=[f"Metadata_{n}" for n in names])
    return Profiles(meta, np.array(values), tuple(f"f{i}" for i in range(12))), (
        meta["Metadata_compound"] == DMSO
    ).to_numpy()


def test_scores_see_a_planted_signal_and_nothing_in_noise() -> None:
    config = ScoreConfig(permutations=19, draws=50)
    strong, controls = planted(3.0)
    made, refused = scores("strong", *prepared(strong, DMSO), config)
    table = pd.DataFrame(made).set_index("metric")
    assert not refused
    for metric in (REPLICATES, MECHANISM, UNSEEN, "interpolated MAP", "recall@1"):
        assert table.loc[metric, "value"] > table.loc[metric, "chance"] + 0.3, metric
    assert table.loc[REPLICATES, "p"] == pytest.approx(0.05)
    assert table.loc["active by mAP-ES", "value"] == 1.0
    assert table.loc["linear probe, other compounds", "value"] > 0.6
    noise, _ = planted(0.0, seed=4)
    none = pd.DataFrame(scores("noise", *prepared(noise, DMSO), config)[0]).set_index("metric")
    assert none.loc[REPLICATES, "value"] < none.loc[REPLICATES, "chance"] + 0.15
    assert none.loc["activity, not significant as 0", "value"] < 0.3
    more = pd.DataFrame(gain("strong", (strong, controls), (noise, controls), np.random.default_rng(0)))
    assert (more["low"] > 0).all()


def test_the_board_measures_twins_subsets_and_adaptations(screen: Path, trained: Path, tmp_path: Path) -> None:
    config = representations.BoardConfig(
        engines=(),
        weights={"dino": trained},
        trex=("dino",),
        rows=40,
        fit_rows=20,
        subsets=1,
        scoring=ScoreConfig(permutations=3, draws=5),
    )
    page = representations.run(screen, tmp_path, config)
    assert page.is_file()
    table = pd.read_csv(tmp_path / "representations_scores.csv")
    methods = set(table["method"])
    assert {
        "dino",
        "dino untrained",
        "TRex (moa) on dino",
        "TRex (compound) on dino",
    } <= methods
    assert any(m.startswith("dino on DNA+") for m in methods)
    assert "dino minus dino untrained" in methods
    assert "TRex (moa) on dino minus dino" in methods
    said = json.loads((tmp_path / "real.json").read_text())["studies"]["representations"]
    cost = {row["method"]: row for row in said["tables"]["Cost"]}
    assert cost["dino"]["parameters"] == cost["dino untrained"]["parameters"] > 0
    assert cost["dino"]["seconds a picture"] > 0
    twin = representations.untrained_twin(trained, tmp_path / "a")
    other = representations.untrained_twin(trained, tmp_path / "b")
    assert (twin / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()
    assert (twin / "weights.safetensors").read_bytes() != (trained / "weights.safetensors").read_bytes()
    with pytest.raises(InvalidRequest, match="no row"):
        representations.chosen(screen, "nowhere", 0)
    with pytest.raises(InvalidRequest, match="no measuring engine"):
        representations.entries(screen, tmp_path, replace(config, weights={}, trex=("dino",), rows=4))


def test_the_brightfield_steps(bright: Path, tmp_path: Path) -> None:
    recipe = replace(
        TINY,
        embedder=EmbedderConfig("brightfield_dino", "any", "mean"),
        crops=CropConfig(source="tiles", nuclei="z1", scales=(64,), read=64),
        objective=replace(TINY.objective, planes="any", cross_batch=True, barlow=1.0),
    )
    folder = run(recipe, load_pictures(bright), tmp_path / "run")
    config = BrightfieldConfig(normalisation="MAD", draws=20, pseudo=2, nuclei=2)
    found = evaluate(bright, Options(engine="brightfield_dino", weights=folder, workers=1), config)
    assert set(found.activity["dose"]) == {1.0, 10.0}
    assert found.beyond.groupby(["dose", "hours"])["share"].sum().to_numpy() == pytest.approx(1.0)
    assert 0.0 <= found.nuclei["f1"] <= 1.0
    assert set(write(found, tmp_path / "out")) == {"active", "mechanisms", "nuclei"}
    mca = replace(TINY, network=replace(TINY.network, kind="mca"))  # type: ignore[type-var]
    other = run(replace(mca, crops=recipe.crops), load_pictures(bright), tmp_path / "mca")
    with pytest.raises(InvalidRequest, match="no bag of channels"):
        nuclei(bright, other, config)
    with pytest.raises(InvalidRequest, match="normalisation"):
        BrightfieldConfig(normalisation="none")


def test_counts_are_judged_by_the_dmso_of_their_plate_and_time() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"compound": [DMSO] * 20 + ["toxic"] * 10 + ["inert"] * 10, "plate": (["P1", "P2"] * 20)})
    rows = rows.assign(hours=24.0, dose=10.0)
    level = np.where(rows["plate"] == "P1", 50.0, 20.0)  # plates differ more than compounds do
    count = level + rng.normal(0, 1, 40) - 10.0 * (rows["compound"] == "toxic").to_numpy()
    table = by_count(rows, count, BrightfieldConfig()).set_index("treatment")
    assert bool(table.loc["toxic", "active"])
    assert not bool(table.loc["inert", "active"])


def test_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    for name in ("screen", "targets", "adapt", "import", "curate"):
        assert runner.invoke(app, ["embedders", name, "--help"]).exit_code == 0
    for name in ("representations", "brightfield"):
        assert runner.invoke(app, ["benchmark", name, "--help"]).exit_code == 0
    assert pairs(["a=b/c", "d=e=f"], "weights") == {"a": Path("b/c"), "d": Path("e=f")}
    with pytest.raises(InvalidRequest, match="NAME=PATH"):
        pairs(["nothing"], "weights")
    refused = runner.invoke(
        app, ["profile", str(tmp_path), "--engine", "dino_boc", "--out", str(tmp_path / "o.parquet")]
    )
    assert refused.exit_code == 2
