"""Settling: its last point is the answer itself, its intervals narrow, and its points are those of fewer draws."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.tables import read_profiles
from service.errors import NotFound
from service.fake import FakeRoom
from service.pipeline import predict_in
from service.request import Request
from service.settling import MOST_POINTS, counts, settling

ROOM = FakeRoom(sparse=("CCCCCN",))


def answered(folder: Path, smiles: str, draws: int) -> tuple:
    (outcome,) = predict_in(ROOM, Request((smiles,), draws=draws), folder)
    place = folder / outcome.folder
    profiles = [read_profiles(one / "profiles.parquet") for one in (place, folder / "control")]
    return outcome, pd.read_parquet(place / "effects.parquet").set_index("feature"), profiles


@pytest.mark.parametrize("smiles", ["CCCCO", "CCCCCN"], ids=["all draws with cells", "every second draw without"])
def test_the_last_point_is_the_answer(tmp_path: Path, smiles: str) -> None:
    outcome, effects, (compound, control) = answered(tmp_path, smiles, 12)
    found = settling(compound, control, ROOM.reference(), outcome.inchikey)
    assert found["draws"] == list(range(2, 13))
    for kind in ("moa", "target"):
        ranking = outcome.answer[kind]["ranking"]
        assert [one["label"] for one in found["labels"][kind]] == [one["label"] for one in ranking]
        for mine, theirs in zip(found["labels"][kind], ranking, strict=True):
            assert [mine[key][-1] for key in ("score", "low", "high")] == [
                theirs[key] for key in ("score", "low", "high")
            ]
    for name, series in found["features"].items():
        got = np.array([series[key][-1] for key in ("value", "low", "high")], dtype=float)
        want = effects.loc[name, ["value", "low", "high"]].to_numpy(dtype=float)
        np.testing.assert_allclose(got, want, rtol=5.1e-6)  # six digits are kept


def test_features_can_be_named_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    outcome, _, (compound, control) = answered(tmp_path, "CCCCO", 4)
    wanted = ("Image_Count_Cells", "Cells_Intensity_Fake_3")
    found = settling(compound, control, ROOM.reference(), outcome.inchikey, wanted)
    assert tuple(found["features"]) == wanted
    with pytest.raises(NotFound, match="nobody"):
        settling(compound, control, ROOM.reference(), outcome.inchikey, ("nobody",))


def test_intervals_of_features_narrow_and_shrink_with_the_root_of_the_draws(tmp_path: Path) -> None:
    outcome, _, (compound, control) = answered(tmp_path, "CCCCO", 64)
    found = settling(compound, control, ROOM.reference(), outcome.inchikey)
    at = {n: i for i, n in enumerate(found["draws"])}
    width = {
        n: np.median([one["high"][at[n]] - one["low"][at[n]] for one in found["features"].values()])
        for n in (4, 16, 64)
    }
    # the root of the draws, and Student's t: 3.18 / 2.13 from 4 to 16, 2.13 / 2.00 from 16 to 64; the rest is chance
    assert 2.0 < width[4] / width[16] < 5.0
    assert 1.5 < width[16] / width[64] < 3.0


@pytest.mark.parametrize(("n", "points"), [(1, (1,)), (2, (2,)), (5, (2, 3, 4, 5))])
def test_points_of_few_draws_are_all_of_them(n: int, points: tuple[int, ...]) -> None:
    assert counts(n) == points


def test_points_of_many_draws_are_few_and_end_with_all() -> None:
    points = counts(1000)
    assert points[0] == 2
    assert points[-1] == 1000
    assert len(points) <= MOST_POINTS
    assert list(points) == sorted(set(points))


def test_one_draw_has_no_interval_and_no_error(tmp_path: Path) -> None:
    outcome, _, (compound, control) = answered(tmp_path, "CCCCO", 1)
    found = settling(compound, control, ROOM.reference(), outcome.inchikey)
    assert found["draws"] == [1]
    assert found["labels"]["moa"][0]["low"] == [None]
