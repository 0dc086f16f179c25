"""Published weights: DINO's layout, name by name, becomes an engine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from embedder_data import CHANNELS, CROPS, paint
from safetensors.torch import save_file

from profiling.embedders import EMBEDDERS
from profiling.embedders.networks.vit import VisionTransformer, VitConfig
from profiling.embedders.published import import_vit, plain
from profiling.embedders.weights import InvalidWeights

#: The names of facebookresearch/dino's and timm's VisionTransformer, of its first block and around it.
DINO = (
    "cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias",
    "blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias",
    "blocks.0.attn.proj.weight", "blocks.0.attn.proj.bias", "blocks.0.norm2.weight", "blocks.0.norm2.bias",
    "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc1.bias", "blocks.0.mlp.fc2.weight", "blocks.0.mlp.fc2.bias",
)  # fmt: skip


def vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(VitConfig(16, 4, 64, 1, 1))


def test_our_names_are_the_published_ones() -> None:
    assert sorted(vit().state_dict()) == sorted(DINO)


def test_a_published_checkpoint_becomes_an_engine(tmp_path: Path) -> None:
    own = vit()
    state = {f"teacher.backbone.{name}": t for name, t in own.state_dict().items()}
    state |= {f"student.backbone.{name}": t + 1.0 for name, t in own.state_dict().items()}
    state["teacher.head.mlp.0.weight"] = torch.zeros(2, 2)
    save_file(state, tmp_path / "published.safetensors")
    config = import_vit(
        tmp_path / "published.safetensors", tmp_path / "ours", crops=replace(CROPS, source="tiles", most=9)
    )
    assert (config.image, config.patch, config.dim, config.depth, config.heads, config.mlp) == (16, 4, 64, 1, 1, 4.0)
    pictures = paint(2.0, 1.0, np.random.default_rng(0))[None]
    with EMBEDDERS["dino_boc"](tmp_path / "ours") as engine:
        values = engine.measure(pictures, CHANNELS)[0].objects["Cells"].values
    assert values.shape == (9, 3 * 64)
    assert plain({"module.model.blocks.0.x": torch.ones(1)}) == {"blocks.0.x": torch.ones(1)}


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    three = VisionTransformer(VitConfig(16, 4, 64, 1, 1, channels=3))
    save_file(three.state_dict(), tmp_path / "three.safetensors")
    with pytest.raises(InvalidWeights, match="reads 3 channels"):
        import_vit(tmp_path / "three.safetensors", tmp_path / "out")
    save_file({"conv1.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InvalidWeights, match="no cls_token"):
        import_vit(tmp_path / "other.safetensors", tmp_path / "out")
    (tmp_path / "pickle.pth").write_bytes(b"x")
    with pytest.raises(InvalidWeights, match="never opened"):
        import_vit(tmp_path / "pickle.pth", tmp_path / "out")
    broken = {k: t for k, t in vit().state_dict().items() if k != "blocks.0.norm2.bias"}
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(InvalidWeights, match=r"lacks blocks\.0\.norm2\.bias"):
        import_vit(tmp_path / "broken.safetensors", tmp_path / "out")
