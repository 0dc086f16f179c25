"""The decoder alone is trained, on losses that see grains and how channels vary together; old latents stay valid."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from ldm.autoencoder import AutoencoderConfig, AutoencoderError, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.config import read_table
from ldm.data import load_data
from ldm.intensity import IntensityScale
from ldm.latents import cached_latents
from ldm.objective import DiffusionTraining
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import ConditionConfig
from ldm.refine_decoder import Camera, DecoderRefinement, batch_losses, install, run
from ldm.sensor import camera_noise
from ldm.texture_losses import covariance_loss, covariances, dilate, erode, granular_loss, opened, with_grain
from ldm.train import run as train_model
from ldm.unet import UNetConfig

RECIPE = DecoderRefinement(
    batch=4, steps=4, warmup_steps=1, windows=(4,), grains=(1,), scales=1, bfloat16=False, threads=1, log_every=2
)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder") / "vae"
    torch.manual_seed(0)
    network = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2))
    GroupAutoencoder(network, ChannelGroups()).save(folder)
    return folder


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_covariances_are_those_of_numpy() -> None:
    x = noise(2, 3, 8, 8)
    found = covariances(x, 4)
    assert found.shape == (2, 3, 3, 3, 3)  # windows overlap by half
    wanted = np.cov(x[1, :, 2:6, 4:8].reshape(3, -1).numpy(), bias=True)
    np.testing.assert_allclose(found[1, :, :, 1, 2], wanted, atol=1e-5)


def test_lost_correlation_costs_and_another_noise_of_the_same_law_hardly_does() -> None:
    def correlated(seed: int, share: float) -> torch.Tensor:
        common, own = noise(4, 1, 64, 64, seed=seed), noise(4, 2, 64, 64, seed=seed + 100)
        out: torch.Tensor = share * common + (1 - share**2) ** 0.5 * own
        return out

    x = correlated(1, 0.9)
    assert float(covariance_loss(x, x, (16,))) == 0.0
    same, lost = (float(covariance_loss(x, correlated(2, share), (16,))) for share in (0.9, 0.0))
    # off the diagonal: 0.81 is missing; on it, and in noise, errors of windows of 256 pixels: a few hundredths
    assert same < 0.15
    assert lost == pytest.approx(0.81 / 2, abs=0.1)
    assert float(covariance_loss(x, 0.5 * x, (16,))) == pytest.approx(0.75 * (1 + 0.81) / 2, abs=0.05)


def test_openings_are_those_of_scipy_and_leave_what_is_wide() -> None:
    x = noise(1, 1, 20, 20)
    cross = ndimage.generate_binary_structure(2, 1)
    plain = x[0, 0].numpy()
    np.testing.assert_array_equal(dilate(x)[0, 0], ndimage.grey_dilation(plain, footprint=cross, mode="nearest"))
    np.testing.assert_array_equal(erode(x)[0, 0], ndimage.grey_erosion(plain, footprint=cross, mode="nearest"))
    dots = torch.zeros(1, 1, 32, 32)
    dots[..., 5, 5] = 1.0  # one pixel
    dots[..., 14:19, 14:19] = 1.0  # five pixels: gone after three erosions, back whole after two
    one, two, three = opened(dots, (1, 2, 3), more=4)
    assert float(one[..., 5, 5]) == 0.0
    assert torch.equal(one[..., 10:, 10:], dots[..., 10:, 10:])
    assert torch.equal(two[..., 10:, 10:], dots[..., 10:, 10:])
    assert float(three.sum()) == 0.0


def test_granular_loss_counts_grains_and_not_their_places() -> None:
    def grains(seed: int, sigma: float) -> torch.Tensor:
        smooth = ndimage.gaussian_filter(noise(64, 64, seed=seed).numpy(), sigma)
        return torch.from_numpy(smooth / smooth.std()).float().view(1, 1, 64, 64)

    fine, other, coarse = grains(1, 0.8), grains(2, 0.8), grains(1, 3.0)
    assert float(granular_loss(fine, fine, (1, 2))) == 0.0
    assert float(granular_loss(fine, other, (1, 2))) < 0.35 * float(granular_loss(fine, coarse, (1, 2)))


def test_grain_has_the_cameras_size_and_lets_gradients_through() -> None:
    scale = IntensityScale(
        ("A", "B"), ("x",), np.full((2, 1), 0.1), np.full((2, 1), 0.5), np.full((2, 1), 4e-5), np.array([[1e-3], [0.0]])
    )
    y = torch.full((2, 1, 200, 200), 0.5, requires_grad=True)  # 0.4 in camera units, in which 0.2 is 1
    out = Camera.of(scale).grainy(y, ["A", "B"], noise(2, 1, 200, 200))
    sd = out.detach().std(dim=(1, 2, 3)).numpy() * 0.2
    np.testing.assert_allclose(sd, [(4e-5 + 4e-4) ** 0.5, 4e-5**0.5], rtol=0.02)
    out.sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    zero, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    dark = with_grain(torch.full((1, 1, 2, 2), -3.0), zero, one, zero, one, noise(1, 1, 2, 2))
    assert torch.isfinite(dark).all()  # below the camera's zero there is no signal


def test_only_the_decoder_learns_and_a_stopped_run_goes_on(vae: Path, tiny_training: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, autoencoder=str(vae))
    whole = run(recipe, tiny_training, tmp_path / "whole")
    run(recipe, tiny_training, tmp_path / "parts", stop_at=2)
    parts = run(recipe, tiny_training, tmp_path / "parts")
    before, after, again = (load_file(folder / WEIGHTS) for folder in (vae, whole, parts))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in moved)
    assert all(torch.equal(after[name], again[name]) for name in after)
    pictures = torch.from_numpy(load_data(tiny_training).read(np.arange(2)))
    one, two = GroupAutoencoder.load(vae), GroupAutoencoder.load(whole)
    assert torch.equal(one.encode(pictures), two.encode(pictures))


def test_training_lowers_the_loss(vae: Path, tiny_training: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, autoencoder=str(vae), steps=60, batch=8, learning_rate=1e-2, ema_decay=0.5)
    data = load_data(tiny_training)
    scale = IntensityScale.load(tiny_training / "intensity.json")
    rows, camera = np.arange(8), Camera.of(camera_noise(data, scale))

    def parts(folder: Path) -> dict[str, float]:
        held = GroupAutoencoder.load(folder)
        latents = cached_latents(held, data, tmp_path / folder.name)
        with torch.no_grad():
            found = batch_losses(held, data, latents, rows, camera, recipe, np.random.default_rng(0))
        return {name: float(value) for name, value in found.items()}

    before, after = parts(vae), parts(run(recipe, tiny_training, tmp_path / "run"))
    assert after["loss"] < 0.97 * before["loss"]  # pictures of pure noise: little can be learned, 0.948 here
    assert after["l1"] < before["l1"]


def test_a_model_takes_the_refined_decoder_and_no_other_encoders(
    vae: Path, tiny_training: Path, tmp_path: Path
) -> None:
    unet = UNetConfig(
        latent_size=4, latent_channels=4, widths=(8, 16), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=8
    )
    recipe = DiffusionTraining(batch=4, steps=1, statistics_steps=1, statistics_batch=8, validate_rows=4)
    model = train_model(unet, ConditionConfig(hidden=8, fourier=1), recipe, tiny_training, tmp_path / "run", vae)
    refined = run(replace(RECIPE, autoencoder=str(vae)), tiny_training, tmp_path / "refined")
    out = install(model, refined, tiny_training, tmp_path / "out")
    old, new = CellPaintingPipeline.from_pretrained(model), CellPaintingPipeline.from_pretrained(out)
    assert all(torch.equal(a, b) for a, b in zip(old.unet.parameters(), new.unet.parameters(), strict=True))
    z = noise(1, 4, 4, 4)
    assert not torch.allclose(old.autoencoder.decode(z), new.autoencoder.decode(z), atol=1e-4)
    wanted = GroupAutoencoder.load(refined).decode(z)
    torch.testing.assert_close(new.autoencoder.decode(z), wanted, atol=5e-3, rtol=5e-3)  # half precision
    torch.manual_seed(9)
    other = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2))
    GroupAutoencoder(other, ChannelGroups()).save(tmp_path / "other")
    with pytest.raises(AutoencoderError, match="the model's own autoencoder"):
        install(model, tmp_path / "other", tiny_training, tmp_path / "no")


def test_the_shipped_recipe_is_read(repository: Path) -> None:
    path = repository / "configs/ldm/small_decoder_refine.toml"
    assert read_table(path, "decoder_refinement", DecoderRefinement).max_minutes == 20
