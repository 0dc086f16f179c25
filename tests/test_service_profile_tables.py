"""The commands for anybody's tables: tables and figures on disk, baselines beside, one line for a refusal."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from profiling.profiles import Profiles
from profiling.protocol import ProtocolConfig
from profiling.subprofile import biosimilarity
from profiling.tables import read_profiles, write_profiles
from service.cli import app
from service.errors import InvalidRequest
from service.profile_tables import config_from, structures

runner = CliRunner()
CLASSES = {"alcohol": "O", "amine": "N", "acid": "C(=O)O"}
QUICK = (
    "--folds", "2", "--permutations", "20", "--resamples", "9", "--min-compounds", "8", "--references", "3",
    "--match", "exact",
)  # fmt: skip


def run(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Eight compounds a class in two batches, DMSO wells, labels with structures: `p.parquet`, `labels.csv.gz`."""
    rng = np.random.default_rng(0)
    rows, values = [], []
    for name, end in CLASSES.items():
        centre = 3.0 * rng.normal(size=30)
        for length in range(1, 9):
            for batch in ("b1", "b2"):
                rows.append((f"K{name}{length}", batch, "trt", float(rng.poisson(50)), "C" * length + end, name))
                values.append(centre + rng.normal(size=30))
    for i in range(12):
        rows.append(("DMSO", f"b{i % 2 + 1}", "negcon", 60.0, "CS(C)=O", None))
        values.append(rng.normal(size=30))
    columns = ["InChIKey", "Batch", "pert_type", "Count_Cells", "smiles", "moa"]
    meta = pd.DataFrame(rows, columns=[f"Metadata_{c}" for c in columns])
    names = tuple(
        f"{c}_{f}_{i}" for c in ("Cells", "Nuclei") for f in ("Texture", "AreaShape", "Intensity") for i in range(5)
    )
    table = Profiles(meta.drop(columns=["Metadata_smiles", "Metadata_moa"]), np.array(values), names)
    write_profiles(table, tmp_path / "all.parquet")
    write_profiles(table.rows((meta["Metadata_pert_type"] == "trt").to_numpy()), tmp_path / "p.parquet")
    labels = meta[["Metadata_InChIKey", "Metadata_smiles", "Metadata_moa"]].drop_duplicates()
    labels.columns = ["InChIKey", "smiles", "moa"]
    labels.to_csv(tmp_path / "labels.csv.gz", index=False)
    return tmp_path


def test_score_writes_tables_and_figures_with_both_baselines(files: Path) -> None:
    out = files / "out"
    profiles, labels = str(files / "p.parquet"), str(files / "labels.csv.gz")
    code, shown, err = run("score", profiles, "--labels", labels, "--smiles", "smiles", *QUICK, "--out", str(out))
    assert code == 0, err
    assert "label with 8 compounds" in shown
    summary = pd.read_csv(out / "summary.csv").set_index(["method", "subset", "metric"])
    assert summary.loc[("profiles", "all", "map_per_label"), "value"] == 1.0
    assert summary.loc[("structure", "all", "map_per_label"), "value"] > 0.8
    assert summary.loc[("cell count", "all", "map_per_label"), "value"] < 0.8
    assert {f.name for f in out.glob("*.png")} == {"scores.png", "subprofiles.png", "overlap.png", "confusion.png"}
    confusion = pd.read_csv(out / "confusion.csv", index_col="true")
    np.testing.assert_array_equal(confusion.to_numpy(), 10 * np.eye(3, 4))  # five queries a label, two folds
    np.testing.assert_allclose(pd.read_csv(out / "labels.csv")["ap_p"], 1 / 21)
    assert json.loads((out / "request.json").read_text())["protocol"]["references"] == 3
    code, _, err = run("score", profiles, "--labels", labels, *QUICK, "--label", "target", "--out", str(out))
    assert code == 2
    assert err.count("\n") == 1
    assert "target" in err


def test_training_splits_seen_from_unseen(files: Path) -> None:
    keys = [f"K{name}{i}" for name in CLASSES for i in range(1, 5)]
    pd.DataFrame({"InChIKey": keys, "Batch": "b1"}).to_csv(files / "training.csv", index=False)
    arguments = ("--labels", str(files / "labels.csv.gz"), "--training", str(files / "training.csv"), *QUICK)
    code, _, err = run("score", str(files / "p.parquet"), *arguments, "--out", str(files / "out"))
    assert code == 0, err
    held = pd.read_csv(files / "out" / "held_out.csv")
    assert held["rows"].tolist() == [48, 24, 24, 12]
    assert set(pd.read_csv(files / "out" / "metrics.csv")["subset"]) == {"all", "Seen=True", "Seen=False"}
    assert len(pd.read_csv(files / "out" / "removed.csv")) == 12


