"""Picture quality: CellProfiler's numbers, definitions by hand, and pictures without light."""

import numpy as np
import pytest
from fast_golden import CHANNELS, FIELDS, far, load

from profiling.engines.families import image_quality, pixel_order
from profiling.engines.pipeline_settings import ImageQuality, QualityGroup


def asked(scales: tuple[int, ...], images: tuple[str, ...] = CHANNELS, scaling: bool = False) -> ImageQuality:
    return ImageQuality((QualityGroup(images, scaling, True, scales, True, True),))


@pytest.mark.parametrize("field", FIELDS)
def test_values_are_those_of_cellprofiler(field: str) -> None:
    """1e-9, but for the slope of the power spectrum, a float32 transform there and in part here: 1e-6."""
    golden = load(field)
    settings = asked((4, 16) if golden.settings == "sim128" else (5, 10, 20, 50))
    names, values = image_quality.image_names(settings), image_quality.measure_image(golden.pictures, settings)
    off = far(golden, "Image", names, values, 1e-9)
    assert {name for name in off if "PowerLogLogSlope" not in name} == set()
    assert far(golden, "Image", names, values, 1e-6) == {}


def test_focus_and_tiles_by_hand() -> None:
    plane = np.zeros((4, 8), np.float32)
    plane[:, ::2] = 0.5  # mean 1/4, variance 1/16
    assert image_quality.focus_score(plane) == pytest.approx(0.25)
    plane[:2, :4] += 0.25  # tiles of 2 x 2: two with mean 1/2, six with mean 1/4, all with variance 1/16
    scores = np.array([1 / 8] * 2 + [1 / 4] * 6)
    assert image_quality.local_focus_score(plane, 2) == pytest.approx(scores.var() / np.median(scores), rel=1e-6)
    plane[2:, 4:] = 0  # two black tiles have no score
    scores = scores[:-2]
    assert image_quality.local_focus_score(plane, 2) == pytest.approx(scores.var() / np.median(scores), rel=1e-6)


def test_correlation_of_neighbours_by_hand() -> None:
    rng = np.random.default_rng(0)
    plane = rng.random((30, 40)).astype(np.float32)
    levels = image_quality.quantise(plane)
    assert levels.min() == 0
    assert levels.max() == 7
    left, right = levels[:, :-3].ravel().astype(float), levels[:, 3:].ravel().astype(float)
    assert image_quality.correlation(levels, 3) == pytest.approx(np.corrcoef(left, right)[0, 1], rel=1e-9)
    assert image_quality.correlation(levels, 40) == 0.0


@pytest.mark.parametrize("shape", [(64, 64), (96, 70), (65, 81)])
def test_the_slope_is_that_of_the_whole_transform(shape: tuple[int, int]) -> None:
    """`centrosome.radial_power_spectrum.rps` written out with a full transform in float64; 1e-5: ours is float32."""
    rng = np.random.default_rng(0)
    plane = np.cumsum(rng.standard_normal(shape), axis=1)
    plane = ((plane - plane.min()) / np.ptp(plane)).astype(np.float32)
    at = [np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shape]
    radius = np.floor(np.sqrt(at[0][:, None] ** 2 + at[1][None, :] ** 2)).astype(int) + 1
    scaled = plane.astype(float) / np.median(np.abs(plane - plane.mean()))
    power = np.abs(np.fft.fft2(scaled - scaled.mean())) ** 2
    rings = np.arange(2, int(min(shape) / 8))
    total = [power[radius == r].sum() for r in rings]
    expected = np.polyfit(np.log(rings), np.log(total), 1)[0]
    assert image_quality.power_slope(plane, pixel_order.rising(plane)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_an_even_picture_has_finite_values(level: float) -> None:
    settings = asked((5,), ("DNA",), scaling=True)
    plane = np.full((48, 48), level, np.float32)
    names = image_quality.image_names(settings)
    found = dict(zip(names, image_quality.measure_image({"DNA": plane}, settings), strict=True))
    assert found["ImageQuality_Scaling_DNA"] == 65535
    assert found["ImageQuality_PercentMaximal_DNA"] == found["ImageQuality_PercentMinimal_DNA"] == 100
    assert found["ImageQuality_MeanIntensity_DNA"] == found["ImageQuality_MedianIntensity_DNA"] == level
    zero = ("FocusScore_DNA", "PowerLogLogSlope_DNA", "LocalFocusScore_DNA_5", "Correlation_DNA_5", "StdIntensity_DNA")
    assert all(found[f"ImageQuality_{name}"] == 0 for name in zero)
