"""Weights both ways between diffusers' `UNet2DConditionModel` and MONAI's `DiffusionModelUNet`, which the paper used.

The two hold the same tensors under other names. They differ in one number: MONAI gives every group norm the same
epsilon, diffusers gives the norm before a transformer 1e-6 and every other its `norm_eps`; it is carried over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ldm.unet import UNetConfig, UNetError, build_unet

if TYPE_CHECKING:
    from monai.networks.nets import DiffusionModelUNet

# diffusers' name -> MONAI's, applied in this order
_NAMES = (
    (r"^conv_in\.", "conv_in.conv."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2.conv."),
    (r"^mid_block\.resnets\.0\.", "middle_block.resnet_1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.resnet_2."),
    (r"^mid_block\.attentions\.0\.", "middle_block.attention."),
    (r"\.downsamplers\.0\.conv\.", ".downsampler.op.conv."),
    (r"\.upsamplers\.0\.conv\.", ".upsampler.postconv.conv."),
    (r"\.conv_shortcut\.", ".skip_connection.conv."),
    (r"\.(conv1|conv2|proj_in|proj_out)\.", r".\1.conv."),
    (r"\.to_out\.0\.", ".out_proj."),
    (r"\.ff\.net\.0\.proj\.", ".ff.linear1."),
    (r"\.ff\.net\.2\.", ".ff.linear2."),
)
_TRANSFORMER_EPS = 1e-6  # of diffusers' Transformer2DModel, not configurable


def monai_name(name: str) -> str:
    """MONAI's name of a tensor that diffusers calls `name`."""
    for pattern, other in _NAMES:
        name = re.sub(pattern, other, name)
    return name


def _checked(config: UNetConfig) -> UNetConfig:
    if config.pooled or config.scale_shift:
        raise UNetError(
            f"U-Net: got pooled {config.pooled}, scale_shift {config.scale_shift}, expected 0 and false: MONAI's "
            "network has neither; exchange the paper's U-Net (configs/ldm/jump.toml)"
        )
    return config


def monai_unet(config: UNetConfig) -> DiffusionModelUNet:
    """An untrained MONAI network of this size. Raises UNetError for a pooled condition or scale and shift."""
    from monai.networks.nets import DiffusionModelUNet

    _checked(config)
    return DiffusionModelUNet(
        spatial_dims=2,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        num_res_blocks=(config.layers,) * len(config.widths),
        channels=config.widths,
        attention_levels=tuple(level in config.attention for level in range(len(config.widths))),
        norm_num_groups=config.norm_groups,
        num_head_channels=(config.head_width,) * len(config.widths),
        with_conditioning=True,
        cross_attention_dim=config.token_width,
    )


def _load(target: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    own = target.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) or sorted(n for n in own if own[n].shape != tensors[n].shape)
    if wrong:
        raise UNetError(
            f"weights: {what} does not fit at {wrong[0]} ({len(wrong)} tensors); give the sizes that it was made with"
        )
    target.load_state_dict(tensors)


def _set_eps(module: nn.Module, plain: float, transformer: float) -> None:
    """Epsilon of every group norm; `transformer` for those before a transformer, whose module is called `norm`."""
    for name, part in module.named_modules():
        if isinstance(part, nn.GroupNorm):
            part.eps = transformer if name.endswith(".norm") else plain


@torch.no_grad()
def to_monai(unet: UNet2DConditionModel, config: UNetConfig) -> DiffusionModelUNet:
    """A MONAI network with the weights of `unet`, whose output is the same (measured: below 1e-5).

    Call it as `net(x, timesteps=t, context=tokens)`. Raises UNetError when the sizes are not those of `config`, or when
    MONAI has no such network.
    """
    net = monai_unet(config)
    _load(net, {monai_name(name): tensor for name, tensor in unet.state_dict().items()}, "the diffusers network")
    _set_eps(net, float(unet.config["norm_eps"]), _TRANSFORMER_EPS)
    return net


@torch.no_grad()
def from_monai(net: DiffusionModelUNet | dict[str, Tensor], config: UNetConfig) -> UNet2DConditionModel:
    """A diffusers network with the weights of a MONAI network, or of its state dictionary (then with MONAI's default
    epsilon 1e-6), whose output is the same (measured: below 1e-5).

    Raises UNetError when the sizes are not those of `config`.
    """
    unet = build_unet(_checked(config))
    state = net if isinstance(net, dict) else net.state_dict()
    names: dict[str, str] = {monai_name(name): name for name in unet.state_dict()}
    _load(unet, {names.get(name, name): tensor for name, tensor in state.items()}, "the MONAI network")
    eps = 1e-6 if isinstance(net, dict) else float(net.out[0].eps)
    unet.register_to_config(norm_eps=eps)
    _set_eps(unet, eps, _TRANSFORMER_EPS)
    return unet
