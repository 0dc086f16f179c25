"""The group autoencoder: shapes, stored scale, save and load, and the losses that keep texture."""

from pathlib import Path

import pytest
import torch

from ldm.autoencoder import AutoencoderConfig, AutoencoderError, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.train_autoencoder import contrast_loss, gradient_loss, learning_rate, local_sd

TINY = AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)


@pytest.fixture
def autoencoder() -> GroupAutoencoder:
    torch.manual_seed(0)
    return GroupAutoencoder(build_network(TINY).eval().requires_grad_(False), ChannelGroups())


PICTURES = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_latents_of_two_groups_are_concatenated(autoencoder: GroupAutoencoder) -> None:
    z = autoencoder.encode(PICTURES)
    assert (autoencoder.factor, autoencoder.latent_channels) == (4, 4)
    assert z.shape == (3, 4, 4, 4)
    assert autoencoder.decode(z).shape == PICTURES.shape
    # the second group holds AGP and Mito, the first does not
    changed = PICTURES.clone()
    changed[:, 3:] = -PICTURES[:, 3:]
    torch.testing.assert_close(autoencoder.encode(changed)[:, :2], z[:, :2])
    assert not torch.allclose(autoencoder.encode(changed)[:, 2:], z[:, 2:])


def test_three_channels_go_through_the_same_code() -> None:
    one = GroupAutoencoder(build_network(TINY).eval(), ChannelGroups(("Actin", "Tubulin", "DNA")))
    assert one.encode(PICTURES[:, :3]).shape == (3, 2, 4, 4)


def test_stored_scale_normalises_and_is_undone_by_decoding(autoencoder: GroupAutoencoder) -> None:
    raw = autoencoder.encode_raw(PICTURES)
    before = autoencoder.decode(autoencoder.encode(PICTURES))
    autoencoder.store_scale(raw.mean((0, 2, 3)), raw.std((0, 2, 3), unbiased=False))
    z = autoencoder.encode(PICTURES)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), unbiased=False), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(autoencoder.decode(z), before, atol=1e-4, rtol=1e-4)


def test_one_scaling_factor_is_used_when_no_numbers_are_stored(autoencoder: GroupAutoencoder) -> None:
    autoencoder.vae.register_to_config(scaling_factor=0.13025)
    torch.testing.assert_close(autoencoder.encode(PICTURES), autoencoder.encode_raw(PICTURES) * 0.13025)


def test_save_and_load_give_the_same_latents(autoencoder: GroupAutoencoder, tmp_path: Path) -> None:
    autoencoder.store_scale(torch.arange(4.0), torch.arange(1.0, 5.0))
    autoencoder.save(tmp_path)
    loaded = GroupAutoencoder.load(tmp_path)
    assert loaded.channels == autoencoder.channels
    assert torch.equal(loaded.encode(PICTURES), autoencoder.encode(PICTURES))


def test_missing_folders_and_odd_sizes_are_refused(autoencoder: GroupAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(AutoencoderError, match=r"has no config\.json"):
        GroupAutoencoder.load(tmp_path / "no")
    with pytest.raises(AutoencoderError, match="expected multiples of 4"):
        autoencoder.encode(PICTURES[..., :15])


def test_losses_see_blur_that_l1_hardly_sees() -> None:
    grain = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 0.1
    flat = torch.zeros_like(grain)
    other = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 0.1
    assert float(contrast_loss(grain, grain, 2)) == 0.0
    # another grain of the same strength is nearer in contrast than no grain, though farther in L1
    assert float(contrast_loss(grain, other, 2)) < 0.4 * float(contrast_loss(grain, flat, 2))
    assert float((grain - other).abs().mean()) > float((grain - flat).abs().mean())
    assert float(local_sd(grain).mean()) == pytest.approx(0.1, rel=0.1)
    ramp = torch.arange(32.0).expand(1, 1, 32, 32) * 0.01
    assert float(gradient_loss(ramp, torch.zeros_like(ramp), 1)) == pytest.approx(0.01, rel=1e-4)


def test_learning_rate_rises_then_falls_along_a_cosine() -> None:
    assert learning_rate(0.0, 0, 1.0, 10) == pytest.approx(0.1)
    assert learning_rate(0.5, 1000, 1.0, 10) == pytest.approx(0.505)
    assert learning_rate(1.0, 1000, 1.0, 10) == pytest.approx(0.01)
