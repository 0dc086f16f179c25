"""The cost model: its arithmetic by hand, FLOP against the design's numbers, and what it refuses."""

import json
from pathlib import Path

import pytest

from service import cost
from service.batch.timings import Timings
from service.errors import InvalidRequest, UnknownName

SHAPE = cost.Shape("made", 2e12, 5, 100, 10, 8, 1000, 20)
RATES = cost.Rates(generate=0.5, profile=0.2, compound=0.1, start=10.0, basis="made")


def test_on_processors_the_stages_add_up() -> None:
    found = cost.estimate(SHAPE, 99, 4, RATES, cost.Machines(0, 2, 1e12))
    assert found.pictures == 400  # the control's too
    assert found.flop == 400 * 2e12
    assert found.wall_s == pytest.approx(10 + (400 * 0.5 + 400 * 0.2 + 99 * 0.1) / 2, rel=1e-6)
    assert found.core_hours == pytest.approx((400 * 0.7 + 9.9) / 3600)
    assert found.device_hours == 0
    assert found.limit == "generate"


def test_with_gpus_the_slowest_stage_counts() -> None:
    painting = cost.estimate(SHAPE, 99, 4, RATES, cost.Machines(1, 90, 1e12))
    assert (painting.limit, painting.wall_s) == ("generate", pytest.approx(210.0))
    measuring = cost.estimate(SHAPE, 99, 4, RATES, cost.Machines(100, 9, 1e12))
    assert (measuring.limit, measuring.wall_s) == ("profile", pytest.approx(10 + 400 * 0.2 / 8))
    assert measuring.device_hours == pytest.approx(200 / 3600)
    kept = cost.estimate(SHAPE, 99, 4, RATES, cost.Machines(100, 9, 1000.0), pictures_kept="all")
    assert kept.limit == "storage"


def test_storage_is_counted_by_what_is_kept() -> None:
    bare = cost.storage(SHAPE, 10, 4, "none", "none", 12)
    assert bare == 10 * (1000 * 12 + 20 * cost.LABEL_ROW) + 12 * cost.ENTRY_ROW
    assert cost.storage(SHAPE, 10, 4, "none", "draws", 12) - bare == 10 * 4 * 1000 * 8
    pictures = cost.storage(SHAPE, 10, 4, "all", "none", 12) - bare
    assert pictures == pytest.approx(10 * 4 * 100**2 * (cost.PNG_PER_PIXEL + 5 * cost.TIFF_PER_VALUE))


def test_nothing_costs_nothing() -> None:
    found = cost.estimate(SHAPE, 0, 4, RATES, cost.Machines())
    assert (found.pictures, found.flop, found.wall_s, found.storage_bytes) == (0, 0, 0, 0)


@pytest.mark.parametrize(("compounds", "draws", "cores"), [(-1, 4, 2), (1, 0, 2), (1, 4, 0)])
def test_what_cannot_be_is_refused(compounds: int, draws: int, cores: int) -> None:
    with pytest.raises(InvalidRequest, match="must not be negative"):
        cost.estimate(SHAPE, compounds, draws, RATES, cost.Machines(0, cores))


def test_flop_of_the_papers_network_are_those_of_the_design() -> None:
    """design.md: 172 GFLOP a step at 8 x 48 x 48, 1,395 GFLOP a decoded group; by hand to 2 %."""
    one, two = (cost.shape_of("paper", steps) for steps in (1, 2))
    assert two.flop - one.flop == pytest.approx(172e9, rel=0.02)
    assert one.flop - (two.flop - one.flop) == pytest.approx(2 * 1395e9, rel=0.02)
    assert (one.side, one.channels, one.picture_bytes) == (384, 5, 4 * 5 * 384**2)


def test_the_shipped_model_has_the_shape_of_its_folder() -> None:
    shape = cost.shape_of("simulation-128")
    assert (shape.side, shape.channels, shape.steps, shape.micro_batch) == (128, 5, 15, 8)
    few = cost.shape_of("simulation-128", 4)
    per_step = (shape.flop - few.flop) / 11
    assert 0 < per_step < few.flop
    assert cost.rates_of(shape, "cpu-core", "fast").generate == pytest.approx(shape.flop / (0.11e12 * 0.42))


def test_measured_rates_take_the_place_of_the_table(tmp_path: Path) -> None:
    timings = Timings()
    tasks = (("paint", 20.0, 10.0, 40), ("profile", 4.0, 4.0, 40), ("chem", 1.0, 1.0, 10), ("finish", 2.0, 2.0, 10))
    for task, cpu, wall, units in tasks:
        timings.add(task, cpu, wall, units)
    told = tmp_path / "rates.json"
    told.write_text(json.dumps(timings.document(gpu=False, start_s=7.0)))
    rates = cost.rates_from(told)
    assert (rates.generate, rates.profile, rates.start) == (0.5, 0.1, 7.0)
    assert rates.compound == pytest.approx(0.3)
    told.write_text(json.dumps(timings.document(gpu=True)))
    assert cost.rates_from(told).generate == 0.25  # the GPU's time, not its process's
    told.write_text(json.dumps(Timings().document()))
    with pytest.raises(InvalidRequest, match="has nothing for paint"):
        cost.rates_from(told)
    told.write_text("{}")
    with pytest.raises(InvalidRequest, match="is not what"):
        cost.rates_from(told)


def test_unknown_devices_and_engines_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="cpu-core, a100-40"):
        cost.rates_of(SHAPE, "abacus", "fast")
    with pytest.raises(UnknownName, match="fast:jump"):
        cost.rates_of(SHAPE, "cpu-core", "cp_measure")
    (tmp_path / "d.toml").write_text("[device.x]\ntflops = 1\n")
    with pytest.raises(InvalidRequest, match="wrong or missing key"):
        cost.load_devices(tmp_path / "d.toml")
    for name, one in cost.load_devices()["device"].items():
        assert one["basis"], name
        assert 0 < one["share"] < 1
