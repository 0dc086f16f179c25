"""Draws by compound: Stein's rule as `causal.stopping` has it, and what it saves in a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from profiling.subprofile import build
from service.batch.adaptive import need, responses
from service.batch.ask import BatchRequest
from service.batch.drive import run
from service.batch.inline import InlineExecutor
from service.batch.room import FAKE, FakeBatchRoom
from service.batch.store import Store


def by_hand(pilot: np.ndarray, width: float) -> int:
    """max over labels of max(n0, ceil((2 t s / width)^2)), Stein 1945."""
    t = stats.t.ppf(0.975, len(pilot) - 1)
    return int(max(len(pilot), *np.ceil((2 * t * pilot.std(axis=0, ddof=1) / width) ** 2)))


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0, 50.0])
def test_the_number_of_draws_is_steins(width: float) -> None:
    pilot = np.random.default_rng(3).normal(size=(8, 4)) * [0.5, 1.0, 1.5, 0.1]
    wanted = by_hand(pilot, width)
    found = need(pilot, width, 8, 10_000)
    assert found.draws == wanted
    assert found.reached == (wanted == 8)
    assert need(pilot, width, 8, 20).draws == min(wanted, 20)


def test_after_the_second_round_it_says_whether_the_width_is_reached() -> None:
    rng = np.random.default_rng(4)
    pilot = rng.normal(size=(8, 3))
    wanted = need(pilot, 2.0, 8, 10_000).draws
    assert wanted > 8
    whole = np.concatenate([pilot, rng.normal(size=(wanted - 8, 3))])
    assert need(whole, 2.0, 8, 10_000) == type(need(pilot, 2.0, 8, 9))(wanted, True)
    assert not need(whole[:-2], 2.0, 8, len(whole) - 2).reached  # the limit came first
    lost = whole.copy()
    lost[-3:] = np.nan  # draws without cells are not replaced
    found = need(lost, 2.0, 8, 10_000)
    assert (found.draws, found.reached) == (wanted, False)


def test_intervals_cover_at_the_stopping_time() -> None:
    """Known truth: 2,000 compounds with one normal response; coverage of Stein's interval is exactly 95 %."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(2000):
        sd = rng.uniform(0.3, 2.0)
        draws = rng.normal(0.7, sd, size=(600, 1))
        n = need(draws[:8], 1.0, 8, 600).draws
        half = stats.t.ppf(0.975, 7) * draws[:8].std(ddof=1) / np.sqrt(n)
        covered += abs(draws[:n].mean() - 0.7) <= half
    assert 0.935 <= covered / 2000 <= 0.965  # three standard errors of a share of 0.95


def test_a_response_is_the_mean_along_the_sub_profile() -> None:
    values = np.array([[1.0, 2.0, 5.0], [1.0, 2.0, -5.0], [1.0, 2.0, 5.0], [1.0, 2.0, -4.0], [1.0, 2.0, 3.0]])
    sub = build(values, ["a"] * 5, ("x", "y", "z"))
    assert sub.mask.tolist() == [[True, True, False]]
    draws = np.array([[1.0, 2.0, 9.0], [0.0, 0.0, 9.0], [np.nan, 3.0, 0.0], [np.nan] * 3])
    rms = np.sqrt((1 + 4) / 2)
    found = responses(draws, sub)[:, 0]
    np.testing.assert_allclose(found, [rms, 0.0, 3.0 * 2.0 / rms, np.nan])


def test_a_run_saves_draws_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCCCO\nCCN\nCCO\n")
    room = FakeBatchRoom()

    def batch(name: str, **options: object) -> pd.DataFrame:
        request = BatchRequest(model=FAKE, draws=48, part=2, profiles="draws", **options)
        with InlineExecutor(room) as executor:
            summary = run(source, request, Store(str(tmp_path / name)), executor, room=room)
        table = pd.read_parquet(tmp_path / name / "outcomes")
        assert summary.manifest["pictures"]["draws_saved"] == table["draws_saved"].sum()
        assert summary.pictures == table["draws"].sum() + 48  # the control gets every draw
        return table

    full, some = batch("full"), batch("some", width=0.15, pilot=4)
    assert full["draws"].tolist() == [48] * 3
    assert some["draws"].between(5, 47).any()
    assert (some["draws"] + some["draws_saved"] == 48).all()
    both = [pd.read_parquet(tmp_path / name / "profiles") for name in ("full", "some")]
    keys = ["Metadata_Row", "Metadata_draw"]
    shared = both[1].merge(both[0], on=keys, suffixes=("", "_full"))
    assert len(shared) == len(both[1])  # the draws are the first of all draws, with the same numbers
    name = "Cells_Intensity_Fake_0"
    np.testing.assert_array_equal(shared[name], shared[f"{name}_full"])
