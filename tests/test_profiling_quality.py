"""Quality control: CellProfiler's definitions, blur and saturation made on purpose, flags counted and explained."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from profiling.quality import (
    METRICS,
    InvalidQuality,
    QualityLimits,
    baseline,
    columns,
    excludes,
    flags,
    limits_hash,
    quality,
    report,
)

CHANNELS = ("DNA", "ER")
ABSOLUTE = QualityLimits(slope_deviations=None, mean_deviations=None)


def field(seed: int, level: float = 1.0) -> np.ndarray:
    """Two channels of small cells with grain, float32 [2, 96, 96] in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96]
    plane = np.full((96, 96), 0.05)
    for cy, cx in rng.uniform(5, 91, (14, 2)):
        plane += 0.3 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18)
    both = np.stack([plane, plane * 0.7]) * level
    return np.clip(both + rng.normal(0, 0.004, both.shape), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def plate() -> np.ndarray:
    """Metrics of 24 good pictures, [24, 2, 4]."""
    return np.stack([quality(field(seed)) for seed in range(24)])


@pytest.mark.parametrize("name", ["sim128_sparse", "sim128_crowded", "full_large"])
def test_metrics_are_those_of_measureimagequality(repository: Path, name: str) -> None:
    golden = np.load(repository / f"tests/golden/profiling/fast/{name}.npz")
    names = golden["names/Image"].tobytes().decode().split("\n")
    expected = dict(zip(names, golden["values/Image"], strict=True))
    channels = ("DNA", "ER", "RNA", "AGP", "Mito")
    found = quality((golden["picture"] / 65535).astype(np.float32)).ravel()
    # CellProfiler averages in float32 (pairwise): 1e-6; the spectrum's slope goes through a float32 transform.
    for column, value in zip(columns(channels), found, strict=True):
        assert value == pytest.approx(expected[column], rel=1e-6), column


def test_blur_lowers_slope_and_focus_and_is_flagged_where_the_good_ones_are_not(plate: np.ndarray) -> None:
    limits = QualityLimits(focus_deviations=5.0)
    base = baseline(plate, limits)
    sharp = field(99)
    blurred = np.stack([gaussian_filter(plane, 6.0) for plane in sharp])
    assert (quality(blurred)[:, :2] < quality(sharp)[:, :2]).all()
    assert flags(quality(blurred), CHANNELS, limits, base) == (
        "blurred:DNA", "unfocused:DNA", "blurred:ER", "unfocused:ER",
    )  # fmt: skip
    assert flags(quality(sharp), CHANNELS, limits, base) == ()
    assert [flags(one, CHANNELS, limits, base) for one in plate] == [()] * 24


def test_absolute_limits_need_no_plate() -> None:
    saturated = field(1)
    saturated[0] = np.minimum(saturated[0], 0.2)
    share = 100 * (saturated[0] == saturated[0].max()).mean()
    assert share > 1
    assert flags(quality(saturated), CHANNELS, ABSOLUTE) == ("saturated:DNA",)
    limits = QualityLimits(min_mean=0.02, max_mean=0.2, min_slope=-1e9, slope_deviations=None, mean_deviations=None)
    dim = field(2, 0.1)
    assert flags(quality(dim), CHANNELS, limits) == ("dark:DNA", "dark:ER")
    assert flags(quality(field(2, 2.8)), CHANNELS, limits) == ("bright:DNA",)


def test_dark_and_bright_pictures_are_flagged_and_kept(plate: np.ndarray) -> None:
    limits = QualityLimits()
    base = baseline(plate, limits)
    dark, bright = (flags(quality(field(50, level)), CHANNELS, limits, base) for level in (0.3, 1.9))
    assert "dark:DNA" in dark
    assert "bright:ER" in bright
    assert not excludes(["dark:DNA", "bright:ER"], limits)
    assert excludes(["dark:DNA", "saturated:ER"], limits)
    assert excludes(["dark:DNA"], QualityLimits(exclude=("dark",)))


def test_a_few_bad_pictures_do_not_move_the_baseline(plate: np.ndarray) -> None:
    bad = np.stack([quality(gaussian_filter(field(seed), (0, 4, 4))) for seed in range(6)])
    limits = QualityLimits()
    spoiled = baseline(np.concatenate([plate, bad]), limits)
    assert all("blurred:DNA" in flags(one, CHANNELS, limits, spoiled) for one in bad)


def test_report_counts_every_reason_and_every_picture_once() -> None:
    found = [(), ("dark:DNA",), ("blurred:DNA", "blurred:ER"), ("saturated:ER", "dark:DNA"), ()]
    table = report(found, QualityLimits())
    counted = {(r.flag, r.channel): (r.pictures, r.excludes) for r in table.itertuples()}
    assert counted == {
        ("blurred", "DNA"): (1, True), ("blurred", "ER"): (1, True), ("saturated", "ER"): (1, True),
        ("dark", "DNA"): (2, False), ("any", ""): (3, False), ("excluded", ""): (2, True),
    }  # fmt: skip
    assert list(table["flag"])[:2] == ["blurred", "blurred"]
    assert set(table["of"]) == {5}


def test_even_and_black_pictures_have_numbers() -> None:
    for level in (0.0, 0.25):
        values = quality(np.full((1, 64, 64), level, np.float32))
        assert values.tolist() == [[0.0, 0.0, 100.0, level]]
        assert flags(values, ["DNA"], ABSOLUTE) == ("saturated:DNA",)


def test_limits_are_checked_and_have_a_hash(plate: np.ndarray) -> None:
    with pytest.raises(InvalidQuality, match="expected at least 8"):
        baseline(plate[:7], QualityLimits())
    with pytest.raises(InvalidQuality, match="fit a baseline"):
        flags(plate[0], CHANNELS, QualityLimits())
    with pytest.raises(InvalidQuality, match="fuzzy, expected some of blurred"):
        QualityLimits(exclude=("fuzzy",))
    with pytest.raises(InvalidQuality, match=r"slope_deviations: got -1\.0"):
        QualityLimits(slope_deviations=-1.0)
    with pytest.raises(InvalidQuality, match=r"unknown keys \['slope'\]"):
        QualityLimits.from_mapping({"slope": 1})
    read = QualityLimits.from_mapping({"slope_deviations": "off", "exclude": ["dark"]})
    assert (read.slope_deviations, read.exclude) == (None, ("dark",))
    assert limits_hash(read) != limits_hash(QualityLimits()) == limits_hash(QualityLimits())
    assert len(columns(CHANNELS)) == 2 * len(METRICS)
