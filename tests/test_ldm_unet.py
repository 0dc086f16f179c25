"""The paper's U-Net has the size the design says; the small one has the shapes it promises; nothing mixes rows."""

import pytest
import torch

from ldm.unet import PAPER, PAPER_PARAMETERS, UNetConfig, UNetError, build_unet, n_parameters, predict

TINY = UNetConfig(
    latent_size=8, latent_channels=4, widths=(8, 16), layers=1, head_width=8, norm_groups=4, token_width=8, pooled=12
)


def test_the_papers_unet_has_260_million_parameters_in_496_tensors() -> None:
    with torch.device("meta"):
        unet = build_unet(PAPER)
    assert n_parameters(unet) == PAPER_PARAMETERS
    assert round(PAPER_PARAMETERS / 1e6, 1) == 260.0
    assert len(unet.state_dict()) == 496


def inputs(n: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(n, 4, 8, 8, generator=g),
        torch.arange(n) * 100,
        torch.randn(n, 5, 8, generator=g),
        torch.randn(n, 12, generator=g),
    )


def test_condition_enters_by_tokens_and_by_the_pooled_vector() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY).eval()
    x, t, tokens, pooled = inputs(2)
    with torch.no_grad():
        plain = predict(unet, x, t, tokens, pooled)
        assert plain.shape == x.shape
        assert not torch.allclose(plain, predict(unet, x, t, tokens + 1, pooled), atol=1e-7)
        assert not torch.allclose(plain, predict(unet, x, t, tokens, pooled + 1), atol=1e-7)


def test_no_layer_mixes_rows() -> None:
    torch.manual_seed(0)
    unet = build_unet(TINY).eval()
    together = inputs(3)
    with torch.no_grad():
        out = predict(unet, *together)
        for i in range(3):
            alone = predict(unet, *(part[i : i + 1] for part in together))
            torch.testing.assert_close(alone[0], out[i], atol=1e-5, rtol=1e-5)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UNetError, match=r"got levels \(3,\), expected levels 0 to 2"):
        build_unet(UNetConfig(attention=(3,)))
    with pytest.raises(UNetError, match="expected multiples of head_width 32"):
        build_unet(UNetConfig(widths=(48, 64)))
