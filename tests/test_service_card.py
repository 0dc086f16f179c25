"""The card says what was measured, and names every miss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service import resources
from service.card import _gate_method, _gate_table, misses, render

MODEL = resources.path("models") / "simulation-128"


def score(**change: Any) -> dict[str, Any]:
    good = {"factor": "well", "model": "model", "cosine": 0.7, "cosine_low": 0.5, "slope": 1.0, "top_share": None}
    return {**good, **change}


def test_a_good_gate_has_no_misses() -> None:
    assert misses({"scores": [score(), score(model="shuffled", cosine=0.0)]}) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cosine": 0.45}, "median cosine 0.45, 0.15 below 0.6"),
        ({"cosine_low": 0.1}, "lower bound of the cosine 0.10, 0.30 below 0.4"),
        ({"slope": 0.5}, "slope of size 0.50, 0.10 outside"),
        ({"slope": 1.6}, "slope of size 1.60, 0.20 outside"),
        ({"top_share": 0.2}, "share of compounds in the top tenth 0.20, 0.40 below 0.6"),
    ],
)
def test_every_miss_is_named_with_its_distance(change: dict[str, Any], words: str) -> None:
    assert words in misses({"scores": [score(**change)]})[0]


def test_missing_numbers_are_refused_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "dopaint.json").write_text("{}")
    with pytest.raises(ValueError, match="dopaint benchmark gate"):
        render(tmp_path)


def test_the_shipped_card_is_what_its_numbers_say() -> None:
    assert (MODEL / "README.md").read_text(encoding="utf-8") == render(MODEL)


def test_the_numbers_belong_to_the_shipped_model() -> None:
    reference = json.loads((MODEL / "reference" / "manifest.json").read_text())
    for name in ("gate.json", "unseen.json"):
        measured = json.loads((MODEL / "measured" / name).read_text())
        # the gate may be measured with the engine `fast`, whose hash is another
        same = set(reference["hashes"]) - ({"engine"} if measured.get("engine") == "fast" else set())
        assert {k: measured["hashes"][k] for k in same} == {k: reference["hashes"][k] for k in same}


def test_the_noise_ceiling_stands_beside_the_cosine_where_it_was_measured() -> None:
    old = {"scores": [score(pairs=64, passed=True)]}
    assert "ceiling" not in "".join(_gate_table(old) + _gate_method(old))
    new = {
        "scores": [
            score(pairs=64, passed=True, noise_ceiling=0.914),
            score(pairs=64, passed=False, noise_ceiling=None),
        ],
        "engine": "fast",
        "draws": {"well": 16, "truth": 2},
    }
    table = _gate_table(new)
    assert "| 64 | 0.70 (0.50) | 0.91 | 1.00 |  | yes |" in table[2]
    assert "| 64 | 0.70 (0.50) |  | 1.00 |  | no |" in table[3]
    assert {line.count("|") for line in table} == {9}
    assert "16 for well; 2 true pictures" in " ".join(_gate_method(new))
