"""How much arithmetic a network does: floating-point operations of one call, counted on shapes alone (no memory, no
weights), two for each multiply-add, matrix products, convolutions and attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(call: Callable[[], object]) -> int:
    """FLOP of `call`, whose tensors may all be on the meta device."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def unet_flops(unet: nn.Module, batch: int = 1, tokens: int = 5) -> int:
    """FLOP of one step of a diffusers U-Net on the meta device, for `batch` latents of its sample size."""
    config = unet.config
    side, depth = int(config["sample_size"]), int(config["in_channels"])  # type: ignore[index]
    meta = torch.device("meta")
    x, t = torch.empty(batch, depth, side, side, device=meta), torch.zeros(batch, device=meta)
    told = torch.empty(batch, tokens, int(config["cross_attention_dim"]), device=meta)  # type: ignore[index]
    pooled = config["projection_class_embeddings_input_dim"]  # type: ignore[index]
    labels = torch.empty(batch, int(pooled), device=meta) if pooled else None
    return flops(lambda: unet(x, t, encoder_hidden_states=told, class_labels=labels, return_dict=False))


def decoder_flops(decode: Callable[[Tensor], object], latent: tuple[int, ...]) -> int:
    """FLOP of decoding one latent [z, y, x] on the meta device."""
    return flops(lambda: decode(torch.empty(1, *latent, device="meta")))
