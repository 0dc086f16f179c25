"""The whole run of the gate with a room that paints the truth: what a model can pass is passed, and written whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from ldm.features import textures
from service import benchmark_gate
from service.benchmark_gate import run
from service.engine import ModelRoom
from service.gate import FACTORS, GateConfig, replicate
from service.library import world
from service.rooms import Measured, Provenance

CONFIG = GateConfig(pairs=6, compound_draws=2, source_draws=2, batch_draws=2, well_draws=2, truth=2, bootstrap=50)


class Painter(ModelRoom):
    """Paints what the simulator paints with other cells; unconditionally one picture a seed. Measures textures."""

    def __init__(self, *, blind: bool = True) -> None:
        plates = world().plates
        self.contexts = Contexts.from_table(plates[~plates["held_out"]].drop(columns="held_out"))
        self.blind = blind

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def provenance(self) -> Provenance:
        return Provenance("0" * 64, "1" * 64, "2" * 64, "3" * 64)

    def vectors(self, compounds: Sequence[str]) -> np.ndarray:
        return np.zeros((len(compounds), 2), np.float32)

    def paint_rows(
        self, vectors: np.ndarray, rows: pd.DataFrame, progress: Any, *, unconditional: bool = False
    ) -> np.ndarray:
        painted = np.asarray(world().paint(replicate(rows, 7)), np.float32)
        if unconditional and self.blind:
            for index in rows.groupby(["seed", "source"]).indices.values():
                painted[index] = painted[index[0]]
        return painted

    def compress(self, pictures: np.ndarray, sources: list[str]) -> np.ndarray:
        return pictures

    def measure(self, pictures: np.ndarray, tick: Any) -> Measured:
        coarse = pictures[..., ::4, ::4]  # a sixteenth of the pixels: textures of whole pictures take most of the time
        values = np.concatenate([pictures.mean((2, 3)), textures(coarse)], axis=1).astype(np.float64)
        names = ("Image_Count_Cells", *(f"Cells_Texture_{i}" for i in range(values.shape[1] - 1)))
        return Measured(values, names, ("ok",) * len(values), ("",) * len(values))


def test_a_room_that_paints_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark_gate, "load_room", lambda *_: Painter())
    told: list[tuple[int, int]] = []
    found = run("any", tmp_path / "deep/gate.json", CONFIG, lambda n, total, _: told.append((n, total)))
    assert json.loads((tmp_path / "deep/gate.json").read_text()) == json.loads(json.dumps(found))
    assert told[-1][0] == told[-1][1]
    assert found["engine"] == "fast"
    assert found["draws"] == {"compound": 2, "source": 2, "batch": 2, "well": 2, "truth": 2}
    scores: Any = found["scores"]
    by = {(s["factor"], s["model"]): s for s in scores}
    for factor in FACTORS:
        one = by[factor, "model"]
        assert one["cosine"] > 0.5, factor
        # a model that paints from the true law comes near the ceiling; six pairs scatter
        assert abs(one["cosine"] - one["noise_ceiling"]) < 0.3, factor
        assert by[factor, "unconditional"]["cosine"] == 0.0
        assert by[factor, "shuffled"]["cosine"] < one["cosine"]
    ceiling: Any = found["autoencoder_ceiling"]
    assert ceiling["median"] == 1.0


def test_a_model_that_sees_conditions_when_it_should_not_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_gate, "load_room", lambda *_: Painter(blind=False))
    with pytest.raises(ValueError, match="the same with and without conditions"):
        run("any", None, CONFIG)
