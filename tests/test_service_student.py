"""`dopaint benchmark student` accepts a model that paints the same and refuses one that lost mechanisms or its gate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from causal.phenotype import DMSO
from profiling.profiles import Profiles
from service import benchmark_student
from service.benchmark_student import StudentConfig, chosen, gates, mechanism_map, run, usable
from service.engine import ModelRoom
from service.errors import InvalidRequest
from service.library import library
from service.rooms import Measured, Provenance

PLATES = pd.DataFrame(
    [
        {"source": f"S{s}", "batch": f"S{s}B{b}", "plate": f"S{s}B{b}P1", "plate_format": 384}
        for s in (1, 2)
        for b in (1, 2)
    ]
)


class Room(ModelRoom):
    """Paints numbers: the mechanism's direction plus noise of the seed; `error` is a student's own."""

    def __init__(self, error: float) -> None:
        self.error = error
        self.contexts = Contexts.from_table(PLATES)
        self.moa = library().set_index("compound")["moa"]

    @property
    def provenance(self) -> Provenance:
        return Provenance("0" * 64, "1" * 64, "2" * 64, "3" * 64)

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def vectors(self, compounds: Sequence[str]) -> np.ndarray:
        return np.zeros((len(compounds), 2), np.float32)

    def paint_rows(
        self, vectors: np.ndarray, rows: pd.DataFrame, progress: Any, *, unconditional: bool = False
    ) -> np.ndarray:
        out = np.empty((len(rows), 1, 4, 10), np.float32)
        for i, row in enumerate(rows.to_dict("records")):
            name = "" if row["compound"] == DMSO else str(self.moa[row["compound"]])
            direction = np.random.default_rng(sum(name.encode())).standard_normal(40) * (3.0 if name else 0.0)
            noise = np.random.default_rng(int(row["seed"]) % 2**32).standard_normal(40)
            key = [int(row["seed"]) % 2**32, sum(str(row["compound"]).encode())]
            own = np.random.default_rng(key).standard_normal(40)
            out[i] = (direction + noise + 0.3 * own + self.error * np.sign(direction + own)).reshape(1, 4, 10)
        return out

    def measure(self, pictures: np.ndarray, tick: Any) -> Measured:
        values = pictures.reshape(len(pictures), -1).astype(np.float64)
        names = tuple(f"Cells_A_{i}" for i in range(values.shape[1]))
        return Measured(values, names, ("ok",) * len(values), ("",) * len(values))


def gate_file(folder: Path, **change: float) -> Path:
    scores: list[dict[str, object]] = [
        {"factor": f, "model": "model", "cosine": 0.7, "top_share": 0.8 if f == "compound" else None, **change}
        for f in ("compound", "source", "batch", "well")
    ]
    (folder / "measured").mkdir(parents=True, exist_ok=True)
    (folder / "measured/gate.json").write_text(json.dumps({"engine": "fast", "draws": {"well": 8}, "scores": scores}))
    return folder


def judged(monkeypatch: pytest.MonkeyPatch, error: float, out: Path) -> dict[str, Any]:
    rooms = {"teacher": Room(0.0), "student": Room(error)}
    monkeypatch.setattr(benchmark_student, "find_model", lambda name: out / str(name))
    monkeypatch.setattr(benchmark_student, "load_room", lambda folder, engine: rooms[folder.name])
    return run("student", "teacher", out / "student.json", StudentConfig(compounds=40, draws=5))


def test_a_twin_is_equivalent_and_a_poor_student_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("teacher", "student"):
        gate_file(tmp_path / name)
    twin = judged(monkeypatch, 0.0, tmp_path)
    assert twin["paired"] == {"rows": 205, "within": 1.0, "correlation": pytest.approx(1.0), "equivalent": True}
    assert twin["mechanism_map"]["kept"]
    assert twin["equivalent"] is True
    assert json.loads((tmp_path / "student.json").read_text())["equivalent"] is True
    poor = judged(monkeypatch, 4.0, tmp_path)
    assert not poor["paired"]["equivalent"]
    assert poor["equivalent"] is False


def test_no_verdict_without_both_gates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gate_file(tmp_path / "teacher")
    found = judged(monkeypatch, 0.0, tmp_path)
    assert found["equivalent"] is None
    assert "dopaint benchmark gate" in found["gate"]["remedy"]


def test_gates_may_differ_by_two_hundredths(tmp_path: Path) -> None:
    teacher = gate_file(tmp_path / "a")
    assert gates(teacher, gate_file(tmp_path / "b", cosine=0.681), 0.02)["kept"]
    assert not gates(teacher, gate_file(tmp_path / "c", cosine=0.67), 0.02)["kept"]
    file = tmp_path / "b/measured/gate.json"
    file.write_text(file.read_text().replace('"fast"', '"cellprofiler"'))
    with pytest.raises(InvalidRequest, match="same version"):
        gates(teacher, tmp_path / "b", 0.02)


def test_drugs_come_in_whole_mechanisms() -> None:
    drugs = chosen(StudentConfig())
    assert len(drugs) == 48
    assert (drugs.groupby("moa").size() == 4).all()
    assert drugs["compound"].is_unique


def test_mechanism_map_is_one_where_mechanisms_are_directions_and_chance_where_not() -> None:
    rng = np.random.default_rng(0)
    names = [f"K{i}" for i in range(20)]
    moa = pd.Series({name: f"m{i % 5}" for i, name in enumerate(names)})
    rows = pd.DataFrame({"compound": [DMSO, *names] * 3})
    direction = {m: rng.standard_normal(30) for m in moa.unique()} | {"": np.zeros(30)}
    right = np.stack([direction["" if c == DMSO else moa[c]] for c in rows["compound"]])
    assert mechanism_map(right + 0.01 * rng.standard_normal(right.shape), rows, moa) == pytest.approx(1.0)
    chance = np.mean([mechanism_map(rng.standard_normal(right.shape), rows, moa) for _ in range(40)])
    assert chance < 0.35  # expected AP of 3 among 19 at random: 0.26


def test_rows_without_cells_and_features_with_holes_are_left_out() -> None:
    values = np.arange(12.0).reshape(4, 3)
    holes = values.copy()
    holes[1] = np.nan  # no cells
    holes[2, 0] = np.nan
    meta = pd.DataFrame({"Metadata_Row": range(4)})
    teacher, student = Profiles(meta, values, ("a", "b", "c")), Profiles(meta, holes[:, ::-1], ("c", "b", "a"))
    rows, one, other = usable(teacher, student)
    assert rows.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(one, values[[0, 2, 3], 1:])
    np.testing.assert_array_equal(one, other)
