"""Do the parts of a claim fit together: the recipe's network, the autoencoder, the pictures and the warm start?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ldm.channels import ChannelGroups
from ldm.prepare import ConditionConfig
from ldm.unet import UNetConfig
from service.claim.config import Claim
from service.errors import InvalidRequest

#: Field of the recipe -> what diffusers calls it in a network's config.json.
UNET = {
    "latent_size": "sample_size",
    "latent_channels": "in_channels",
    "widths": "block_out_channels",
    "layers": "layers_per_block",
    "norm_groups": "norm_num_groups",
    "token_width": "cross_attention_dim",
    "pooled": "projection_class_embeddings_input_dim",
}
CONDITION = ("hidden", "compound_tokens", "fourier")


def check_sizes(claim: Claim, unet: UNetConfig, condition: ConditionConfig) -> None:
    """Raise InvalidRequest, saying which number of the recipe is to be changed to what, unless all fit."""
    vae = _read(claim.autoencoder / "config.json")
    groups = ChannelGroups().groups
    named = claim.autoencoder / "channels.json"
    if named.is_file():
        groups = tuple(tuple(group) for group in _read(named)["groups"])
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    wanted: dict[str, Any] = {
        "latent_channels": vae["latent_channels"] * len(groups),
        "latent_size": claim.config.size // factor,
    }
    if claim.warm_start is not None:
        trained = _read(claim.warm_start / "unet" / "config.json")
        wanted |= {ours: trained[theirs] or 0 for ours, theirs in UNET.items()}
        wanted |= {name: _read(claim.warm_start / "condition" / "config.json")[name] for name in CONDITION}
    for name, value in wanted.items():
        own = getattr(condition if name in CONDITION else unet, name)
        if (list(own) if isinstance(own, tuple) else own) != value:
            raise InvalidRequest(
                f"recipe: {claim.recipes['aware'].name} has {name} = {own}, the autoencoder or the model that it "
                f"starts from has {value}: write that into the recipe"
            )


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
