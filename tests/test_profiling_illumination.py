"""Illumination: the stock modules' function, a known vignette found again, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from profiling.illumination import (
    Illumination,
    IlluminationConfig,
    InvalidIllumination,
    Mean,
    correct,
    fit,
)

SHAPE = (96, 120)


def vignette() -> np.ndarray:
    """Light that falls to about half in the corners, 1 at its brightest."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 1 - 0.5 * ((y - 40) ** 2 + (x - 70) ** 2) / 8000


def fields(n: int, seed: int = 0) -> np.ndarray:
    """True pictures of one channel, before any microscope: background and cells at random places, [n, h, w]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    out = np.full((n, *SHAPE), 0.1)
    for field in out:
        for cy, cx in rng.uniform((0, 0), SHAPE, (15, 2)):
            field += 0.3 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 40)
    return out


def collect(pictures: np.ndarray) -> Mean:
    mean = Mean(["DNA"])
    for picture in pictures:
        mean.add(picture[None].astype(np.float32))
    return mean


def test_function_and_correction_are_cellprofilers(repository: Path) -> None:
    golden = np.load(repository / "tests/golden/profiling/illumination.npz")
    pictures = (golden["pictures"] / 65535).astype(np.float32)
    found = fit(collect(pictures), IlluminationConfig(size=12.0, shrink=1))
    # CellProfiler truncates the mean to whole 16-bit counts before the filter: one count of the darkest value.
    tolerance = float(1.0 / (65535 * pictures.mean(axis=0).min()))
    assert found.planes[0] == pytest.approx(golden["function"], rel=tolerance)
    corrected = correct(pictures[:2, None], ["DNA"], found)[:, 0]
    assert corrected == pytest.approx(golden["corrected"], rel=tolerance)


@pytest.mark.parametrize("shrink", [1, 4])
def test_known_vignette_is_found_and_taken_away_where_one_picture_would_mislead(shrink: int) -> None:
    truth, light = fields(150), vignette()
    config = IlluminationConfig(size=24.0, shrink=shrink)
    found = fit(collect(truth * light), config).planes[0]
    expected = light / light.min()

    def error(function: np.ndarray) -> float:
        """Spread of the ratio to the true light: its scale does not matter."""
        ratio = function / expected
        return float((ratio / np.median(ratio)).std())

    # 150 fields leave cells of 0.3 / sqrt(150) in the mean, about 3 % after smoothing.
    assert error(found) < 0.04
    # The first picture alone, by the same way: the estimate that is refused.
    alone = fit(collect(np.repeat(truth[:1] * light, 8, axis=0)), config).planes[0]
    assert error(alone) > 3 * error(found)
    # Corrected pictures of other cells are flat again: corners against centre, on the background.
    fresh = (fields(1, seed=9) * light).astype(np.float32)
    flat = correct(fresh[None], ["DNA"], fit(collect(truth * light), config))[0, 0]
    background = fields(1, seed=9)[0] < 0.105
    assert flat[background].std() / flat[background].mean() < 0.06
    assert fresh[0][background].std() / fresh[0][background].mean() > 0.1


def test_offset_that_adds_is_subtracted() -> None:
    stray = 0.2 * vignette()
    pictures = fields(60) * 0.2 + stray
    found = fit(collect(pictures), IlluminationConfig(how="subtract", size=24.0, shrink=2))
    left = correct(pictures[:5, None].astype(np.float32), ["DNA"], found)
    assert left.min() >= 0
    assert np.median(left) < 0.01 < np.median(pictures) / 10  # the median of a picture is background


def test_division_never_brightens_and_keeps_empty_channels() -> None:
    pictures = np.concatenate([fields(9)[:, None], np.zeros((9, 1, *SHAPE))], axis=1).astype(np.float32)
    mean = Mean(["DNA", "ER"])
    for picture in pictures:
        mean.add(picture)
    found = fit(mean)
    assert (found.planes >= 1).all()
    corrected = correct(pictures, ["DNA", "ER"], found)
    assert corrected.dtype == np.float32
    assert (corrected <= pictures).all()
    assert not corrected[:, 1].any()


def test_order_of_pictures_and_a_round_trip_change_nothing(tmp_path: Path) -> None:
    pictures = fields(12)
    first, second = fit(collect(pictures)), fit(collect(pictures[::-1]))
    assert first.planes == pytest.approx(second.planes, rel=1e-6)  # sums in another order, then float32
    first.save(tmp_path / "plate.npz")
    again = Illumination.load(tmp_path / "plate.npz")
    assert again.hash == first.hash != fit(collect(fields(12, seed=1))).hash
    assert (again.channels, again.how, again.n) == (("DNA",), "divide", 12)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidIllumination, match="got 7 pictures, expected at least 8"):
        fit(collect(fields(7)))
    with pytest.raises(InvalidIllumination, match="one picture cannot tell cells from light"):
        IlluminationConfig(min_pictures=1)
    with pytest.raises(InvalidIllumination, match="'multiply', expected divide or subtract"):
        IlluminationConfig(how="multiply")
    with pytest.raises(InvalidIllumination, match=r"unknown keys \['sizes'\]"):
        IlluminationConfig.from_mapping({"sizes": 3})
    mean = collect(fields(2))
    with pytest.raises(InvalidIllumination, match="pictures of one plate have one size"):
        mean.add(np.zeros((1, 4, 4), np.float32))
    with pytest.raises(InvalidIllumination, match="not finite"):
        mean.add(np.full((1, *SHAPE), np.nan, np.float32))
    found = fit(collect(fields(8)))
    with pytest.raises(InvalidIllumination, match="got ER, but the function was fitted on DNA"):
        correct(np.zeros((1, *SHAPE), np.float32), ["ER"], found)
    (tmp_path / "not.npz").write_bytes(b"PK")
    with pytest.raises(InvalidIllumination, match="fit it anew"):
        Illumination.load(tmp_path / "not.npz")
