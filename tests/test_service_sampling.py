"""The benchmark of sampling, tiny: it counts what it says, and both loops compute the same latents."""

from dataclasses import asdict, replace

import pytest
import torch

from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.flops import unet_flops
from ldm.small_decoder import SmallDecoder
from ldm.unet import UNetConfig, build_unet
from service.benchmark_sampling import SamplingConfig, Subject, matmul_rate, measure, ours, paper, stock, table

TINY = UNetConfig(
    latent_size=8,
    latent_channels=4,
    widths=(8, 16),
    layers=1,
    attention=(1,),
    head_width=8,
    norm_groups=4,
    token_width=8,
    pooled=12,
)
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers under NumPy 2


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    unet = build_unet(TINY).eval().requires_grad_(False)
    vae = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)).eval()
    autoencoder = GroupAutoencoder(vae, ChannelGroups())
    small = SmallDecoder(4, 5, (8, 8, 8), (1, 0, 0)).eval()
    return Subject("tiny", unet, torch.randn(1, 5, 8), torch.randn(1, 12), autoencoder, small, 4, 2)


def test_both_loops_end_at_the_same_latents_and_pictures(subject: Subject) -> None:
    noise = torch.randn(2, *subject.latent)
    with torch.no_grad():
        latents, pictures = stock(subject, noise, 6, True)
        mine, painted = ours(subject, subject.unet, noise, 6, torch.float32, None)
    # diffusers computes its schedule in float32
    torch.testing.assert_close(mine, latents, atol=1e-3, rtol=1e-3)
    groups = pictures.unflatten(1, (2, 3))
    torch.testing.assert_close(painted[:, 1], groups[:, 0, 1], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(painted[:, 0], groups[:, :, 0].mean(1), atol=1e-2, rtol=1e-2)


def test_rows_say_what_they_count(subject: Subject) -> None:
    config = SamplingConfig(repeats=1, bfloat16=True)
    rates = {dtype: matmul_rate(CPU, dtype, 128) for dtype in (torch.float32, torch.bfloat16)}
    assert all(rate > 1e7 for rate in rates.values())
    rows = {row.way: row for row in measure(subject, config, CPU, rates)}
    first, plain = rows["stock diffusers"], rows["float32, kept keys, groups at once"]
    assert first.times_stock == 1.0
    assert plain.largest_difference < 1e-3
    assert plain.gflop_per_picture == first.gflop_per_picture
    for row in rows.values():
        assert row.pictures_per_second == pytest.approx(row.batch / row.seconds, rel=0.05)
        assert row.share_of_matmul > 0.0
    few = rows["small decoder, few steps"]
    assert few.steps == 4
    assert few.gflop_per_picture < plain.gflop_per_picture
    with torch.device("meta"):
        each = unet_flops(build_unet(TINY), 1, 5)
    # the U-Net's part grows with the steps, the decoder's does not
    more = {r.way: r for r in measure(replace(subject, steps=8), config, CPU, rates)}["stock diffusers"]
    assert (more.gflop_per_picture - first.gflop_per_picture) * 1e9 == pytest.approx(4 * each, abs=1.1e7)


def test_the_papers_network_is_timed_without_a_decoder() -> None:
    small = replace(TINY, pooled=0, scale_shift=False)
    found = paper(SamplingConfig(), CPU, small)
    assert found.autoencoder is None
    rows = measure(found, SamplingConfig(repeats=1, bfloat16=False, paper_steps=2), CPU, {torch.float32: 1e9})
    assert rows[0].network == "paper"
    assert {row.steps for row in rows} == {2, 4}


def test_without_a_gpu_its_row_is_empty_and_says_the_command(subject: Subject) -> None:
    config = SamplingConfig(repeats=1, bfloat16=False, student_steps=0)
    rows = [asdict(row) for row in measure(subject, config, CPU, {torch.float32: 1e9})]
    shown = table({"rows": rows, "gpu": "not measured"})
    assert len(shown) == len(rows) + 1
    assert "dopaint benchmark sampling --paper-batch 64" in shown["way"].iloc[-1]
    assert shown["pictures_per_second"].iloc[-1] == ""
    assert len(table({"rows": rows, "gpu": "measured"})) == len(rows)
