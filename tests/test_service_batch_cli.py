"""`dopaint batch`, `plan`, `screen` and `expand` at the door: exit codes, what is said, one line for a refusal."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from service.cli import app

runner = CliRunner()


def dopaint(*arguments: str) -> tuple[int, str, str]:
    result = runner.invoke(app, list(arguments))
    return result.exit_code, " ".join(result.stdout.split()), " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    (path / "a.csv").write_text("name,smiles\na,CCCCO\nb,not-a-smiles\nc,CCN\nd,OCCCC\n")
    (path / "good.smi").write_text("CCO\n")
    return path


def batch(folder: Path, name: str, *options: str) -> tuple[int, str, str]:
    words = ["batch", str(folder / "a.csv"), "--model", "fake", "--executor", "inline", "--draws", "3"]
    return dopaint(*words, "--out", str(folder / name), *options)


def test_a_dry_run_plans_and_paints_nothing(folder: Path) -> None:
    code, out, err = batch(folder, "dry", "--dry-run")
    assert (code, err) == (0, "")
    assert "4 entries: 2 compounds, 1 duplicates, 1 refused (1 unparsable)" in out
    assert "9 pictures with the control's" in out
    assert sorted(path.name for path in (folder / "dry").iterdir()) == ["plan", "plan.json"]


def test_a_run_goes_on_and_says_what_became_of_the_entries(folder: Path) -> None:
    code, out, err = batch(folder, "run", "--timings", str(folder / "t.json"), "--part", "2")
    assert (code, err) == (3, "")  # one entry was refused
    assert "1 duplicate, 1 invalid, 2 ok" in out
    assert "evidence: simulation" in out
    assert json.loads((folder / "t.json").read_text())["tasks"]["paint"]["units"] == 9
    again, out, _ = batch(folder, "run", "--part", "2")
    assert again == 3
    assert "2 parts were finished by an earlier run" in out
    assert batch(folder, "run", "--seed", "2", "--part", "2")[0] == 2
    words = ["batch", str(folder / "good.smi"), "--model", "fake", "--executor", "inline", "--draws", "2"]
    assert dopaint(*words, "--out", str(folder / "good"))[0] == 0


def test_shards_make_a_whole_together(folder: Path) -> None:
    code, out, _ = batch(folder, "shards", "--part", "1", "--shard", "1/2")
    assert "2 of 4 parts are there" in out
    assert not (folder / "shards" / "manifest.json").exists()
    batch(folder, "shards", "--part", "1", "--shard", "0/2")
    batch(folder, "whole", "--part", "1")
    assert (folder / "shards" / "manifest.json").read_bytes() == (folder / "whole" / "manifest.json").read_bytes()
    assert code in (0, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--column", "SMILES_COLUMN"], "columns are name, smiles"),
        (["--engine", "magic"], "engine 'magic' does not exist"),
        (["--executor", "abacus"], "executor 'abacus' does not exist"),
        (["--context", "nowhere"], "context 'nowhere' is not known"),
        (["--shard", "2/2"], "shard: got '2/2'"),
        (["--storage", "x"], "storage: got 'x'"),
        (["--draws", "0"], "draws is 0"),
        (["--out", "nowhere://x"], "cannot be opened"),
    ],
)
def test_a_refusal_is_one_line(folder: Path, tmp_path: Path, options: list[str], words: str) -> None:
    model = "simulation-128" if "--engine" in options else "fake"
    first = ["batch", str(folder / "a.csv"), "--model", model, "--executor", "inline", "--draws", "3"]
    code, _, err = dopaint(*first, "--out", str(tmp_path / "out"), *options)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_plan_says_what_it_costs_and_where_the_limit_is(folder: Path) -> None:
    code, out, _ = dopaint("plan", "1000", "--draws", "4", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["pictures"] == 4004
    code, out, _ = dopaint(
        "plan", "1000000", "--model", "paper", "--device", "h200", "--gpus", "1000", "--cores", "14000"
    )
    assert code == 0
    assert "the limit: generate" in out
    assert "assumed" in out
    assert dopaint("plan", "10", "--device", "abacus")[0] == 2


def test_screen_and_expand_read_a_finished_batch(folder: Path) -> None:
    batch(folder, "library", "--allow-simulated")
    library, table = str(folder / "library"), folder / "near.csv"
    assert dopaint("screen", library, "--model", "fake", "--out", str(table))[0] == 0
    assert pd.read_csv(table)["label"].tolist() == ["alpha", "beta"]
    assert dopaint("screen", library, "--model", "fake", "--label", "beta")[0] == 0
    assert dopaint("expand", "moa:beta", "--library", library, "--model", "fake", "--out", str(table))[0] == 0
    assert pd.read_csv(table)["evidence"].tolist() == ["simulation"]  # CCN is a reference of beta: the query itself
    code, _, err = dopaint("expand", "CCCCCC", "--library", library, "--model", "fake", "--by", "biology")
    assert code == 2
    assert "has no effect in the library" in err
    assert dopaint("screen", str(folder / "dry"), "--model", "fake")[0] == 2
