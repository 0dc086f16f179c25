"""Weights published by others into a folder of ours: ViTs in DINO's or timm's layout, as CHAMMI-75's MorphEm.

Only safetensors are opened. Names may carry prefixes (`teacher.backbone.`, `module.`, `model.`); heads of pre-training
are left out. Sizes are read from the shapes; a head is 64 wide, as in every published ViT of these families. A network
of one input channel becomes a bag of channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from profiling.embedders.cells import CropConfig
from profiling.embedders.networks.build import BagOfChannels, NetworkConfig, n_parameters
from profiling.embedders.recipe import as_table
from profiling.embedders.train import EmbedderConfig
from profiling.embedders.weights import InvalidWeights, file_hash, fit, read_tensors, save_folder

PREFIXES = ("teacher.", "student.", "module.", "backbone.", "model.", "encoder.", "vit.")
LEFT_OUT = ("head.", "fc_norm.", "mask_token", "decoder", "dino_head.", "projector.", "register_tokens")
HEAD = 64


def plain(tensors: Mapping[str, Tensor], which: str = "teacher.") -> dict[str, Tensor]:
    """Names without prefixes and pre-training heads; where a student and a teacher are there, the one of `which`."""
    both = any(n.startswith("teacher.") for n in tensors) and any(n.startswith("student.") for n in tensors)
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if both and not name.startswith(which):
            continue
        short = name
        while any(short.startswith(prefix) for prefix in PREFIXES):
            short = short.split(".", 1)[1]
        if not short.startswith(LEFT_OUT):
            out[short] = tensor
    return out


def sizes(tensors: Mapping[str, Tensor], where: Path) -> NetworkConfig:
    """The network that these tensors are of. Raises InvalidWeights where they are no ViT of one input channel."""
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "norm.weight"):
        if name not in tensors:
            raise InvalidWeights(f"weights: {where} has no {name}; expected a ViT in DINO's or timm's layout")
    dim, channels, patch, _ = tensors["patch_embed.proj.weight"].shape
    if channels != 1:
        raise InvalidWeights(f"weights: {where} reads {channels} channels at once, expected 1 for a bag of channels")
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    mlp = tensors["blocks.0.mlp.fc1.weight"].shape[0] / dim
    return NetworkConfig("boc", side * patch, patch, dim, depth, max(1, dim // HEAD), mlp)


def import_vit(path: Path, out: Path, engine: str = "dino_boc", crops: CropConfig | None = None) -> NetworkConfig:
    """Write the folder of a published bag-of-channels ViT; returns its sizes. `crops`: how cells are cut out, in pixels
    of the pictures that will be read. Raises InvalidWeights."""
    tensors = plain(read_tensors(path)[0])
    config = sizes(tensors, path)
    network = BagOfChannels(config)
    fit(network.vit, tensors, path)
    card: dict[str, Any] = {
        "engine": engine,
        "network": as_table(config),
        "crops": as_table(crops or CropConfig()),
        "channels": [],
        "reading": as_table(EmbedderConfig(engine)),
        "objective": "published",
        "parameters": n_parameters(network),
        "training": {"steps": 0, "published": path.name, "published_sha256": file_hash(path)},
    }
    save_folder(out, network, card)
    return config
