"""The command's doors: exit codes, one line for a refusal, the same bytes twice, a demo that ends by itself."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import service.demo
import service.engine
import service.serve
from service.cli import app
from service.fake import FakeRoom

runner = CliRunner()
ROOM = FakeRoom()
KNOWN = "CCCCO"


@pytest.fixture(autouse=True)
def fake_room(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (service.engine, service.serve):
        monkeypatch.setattr(module, "load_room", lambda *_, **__: ROOM)


def predict(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, ["predict", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_predict_writes_folders_and_shows_a_table(tmp_path: Path) -> None:
    code, out, err = predict(KNOWN, "--draws", "3", "--seed", "1", "--out", str(tmp_path))
    assert code == 0, err
    assert "alpha" in out
    assert "simulation" in out
    assert "draws only, not model error" in " ".join(out.split())
    assert (tmp_path / "request.json").is_file()
    assert len(list(tmp_path.glob("*/predictions.json"))) == 1


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    def digests(name: str, *smiles: str) -> dict[str, str]:
        assert predict(*smiles, "--draws", "2", "--out", str(tmp_path / name))[0] == 0
        folder = tmp_path / name / "LRHPLDYGYMQRHN-UHFFFAOYSA-N"
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*.*")
        }

    first = digests("a", KNOWN)
    assert len(first) > 6
    assert first == digests("b", KNOWN) == digests("c", "CCN", "CCO", KNOWN)


@pytest.mark.parametrize("smiles", ["not-a-smiles", "", "C" * 2001, "[Na+].[Cl-]", "CS(C)=O"])
def test_a_bad_smiles_exits_2_with_one_line(smiles: str, tmp_path: Path) -> None:
    code, out, err = predict(smiles, "--out", str(tmp_path / "out"))
    assert code == 2
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("dopaint: SMILES 1 (")
    assert not (tmp_path / "out").exists()


def test_a_bad_smiles_among_good_ones_spoils_nothing_and_exits_2(tmp_path: Path) -> None:
    code, _, err = predict(KNOWN, "not-a-smiles", "--draws", "2", "--out", str(tmp_path))
    assert code == 2
    assert re.match(r"dopaint: SMILES 2 \('not-a-smiles'\) unparsable, character 3: ", err.strip().splitlines()[-1])
    assert len(list(tmp_path.glob("*/predictions.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--draws", "0"), "draws is 0: expected 1 to 1000"), (("--draws", "1001"), "draws is 1001")],
)
def test_a_bound_that_is_passed_exits_2_with_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    code, _, err = predict(KNOWN, *arguments, "--out", str(tmp_path))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert words in err


def test_a_missing_model_exits_2_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for model in ("nobody", str(tmp_path)):
        code, _, err = predict(KNOWN, "--model", model, "--out", str(tmp_path / "out"))
        assert code == 2
        assert len(err.strip().splitlines()) == 1
        assert err.startswith("dopaint: model ")
    result = runner.invoke(app, ["serve", "--model", "nobody", "--port", "0", "--data", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert result.stderr.startswith("dopaint: model 'nobody' does not exist")
    code, _, err = predict(KNOWN, "--engine", "nobody", "--out", str(tmp_path / "out"))
    assert code == 2
    assert "engine 'nobody' does not exist" in err


def test_outside_the_library_nothing_is_called_unless_allowed(tmp_path: Path) -> None:
    strange = "CC(=O)Oc1ccccc1C(=O)O"
    code, out, _ = predict(strange, "--draws", "2", "--out", str(tmp_path / "a"))
    assert code == 0
    assert "No mechanism is called: the model was trained on simulated pictures" in out
    code, out, _ = predict(strange, "--draws", "2", "--allow-simulated", "--out", str(tmp_path / "b"))
    assert code == 0
    assert "alpha" in out


def test_the_demo_asks_the_running_service_and_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [("one", KNOWN), ("two", "CCCCN"), ("three", "CCCCCCCCO")]
    monkeypatch.setattr(service.demo, "molecules", lambda: asked)
    result = runner.invoke(app, ["demo", "--draws", "2", "--out", str(tmp_path)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for words in ("alpha", "beta", "result folders:", "page: http://127.0.0.1:", "evidence: simulation"):
        assert words in result.output
    written = json.loads((tmp_path / "results" / "request.json").read_text())
    assert [one["input"] for one in written["molecules"]] == [smiles for _, smiles in asked]
    # ... and again, over what the first one left
    assert runner.invoke(app, ["demo", "--exit", "--draws", "2", "--out", str(tmp_path)]).exit_code == 0


def test_the_demo_asks_for_two_known_drugs_and_one_the_model_has_never_met() -> None:
    asked = service.demo.molecules()
    assert [name for name, _ in asked][:2] == ["AMG900", "paclitaxel"]
    table = service.demo.library().set_index("smiles")
    assert table.loc[[smiles for _, smiles in asked], "split"].str.startswith("unseen").tolist() == [False, False, True]


def test_train_refuses_what_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "no.toml").write_text("[nothing]\n")
    for config in ("none.toml", str(tmp_path / "no.toml")):
        result = runner.invoke(app, ["train", config, "--data", str(tmp_path), "--out", str(tmp_path / "o")])
        assert result.exit_code == 2
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "verb",
    [
        "",
        "predict",
        "serve",
        "demo",
        "train",
        "simulate",
        "reference",
        "setup cellprofiler",
        "benchmark gate",
        "benchmark unseen",
        "benchmark causal",
    ],
)
def test_every_verb_has_help(verb: str) -> None:
    result = runner.invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_loads_neither_torch_nor_rdkit() -> None:
    heavy = "('torch', 'rdkit', 'pandas', 'fastapi', 'numba')"
    code = f"import sys, service.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_bad_smiles_is_one_line_and_exit_2_without_any_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["predict", "not-a-smiles"])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "not-a-smiles" in result.stderr
    assert not list(tmp_path.iterdir())
