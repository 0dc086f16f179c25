"""`dopaint molecules`: one row in, one row out, the same bytes on one core and on two, the model's domain beside."""

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from chem.domain import DomainModel
from chem.encode_morgan import MorganEncoder
from chem.molecule import standardise
from service.cli import app
from service.domain import Territory, check_encoder, learn, name_encoder
from service.errors import InvalidRequest, MissingModel
from service.library import library
from service.molecules import COLUMNS, DOMAIN_COLUMNS, convert

ENTRIES = ["CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "", "nonsense", "C1CCCCC1", "CCO |r|", "[Na+].[Cl-]", '"', "C" * 5000]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv.gz"
    with gzip.open(path, "wt", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["name", "smiles"])
        writer.writerows([f"n{i}", text] for i, text in enumerate(ENTRIES))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights, trained on the seen drugs, conditioned on the Morgan sketch."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    encoder = MorganEncoder(32)
    encoder.save(folder / "encoder")
    known = library().query("kind == 'drug' and split == 'seen'")
    known[["compound"]].to_parquet(folder / "training_compounds.parquet")
    for name in ("model_index.json", "contexts.parquet"):
        (folder / name).write_text("{}")
    (folder / "dopaint.json").write_text(json.dumps({"encoder": encoder.hash}))
    return folder


def test_one_row_in_one_row_out(table: Path, tmp_path: Path) -> None:
    summary = convert(table, tmp_path / "out.csv", workers=1).document()
    rows = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert tuple(rows.columns) == COLUMNS
    assert rows["row"].tolist() == list(range(1, len(ENTRIES) + 1))
    assert rows["name"].tolist() == [f"n{i}" for i in range(len(ENTRIES))]
    assert rows["reason"].tolist() == ["", "empty", "unparsable", "", "", "not_organic", "unparsable", "too_long"]
    assert rows["smiles"].tolist() == ["CC(=O)Oc1ccccc1C(=O)O", "", "", "C1CCCCC1", "CCO", "", "", ""]
    assert rows["inchikey"][3] == standardise("C1CCCCC1").inchikey
    assert rows["changes"][0] == "salt or solvent removed: [Na+]; charges neutralised"
    assert rows["position"].tolist() == ["", "", "5", "", "", "", "1", "2001"]
    assert (summary["rows"], summary["molecules"]) == (8, 3)
    assert summary["refused"] == {"unparsable": 2, "empty": 1, "not_organic": 1, "too_long": 1}
    assert not list(tmp_path.glob("*.part"))


def test_the_same_bytes_on_one_core_and_on_two(table: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        convert(table, tmp_path / f"{workers}.csv.gz", workers=workers)
    assert (tmp_path / "1.csv.gz").read_bytes() == (tmp_path / "2.csv.gz").read_bytes()
    assert len(pd.read_csv(tmp_path / "1.csv.gz")) == 8


def test_the_command_and_its_refusals(table: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    out, counts = tmp_path / "out.csv", tmp_path / "deep" / "counts.json"
    done = runner.invoke(app, ["molecules", str(table), "--out", str(out), "--workers", "1", "--summary", str(counts)])
    assert done.exit_code == 0, done.stderr
    assert json.loads(counts.read_text())["rows"] == 8
    (tmp_path / "in.xlsx").write_text("")
    for arguments, words in (
        ([str(tmp_path / "in.xlsx")], "rename it"),
        ([str(tmp_path / "none.csv")], "does not exist"),
        ([str(table), "--column", "colour"], "columns are name, smiles"),
        ([str(table), "--model", "none"], "does not exist"),
    ):
        refused = runner.invoke(app, ["molecules", *arguments, "--out", str(tmp_path / "no.csv"), "--workers", "1"])
        assert refused.exit_code == 2
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "no.csv").exists()


def test_a_learned_domain_stands_beside_each_molecule(model: Path, table: Path, tmp_path: Path) -> None:
    """The error is made of the similarity, so it can be learned; a seen drug is in, cyclohexane is not."""
    drugs = library().query("kind == 'drug'")
    held = drugs[drugs["split"] != "seen"]
    fixed = Territory.read(model, library())
    assert fixed.space is None
    assert fixed.model == DomainModel()
    similar = [fixed.place(standardise(text), lambda _: np.zeros(32), 1).nearest_tanimoto[0] for text in held["smiles"]]
    errors = pd.DataFrame({"inchikey": held["compound"], "error": 1.0 - np.array(similar)})
    errors.to_csv(tmp_path / "errors.csv", index=False)
    found = learn(model, tmp_path / "errors.csv")
    assert found["learned"]
    assert found["weight"] < 1
    assert found["errors"]["in"]["mean"] < found["errors"]["edge"]["mean"] < found["errors"]["out"]["mean"]
    seen = drugs[drugs["split"] == "seen"].iloc[0]
    (tmp_path / "in.smi").write_text(f"{seen['smiles']}\nC1CCCCC1\nnonsense\n")
    summary = convert(tmp_path / "in.smi", tmp_path / "out.csv", model=str(model), workers=1)
    rows = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert tuple(rows.columns) == (*COLUMNS, *DOMAIN_COLUMNS)
    assert rows["domain"].tolist() == ["in", "out", ""]
    assert rows["seen_in_training"].tolist() == ["True", "False", ""]
    assert rows["nearest_inchikey"][0] == seen["compound"]
    assert float(rows["expected_error"][1]) == pytest.approx(found["errors"]["out"]["mean"], abs=1e-4)
    assert 0 <= float(rows["density"][1]) <= 1
    assert summary.document()["domains"] == {"in": 1, "out": 1}


def test_learning_refuses_training_compounds_and_missing_errors(model: Path, tmp_path: Path) -> None:
    seen = library().query("kind == 'drug' and split == 'seen'").head(30)
    pd.DataFrame({"inchikey": seen["compound"], "error": 1.0}).to_csv(tmp_path / "e.csv", index=False)
    with pytest.raises(InvalidRequest, match="30 compounds were trained on"):
        learn(model, tmp_path / "e.csv")
    (tmp_path / "e.csv").write_text("a,b\n")
    with pytest.raises(InvalidRequest, match="expected inchikey and error"):
        learn(model, tmp_path / "e.csv")
    with pytest.raises(InvalidRequest, match="dopaint benchmark unseen"):
        learn(model)


def test_a_model_names_its_encoder_and_refuses_another(model: Path, tmp_path: Path) -> None:
    check_encoder(model, MorganEncoder(32).hash)
    with pytest.raises(MissingModel, match="trained with another encoder"):
        check_encoder(model, MorganEncoder(16).hash)
    (tmp_path / "dopaint.json").write_text('{"steps": 20}')
    name_encoder(tmp_path, "a" * 64)
    name_encoder(tmp_path, "a" * 64)
    assert json.loads((tmp_path / "dopaint.json").read_text()) == {"steps": 20, "encoder": "a" * 64}
    with pytest.raises(MissingModel, match="another encoder"):
        name_encoder(tmp_path, "b" * 64)


def test_the_shipped_model_names_its_encoder(repository: Path) -> None:
    from chem.encoder import folder_hash

    folder = repository / "models" / "simulation-128"
    assert json.loads((folder / "dopaint.json").read_text())["encoder"] == folder_hash(folder / "encoder")