def test_compare_gives_the_paper_table_and_a_figure(files: Path) -> None:
    table = read_profiles(files / "p.parquet")
    noise = table.with_values(table.values + 6.0 * np.random.default_rng(1).normal(size=table.values.shape))
    write_profiles(noise, files / "noise.parquet")
    labels = str(files / "labels.csv.gz")
    for name in ("p", "noise"):
        arguments = ("score", str(files / f"{name}.parquet"), "--labels", labels, *QUICK, "--out", str(files / name))
        assert run(*arguments)[0] == 0
    code, shown, err = run("compare", f"real={files / 'p'}", str(files / "noise"), "--out", str(files / "both"))
    assert code == 0, err
    assert "p-adjusted" in shown
    tukey = pd.read_csv(files / "both" / "tukey.csv")
    assert tukey[["Group 1", "Group 2"]].to_numpy().tolist() == [["noise", "real"]]
    assert (files / "both" / "scores.png").stat().st_size > 10_000
    assert pd.read_csv(files / "both" / "pairs.csv")["p_mixed"].notna().all()
    code, _, err = run("compare", str(files / "p"), str(files / "nothing"), "--out", str(files / "both"))
    assert (code, err.count("\n")) == (2, 1)


def test_subprofiles_then_biosimilarity(files: Path) -> None:
    labels, folder = str(files / "labels.csv.gz"), files / "sub"
    profiles = str(files / "p.parquet")
    arguments = ("--labels", labels, "--match", "exact", "--permutations", "30", "--references", "5")
    code, _, err = run("subprofiles", profiles, *arguments, "--out", str(folder))
    assert code == 0, err
    summary = pd.read_csv(folder / "summary.csv")
    assert (summary["n_references"] == 8).all()
    assert (summary["n_features"] > summary["n_features_permuted"]).all()
    assert (folder / "overlap.png").is_file()
    assert len(pd.read_csv(folder / "overlap.csv")) == 3
    code, shown, err = run("biosimilarity", profiles, "--subprofiles", str(folder), "--out", str(files / "b.tsv.gz"))
    assert code == 0, err
    assert "48 profiles x 3 labels" in shown
    made = pd.read_csv(files / "b.tsv.gz", sep="\t")
    from profiling.library import read_folder

    want = biosimilarity(read_profiles(files / "p.parquet").values, read_folder(folder))
    np.testing.assert_allclose(made[["acid", "alcohol", "amine"]].to_numpy(), want, atol=1e-12)
    code, _, err = run("biosimilarity", profiles, "--subprofiles", str(files), "--out", str(files / "b.csv"))
    assert (code, err.count("\n")) == (2, 1)


def test_normalise_runs_a_toml_and_counts(files: Path) -> None:
    steps = files / "steps.toml"
    steps.write_text(
        '[[step]]\nname = "exclude"\nrelative_count = 0.7\n[[step]]\nname = "mad_robustise"\nby = ["Batch"]\n'
        '[[step]]\nname = "aggregate"\nby = ["InChIKey", "pert_type"]\n'
    )
    out = files / "made.h5ad"
    arguments = ("normalise", str(files / "all.parquet"), "--steps", str(steps), "--out", str(out))
    code, shown, err = run(*arguments, "--control", "pert_type=negcon")
    assert code == 0, err
    assert "mad_ro" in shown  # a narrow terminal cuts the word
    made = read_profiles(out)
    log = pd.read_csv(files / "made.log.csv")
    gone = pd.read_csv(files / "made.excluded.csv")
    assert len(gone) == 60 - log["rows"].tolist()[0] > 0
    assert set(gone["Metadata_Excluded_By"]) == {"low relative count"}
    assert made.meta["Metadata_Rows_In"].sum() == log["rows"].tolist()[0]
    dmso = made.values[(made.meta["Metadata_InChIKey"] == "DMSO").to_numpy()][0]
    assert np.abs(dmso).max() < 1.5  # twelve wells around 0, in units of their own spread
    code, _, err = run(*arguments, "--control", "pert_type=other")
    assert (code, err.count("\n")) == (2, 1)
    assert run(*arguments, "--control", "negcon")[0] == 2


def test_structures_come_from_either_table(files: Path) -> None:
    config = config_from({"match": "exact", "folds": None}, None)
    assert config == ProtocolConfig(match="exact")
    table, labels = read_profiles(files / "p.parquet"), pd.read_csv(files / "labels.csv.gz")
    found = structures(table, labels, "smiles", config)
    assert found["Kacid1"] == "CC(=O)O"
    moved = Profiles(table.meta.assign(Metadata_smiles="C"), table.values, table.names)
    assert set(structures(moved, labels.drop(columns="smiles"), "smiles", config).values()) == {"C"}
    with pytest.raises(InvalidRequest, match="neither"):
        structures(table, labels, "structure", config)
