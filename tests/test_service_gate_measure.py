"""The gate's pictures pass by in blocks and are measured once; a kept truth is read for the same rows alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causal.laboratory import Laboratory
from causal.phenotype import DMSO
from service import gate_measure
from service.engine import ModelRoom
from service.errors import InvalidRequest
from service.gate import replicate
from service.gate_measure import autoencoder_features, measured, true_features, truth
from service.library import world
from service.rooms import Measured, Provenance


class Room(ModelRoom):
    """Measures the mean of every channel; its autoencoder halves the pictures."""

    def __init__(self, engine: str = "2") -> None:
        self.engine, self.sizes = engine, list[int]()

    @property
    def provenance(self) -> Provenance:
        return Provenance("0" * 64, "1" * 64, self.engine * 64, "3" * 64)

    def measure(self, pictures: np.ndarray, tick: object) -> Measured:
        self.sizes.append(len(pictures))
        values = pictures.mean((2, 3)).astype(np.float64)
        names = tuple(f"Cells_Intensity_{i}" for i in range(values.shape[1]))
        return Measured(values, names, ("ok",) * len(values), ("",) * len(values))

    def compress(self, pictures: np.ndarray, sources: list[str]) -> np.ndarray:
        return np.asarray(0.5 * pictures, np.float32)


def rows(n: int) -> pd.DataFrame:
    plates = Laboratory().plates.drop(columns="held_out").iloc[:n].reset_index(drop=True)
    return plates.assign(compound=DMSO, row=3, column=4, seed=np.arange(n, dtype=np.uint64))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_measure, "BLOCK", 4)


@pytest.mark.usefixtures("small")
def test_blocks_are_put_together_in_order() -> None:
    table, room, told = rows(6), Room(), list[int]()
    values = np.arange(6.0)
    found = measured(
        room, table, lambda index: np.ones((len(index), 2, 3, 3)) * values[index, None, None, None], told.append
    )
    assert room.sizes == told == [4, 2]
    np.testing.assert_array_equal(found.values[:, 1], values)
    assert list(found.meta["Metadata_seed"]) == list(range(6))


@pytest.mark.usefixtures("small")
def test_the_truth_has_other_noise_every_time_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    table, told = rows(6), list[int]()
    one, two = truth(Room(), table, 2, tmp_path / "truth", told.append)
    np.testing.assert_allclose(one.values, world().paint(table).mean((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(two.values, world().paint(replicate(table, 1)).mean((2, 3)), rtol=1e-6)
    assert not np.allclose(one.values, two.values)
    silent = Room()
    again = truth(silent, table, 2, tmp_path / "truth", told.append)
    assert silent.sizes == []  # nothing was measured
    np.testing.assert_array_equal(again[1].values, two.values)
    assert again[1].names == two.names
    assert sum(told) == 2 * 2 * 6
    np.testing.assert_allclose(autoencoder_features(Room(), table, told.append).values, 0.5 * one.values, rtol=1e-6)
    np.testing.assert_array_equal(true_features(Room(), table, told.append).values, one.values)
    for room, other, count, word in (
        (Room("4"), table, 2, "engine"),
        (Room(), table[::-1], 2, "rows"),
        (Room(), table, 1, "replicates"),
    ):
        with pytest.raises(InvalidRequest, match=f"with other .*{word}"):
            truth(room, other, count, tmp_path / "truth", told.append)
