"""chem.corpus and chem.train_encoder: span corruption is invertible, a resumed run repeats an uninterrupted one."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from chem.corpus import corrupt_spans, respell
from chem.encoder import EncoderError, load_encoder
from chem.molecule import standardise
from chem.train_encoder import EncoderRecipe, learning_rate, train_encoder

RECIPE = Path(__file__).resolve().parent.parent / "configs" / "chem" / "small_t5.toml"
TEXTS = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "CN1CCCC1c1cccnc1", "OC(=O)C=Cc1ccccc1", "Clc1ccc(Br)cc1", "NCCc1ccccc1",
         "not a smiles", "CCOC(=O)c1ccncc1", "COc1ccccc1N", "FC(F)(F)c1ccccc1", "CSCCC(N)C(=O)O",
         "OCC1OC(O)C(O)C1O"]  # fmt: skip
TINY = {"pieces": 80, "tokenizer_sample": 12, "sentinels": 8, "d_model": 8, "d_kv": 8, "heads": 2, "d_ff": 24,
        "layers": 1, "batch": 4, "steps": 24, "warmup": 2, "minutes": 5.0, "checkpoint_every": 3,
        "bfloat16": False, "threads": 1, "component_sample": 20, "anchors": 20, "neighbours": 2}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 90), st.floats(0.05, 0.6), st.floats(1.0, 5.0), st.integers(0, 1000))
def test_corrupted_spans_go_back(n: int, share: float, length: float, seed: int):
    tokens = list(range(100, 100 + n))
    marks = list(range(900, 932))
    source, target = corrupt_spans(tokens, marks, 1, np.random.default_rng(seed), share=share, length=length)
    assert source[-1] == target[-1] == 1
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token >= 900:
            spans[token] = []
            current = spans[token]
        else:
            current.append(token)
    assert all(spans.values())  # no empty span
    rebuilt = [back for token in source[:-1] for back in (spans[token] if token >= 900 else [token])]
    assert rebuilt == tokens
    hidden = sum(map(len, spans.values()))
    assert hidden == min(max(round(n * share), 1), n - 1)


def test_respelling_keeps_the_molecule():
    rng = np.random.default_rng(0)
    found = {respell("CC(=O)Oc1ccccc1C(=O)O", rng) for _ in range(20)}
    assert len(found) > 5
    assert {standardise(text).inchikey for text in found} == {"BSYNRYMUTXBXSQ-UHFFFAOYSA-N"}
    assert respell("nonsense", rng) == "nonsense"


def test_respelling_draws_open_stereo():
    rng = np.random.default_rng(0)
    found = {standardise(respell("CC(N)C(=O)O", rng, 1.0)).inchikey for _ in range(20)}
    assert found == {"QNAYBMKLOCPYGJ-REOHCLBHSA-N", "QNAYBMKLOCPYGJ-UWTATZPHSA-N"}  # L- and D-alanine


def test_the_shipped_recipe_reads_and_bad_names_are_refused(tmp_path: Path):
    assert EncoderRecipe.from_toml(RECIPE).d_model == 256
    (tmp_path / "bad.toml").write_text(RECIPE.read_text(encoding="utf-8") + "\ncolour = 1\n", encoding="utf-8")
    with pytest.raises(EncoderError, match=r"unknown names \['colour'\]"):
        EncoderRecipe.from_toml(tmp_path / "bad.toml")


def test_learning_rate_follows_the_further_of_steps_and_time():
    recipe = dataclasses.replace(EncoderRecipe.from_toml(RECIPE), steps=110, warmup=10, learning_rate=1.0)
    assert learning_rate(recipe, 4, 0.0) == pytest.approx(0.5)
    assert learning_rate(recipe, 10, 0.0) == pytest.approx(1.0)
    assert learning_rate(recipe, 60, 0.0) == learning_rate(recipe, 20, 0.5) == pytest.approx(0.51)
    assert learning_rate(recipe, 20, 1.0) == pytest.approx(0.02)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pd.DataFrame({"smiles": TEXTS}).to_csv(folder / "t.csv.gz", index=False)
    return folder


def _recipe(**changes: object) -> EncoderRecipe:
    base = dataclasses.replace(EncoderRecipe.from_toml(RECIPE), smiles="t.csv.gz", column="smiles", **TINY)
    return dataclasses.replace(base, **changes)


def test_resumed_training_repeats_an_uninterrupted_one(table: Path, tmp_path: Path):
    whole = train_encoder(_recipe(), table, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_encoder(_recipe(), table, tmp_path / "parts", _interrupt_at_20)
    state = json.loads((tmp_path / "parts" / "checkpoint" / "state.json").read_text(encoding="utf-8"))
    assert state["step"] == 18
    losses: list[dict[str, float]] = []
    parts = train_encoder(_recipe(), table, tmp_path / "parts", losses.append)
    a, b = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
    assert [report["step"] for report in losses] == [20]
    encoder = load_encoder(parts)
    assert encoder.dim == 8
    assert encoder.encode(["CCO"]).shape == (1, 8)
    assert a["shared.weight"].dtype == np.float16


def _interrupt_at_20(report: dict[str, float]) -> None:
    if report["step"] == 20:
        raise KeyboardInterrupt


def test_training_changes_the_weights_and_lowers_every_loss(table: Path, tmp_path: Path):
    reports: list[dict[str, float]] = []
    recipe = _recipe(steps=60, warmup=5, batch=10, learning_rate=1e-2)
    train_encoder(recipe, table, tmp_path / "run", reports.append)
    assert reports[-1]["step"] == 60
    assert reports[-1]["structure"] < 0.8 * reports[0]["structure"]
    assert reports[-1]["spans"] < reports[0]["spans"]
    assert reports[-1]["contrast"] < reports[0]["contrast"]


def test_a_checkpoint_of_other_settings_is_refused(table: Path, tmp_path: Path):
    train_encoder(_recipe(steps=1), table, tmp_path / "run")
    with pytest.raises(EncoderError, match="learning_rate"):
        train_encoder(_recipe(steps=2, learning_rate=0.5), table, tmp_path / "run")


def test_a_run_can_start_from_an_exported_encoder(table: Path, tmp_path: Path):
    first = train_encoder(_recipe(), table, tmp_path / "first")
    second = train_encoder(_recipe(minutes=1e-9), table, tmp_path / "second", start_from=first)
    a, b = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert all(np.array_equal(a[name], b[name]) for name in a)  # no time to train: the weights are those given
    with pytest.raises(EncoderError, match="another architecture"):
        train_encoder(_recipe(heads=4), table, tmp_path / "third", start_from=first)
    with pytest.raises(EncoderError, match="no spiece"):
        train_encoder(_recipe(), table, tmp_path / "fourth", start_from=tmp_path)


def test_missing_table(tmp_path: Path):
    with pytest.raises(EncoderError, match="DOPAINT_DATA"):
        train_encoder(_recipe(), tmp_path, tmp_path / "run")
