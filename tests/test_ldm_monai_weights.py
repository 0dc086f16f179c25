"""Weights go to MONAI's network and back, and the output stays the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from ldm.monai_weights import from_monai, monai_name, monai_unet, to_monai
from ldm.unet import PAPER, UNetConfig, UNetError, build_unet, n_parameters

# the paper's layout, four times narrower where the layout allows
SMALL = UNetConfig(
    latent_size=8,
    latent_channels=8,
    widths=(32, 64, 96),
    layers=2,
    attention=(1, 2),
    head_width=16,
    norm_groups=16,
    token_width=24,
    pooled=0,
    scale_shift=False,
)


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Every tensor random: MONAI zeroes its last layers, which would hide a mistake."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.3 if p.ndim == 1 else 1.0 / p[0].numel() ** 0.5))
    return net.eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 8, 8, 8, generator=g),
        torch.tensor([7, 930]),
        torch.randn(2, 5, 24, generator=g),
    )


def test_every_tensor_of_the_papers_network_has_its_place_in_monais() -> None:
    with torch.device("meta"):
        ours, theirs = build_unet(PAPER), monai_unet(PAPER)
    assert {monai_name(n): t.shape for n, t in ours.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }
    assert n_parameters(theirs) == n_parameters(ours) == 259_990_024


def test_the_output_is_the_same_in_monai() -> None:
    unet = randomised(build_unet(SMALL))
    x, t, tokens = inputs()
    with torch.no_grad():
        ours = unet(x, t, encoder_hidden_states=tokens).sample
        theirs = to_monai(unet, SMALL).eval()(x, timesteps=t, context=tokens)
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("as_state", [False, True])
def test_the_output_of_a_monai_network_is_the_same_here(as_state: bool, tmp_path: Path) -> None:
    net = randomised(monai_unet(SMALL))
    unet = from_monai(dict(net.state_dict()) if as_state else net, SMALL).eval()
    x, t, tokens = inputs()
    with torch.no_grad():
        theirs = net(x, timesteps=t, context=tokens)
        torch.testing.assert_close(unet(x, t, encoder_hidden_states=tokens).sample, theirs, atol=1e-5, rtol=1e-5)
        # and after saving and loading, epsilon included
        unet.save_pretrained(tmp_path)
        again = UNet2DConditionModel.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(again(x, t, encoder_hidden_states=tokens).sample, theirs, atol=1e-5, rtol=1e-5)


def test_networks_that_monai_does_not_have_are_refused() -> None:
    with pytest.raises(UNetError, match="pooled 256, scale_shift True, expected 0 and false"):
        monai_unet(UNetConfig())
    unet = build_unet(SMALL)
    with pytest.raises(UNetError, match="the diffusers network does not fit at"):
        to_monai(unet, replace(SMALL, widths=(32, 64, 64)))
    with pytest.raises(UNetError, match="the MONAI network does not fit at"):
        from_monai(monai_unet(replace(SMALL, token_width=32)), SMALL)
