"""What each way of training sees: hidden patches, replicates in other batches, focal planes, tokens of one picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from embedder_data import CHANNELS, make, recipe

from profiling.embedders.data import InvalidTrainingData, TrainingPictures, find_cells, load_pictures, philox
from profiling.embedders.methods.distillation import DinoMethod, partners
from profiling.embedders.methods.masking import MaskingMethod
from profiling.embedders.methods.method import Sources, sources
from profiling.embedders.networks.gradient import DifferenceConv, GradientEncoder
from profiling.embedders.networks.phenoprofiler import (
    KINDS,
    PhenoConfig,
    PhenoNetwork,
    Projection,
    TokenEncoder,
    resized,
)
from profiling.embedders.train import build

NARROW = PhenoConfig(side=32, width=4, blocks=(1, 1), stem=1, heads=2, scale=0.1, branch=2, out=5)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = make(tmp_path_factory.mktemp("methods") / "data", targets=6)
    own = recipe("dino")
    data = load_pictures(folder)
    return sources(data, find_cells(data, own.crops, folder / "cells.parquet"), "train", own.crops)


def with_rows(material: Sources, rows: pd.DataFrame) -> Sources:
    data = material.data
    return replace(material, data=TrainingPictures(data.pictures, rows, data.channels, data.targets, data.target_names))


def test_difference_convolution_is_equation_1() -> None:
    torch.manual_seed(0)
    layer = DifferenceConv(2, 3, 0.7).double()
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1)).numpy()
    w = layer.conv.weight.detach().numpy()
    got = layer(x).detach().numpy()
    for o in range(3):
        for y in range(5):
            for z in range(6):
                total = 0.0
                for c in range(2):
                    for dy in range(3):
                        for dx in range(3):
                            # the zeros around the picture: w (0 - θ x0), as inside
                            near, own = padded[0, c, y + dy, z + dx], x[0, c, y, z].item()
                            total += w[o, c, dy, dx] * (near - 0.7 * own)
                np.testing.assert_allclose(got[0, o, y, z], total, atol=1e-12)
    plain = DifferenceConv(2, 3, 0.0).double()
    torch.testing.assert_close(plain(x), plain.conv(x))


def test_the_gradient_encoder_is_equations_2_to_4() -> None:
    torch.manual_seed(0)
    net = GradientEncoder(5, 3, 4).eval()
    for norm in (net.norm_deep, net.norm_shallow, net.norm):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 5, 6, 6)
    branches = [n(torch.relu(b(x))) for n, b in ((net.norm_deep, net.deep), (net.norm_shallow, net.shallow))]
    torch.testing.assert_close(net(x), net.norm(torch.relu(net.mlp(torch.cat(branches, 1)))))
    assert (net.deep.theta, net.shallow.theta) == (0.7, 0.3)


def test_the_token_encoder_and_projection_are_equations_5_to_11() -> None:
    torch.manual_seed(0)
    net, x = TokenEncoder(8, 2, 0.1).eval(), torch.randn(3, 4, 8)
    h3, _ = net.attention(x, x, x)
    h4 = net.norm1(x + h3)
    h6 = net.norm2(h4 + torch.relu(net.fc2(torch.relu(net.fc1(h4)))))
    torch.testing.assert_close(net(x), h6)
    last, h = Projection(8, 5, 0.1).eval(), torch.randn(3, 8)
    z1 = last.fc3(h)
    torch.testing.assert_close(last(h), last.norm(z1 + last.fc4(torch.nn.functional.gelu(z1))))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_never_crosses_the_batch(kind: str) -> None:
    """Permuted and split batches give the same vectors, picture by picture; so do strangers beside a picture."""
    torch.manual_seed(0)
    net = PhenoNetwork(replace(NARROW, kind=kind, side=56 if kind == "vit_b32" else 32), 5).eval()
    x = torch.randn(4, 5, net.config.side, net.config.side)
    with torch.no_grad():
        whole = net(x)
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(net(x[order]), whole[order], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(torch.cat([net(x[:1]), net(x[1:])]), whole, atol=1e-5, rtol=1e-4)
        other = torch.cat([x[:1], 100 * torch.randn(3, *x.shape[1:])])
        torch.testing.assert_close(net(other)[0], whole[0], atol=1e-5, rtol=1e-4)


def test_tokens_of_one_picture_do_see_each_other() -> None:
    torch.manual_seed(0)
    net, x = TokenEncoder(8, 2, 0.0).eval(), torch.randn(1, 4, 8)
    changed = x.clone()
    changed[0, 3] += 1.0
    assert not torch.allclose(net(x)[0, 0], net(changed)[0, 0], atol=1e-4)


def test_resizing_averages() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resized(x, 4) is x
    assert float(resized(x, 2).mean()) == pytest.approx(7.5)


@pytest.mark.parametrize("network", ["boc", "mca"])
def test_hidden_patches_are_hidden_and_every_token_finds_its_place(network: str, material: Sources) -> None:
    """What a hidden patch holds changes no prediction; changing visible ones changes predictions. Visible tokens keep
    their order, and each is given back to the place that it came from."""
    own = recipe("cha_mae" if network == "mca" else "mae", network, channel_share=0.5)
    method = build(own, material).eval()
    assert isinstance(method, MaskingMethod)
    batch, channels = method.batch(material, 6, philox(1, 2, 0))
    x, hidden = batch["views"], batch["hidden"]
    with torch.no_grad():
        front, tokens, order, index, seen = method.encoded(x, hidden, channels)
        said = method.decoder(front, tokens, order, index, seen)
        other = x.clone()
        patch = method.encoder.vit.config.patch
        mask = hidden.reshape(*hidden.shape[:2], 16 // patch, 16 // patch)
        wide = mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        other[wide] += 10.0
        again = method.decoder(*method.encoded(other, hidden, channels))
        torch.testing.assert_close(said, again, atol=1e-5, rtol=1e-4)
        other = x.clone()
        other[~wide] += torch.randn(int((~wide).sum()))
        assert not torch.allclose(method.decoder(*method.encoded(other, hidden, channels)), said, atol=1e-3)
    flat = hidden.flatten(1)
    for row in range(len(flat)):
        visible = torch.nonzero(~flat[row])[:, 0]
        assert seen[row].sum() == len(visible)
        assert order[row, visible].tolist() == list(range(len(visible)))  # visible tokens, in their order
        places = order[row, torch.nonzero(flat[row])[:, 0]]
        assert len(places) == 0 or int(places.min()) >= len(visible)


def test_cross_batch_partners_share_everything_but_the_batch(material: Sources) -> None:
    found = partners(material)
    rows = material.data.rows
    assert len(found.of) == len(material.rows)
    for row, others in found.of.items():
        assert (rows.loc[others, "compound"] == rows.loc[row, "compound"]).all()
        assert (rows.loc[others, "batch"] != rows.loc[row, "batch"]).all()
        assert set(others) <= set(material.rows)
    doses = rows.assign(dose=np.where(np.arange(len(rows)) % 8 < 4, 1.0, 10.0))
    apart = partners(with_rows(material, doses.assign(batch=[f"B{i // 8}" for i in range(len(rows))])))
    for row, others in apart.of.items():
        assert (doses.loc[others, "dose"] == doses.loc[row, "dose"]).all()
    with pytest.raises(InvalidTrainingData, match="needs replicates"):
        partners(with_rows(material, rows.assign(batch="B0")))


def test_global_crops_of_a_cross_batch_step_come_from_both_pictures(material: Sources) -> None:
    """Pictures of batch B1 are told from B0 by a stripe; each global crop of a pair shows another one."""
    rows = material.data.rows.assign(compound="C0")
    stripes = np.zeros_like(np.asarray(material.data.pictures))
    column = np.arange(stripes.shape[-1]) / stripes.shape[-1]
    stripes[:] = np.where((rows["batch"] == "B1").to_numpy()[:, None, None, None], column, column[:, None])
    data = TrainingPictures(stripes, rows, CHANNELS, material.data.targets, material.data.target_names)
    own = recipe("dino", cross_batch=True, local_crops=3)
    striped = replace(material, data=data)
    method = build(own, striped)
    assert isinstance(method, DinoMethod)
    method.config.global_.__dict__.update(flips=False, turns=False)
    method.config.local_.__dict__.update(flips=False, turns=False)
    batch, _ = method.batch(striped, 8, philox(1, 0, 0))

    def across(crops: torch.Tensor) -> torch.Tensor:
        """Whether brightness rises along columns (batch B1) rather than rows."""
        change = [crops.diff(dim=d).abs().mean(dim=(1, 2, 3)) for d in (3, 2)]
        return change[0] > change[1]

    first, second = across(batch["global"]).chunk(2)
    assert bool((first ^ second).all())
    local = across(batch["local"]).chunk(6)
    for k, crops in enumerate(local):  # three of each picture, taking turns
        assert torch.equal(crops, first if k % 2 == 0 else second)


def test_every_crop_draws_its_own_plane(material: Sources) -> None:
    own = recipe("dino", planes="any")
    method = build(own, material)
    assert isinstance(method, DinoMethod)
    levels = torch.arange(3.0)[None, :, None, None].expand(200, 3, 2, 2)
    drawn = method._plane(levels, np.random.default_rng(0))
    assert drawn.shape == (200, 1, 2, 2)
    counts = torch.bincount(drawn[:, 0, 0, 0].long(), minlength=3)
    assert bool((counts > 45).all())  # 67 on average, deviation 6.7
    fixed = build(recipe("dino", planes="ER"), material)
    assert isinstance(fixed, DinoMethod)
    assert fixed._channels(material, 4, np.random.default_rng(0))[0].tolist() == [[1]] * 4
    with pytest.raises(ValueError, match="planes is 'z9'"):
        build(recipe("dino", planes="z9"), material)


def test_the_teacher_stays_in_evaluation_and_is_what_is_kept(material: Sources, tmp_path: Path) -> None:
    method = build(recipe("dino"), material).train()
    assert isinstance(method, DinoMethod)
    assert method.student.training
    assert not method.teacher.training
    assert method.encoder is method.teacher.encoder
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_supcon_batches_hold_pairs(material: Sources) -> None:
    method = build(recipe("supcon", per_label=4), material)
    batch, _ = method.batch(material, 8, philox(1, 0, 0))
    _, counts = np.unique(batch["labels"].numpy(), return_counts=True)
    assert (counts >= 8).all()  # four cells, two views each
    assert len(batch["views"]) == 16


def test_phenoprofiler_regresses_alone_first(material: Sources) -> None:
    method = build(recipe("phenoprofiler", "phenoprofiler", alone=0.5), material)
    batch, channels = method.batch(material, 4, philox(1, 0, 0))
    assert set(method(batch, channels, 0.49)) == {"loss", "regression"}
    assert set(method(batch, channels, 0.5)) == {"loss", "regression", "classification", "matching"}
    targets = material.data.targets[material.rows]
    torch.testing.assert_close(method.mean, torch.from_numpy(targets.mean(axis=0)))
