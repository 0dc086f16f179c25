"""Camera grain: measured where it is known, given back in the size that was measured, from the row's own noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from ldm.autoencoder import GroupAutoencoder
from ldm.data import TrainingData
from ldm.intensity import IntensityError, IntensityScale
from ldm.sensor import camera_noise, fit_grain, fit_line, pixel_variance, roughness


def scale(**more: np.ndarray) -> IntensityScale:
    return IntensityScale(("A", "B"), ("DNA", "ER"), np.full((2, 2), 0.1), np.full((2, 2), 0.6), **more)


def test_variance_of_single_pixels_is_unbiased_and_blind_to_smooth_errors() -> None:
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((256, 256))
    y, x = np.mgrid[:256, :256] / 40.0
    assert pixel_variance(noise).mean() == pytest.approx(4e-4, rel=0.03)
    assert pixel_variance(noise + 0.2 * np.sin(y) * np.cos(x)).mean() == pytest.approx(4e-4, rel=0.03)
    # texture through optics: other noise, three times as strong, blurred by 0.8 pixels
    texture = ndimage.gaussian_filter(0.06 * np.random.default_rng(5).standard_normal((256, 256)), 0.8)
    assert texture.var() > 4e-4
    assert pixel_variance(noise + texture).mean() == pytest.approx(4e-4, rel=0.06)


def test_roughness_is_unbiased_for_independent_pixels_and_sees_fine_texture() -> None:
    rng = np.random.default_rng(6)
    noise = 0.02 * rng.standard_normal((256, 256))
    assert roughness(noise).mean() == pytest.approx(4e-4, rel=0.03)
    texture = ndimage.gaussian_filter(0.06 * rng.standard_normal((256, 256)), 0.8)
    assert roughness(noise + texture).mean() > 5e-4


def grainy_pictures() -> tuple[np.ndarray, np.ndarray, TrainingData, IntensityScale]:
    """Scene and its variance [24, 2, 64, 64] in camera units; the same with noise as training data."""
    rng = np.random.default_rng(3)
    scene = 0.25 + 0.15 * ndimage.gaussian_filter(rng.standard_normal((24, 2, 64, 64)), (0, 0, 1.2, 1.2)) / 0.2
    scene = ndimage.gaussian_filter(np.clip(scene, 0.06, 0.6), (0, 0, 1.0, 1.0))  # optics blur the kinks of the limits
    variance = 2e-5 + 9e-4 * scene
    camera = scene + np.sqrt(variance) * rng.standard_normal(scene.shape)
    scale = IntensityScale(("A",), ("DNA", "ER"), np.full((1, 2), 0.05), np.full((1, 2), 0.65))
    there = scale.to_network(camera, ["A"] * len(camera))
    return scene, variance, TrainingData(there, pd.DataFrame({"source": ["A"] * len(camera), "split": "train"})), scale


SIGNAL = np.array([0.15, 0.3, 0.45])


def test_the_cameras_noise_is_found_under_texture() -> None:
    _, _, data, scale = grainy_pictures()
    found = camera_noise(data, scale, each=24)
    # 98,000 pixels whose filtered noise hangs together over 5 x 5: about 1.5 % in the middle, 5 % at the ends
    lines = found.floor[0][:, None] + found.slope[0][:, None] * SIGNAL
    np.testing.assert_allclose(lines, np.tile(2e-5 + 9e-4 * SIGNAL, (2, 1)), rtol=0.08)


def test_decoded_pictures_get_back_what_they_lack() -> None:
    """A decoder that keeps a third of the noise's variance: grain makes up the other two thirds."""
    scene, variance, data, scale = grainy_pictures()
    rng = np.random.default_rng(4)
    kept = scale.to_network(scene + np.sqrt(variance / 3) * rng.standard_normal(scene.shape), ["A"] * len(scene))
    twin = {x.tobytes(): y for x, y in zip(data.pictures, kept, strict=True)}

    class Decoder(GroupAutoencoder):
        def __init__(self) -> None:
            pass

        def encode(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.stack([twin[x.tobytes()] for x in latents.numpy()]))

    found = fit_grain(Decoder(), data, scale, each=24)
    lines = found.floor[0][:, None] + found.slope[0][:, None] * SIGNAL
    # the scene's own roughness is the larger part of both and drops out of the difference but for sampling
    np.testing.assert_allclose(lines, np.tile((2e-5 + 9e-4 * SIGNAL) * 2 / 3, (2, 1)), rtol=0.15)


def test_photon_transfer_line_is_recovered() -> None:
    rng = np.random.default_rng(1)
    signal = rng.uniform(0.05, 0.8, 200_000)
    noise = rng.standard_normal(len(signal)) * np.sqrt(3e-5 + 8e-4 * signal)
    floor, slope = fit_line(signal, noise**2)
    assert floor == pytest.approx(3e-5, rel=0.25)
    assert slope == pytest.approx(8e-4, rel=0.03)
    assert fit_line(signal, 1e-4 * (1 - signal))[1] == 0.0


def test_grain_has_the_size_that_was_asked_for() -> None:
    grainy = scale(floor=np.array([[1e-4, 0.0], [0.0, 0.0]]), slope=np.array([[0.0, 1e-3], [0.0, 0.0]]))
    camera = np.full((2, 2, 200, 200), 0.5, np.float32)
    noise = np.random.default_rng(2).standard_normal(camera.shape).astype(np.float32)
    out = grainy.grain(camera, ["A", "B"], noise)
    assert out[0, 0].std() == pytest.approx(0.01, rel=0.03)
    assert out[0, 1].std() == pytest.approx(np.sqrt(5e-4), rel=0.03)
    assert np.array_equal(out[1], camera[1])
    assert grainy.grainy
    assert not scale().grainy


def test_grain_survives_the_file_and_nonsense_is_refused(tmp_path: Path) -> None:
    grainy = scale(floor=np.full((2, 2), 1e-5), slope=np.full((2, 2), 2e-4))
    grainy.save(tmp_path / "i.json")
    back = IntensityScale.load(tmp_path / "i.json")
    assert np.array_equal(back.floor, grainy.floor)
    assert np.array_equal(back.slope, grainy.slope)
    with pytest.raises(IntensityError, match="grain"):
        scale(floor=np.full((2, 2), -1.0))


def test_values_beyond_the_range_survive_the_way_there_and_back() -> None:
    camera = np.full((1, 2, 4, 4), 0.9, np.float32)
    there = scale().to_network(camera, ["A"])
    assert there.max() > 1.5
    assert np.allclose(scale().to_camera(there, ["A"]), camera, atol=1e-6)
