"""Keys and values of the cross-attention, computed once a picture instead of once a step.

The condition tokens of a row do not change while it is painted, so neither do the keys and values that each
cross-attention makes of them. The numbers are the same: a product that was computed is taken again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class CachedCrossAttention:
    """diffusers' attention processor with scaled_dot_product_attention, which keeps keys and values of each tensor of
    tokens. Tokens are told apart by identity, and kept alive, so that no new tensor can take their place.
    """

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        tokens = encoder_hidden_states
        if tokens is None or attention_mask is not None:
            raise ValueError("cached attention: got no tokens or a mask, expected cross-attention to unmasked tokens")
        b = len(hidden_states)
        query = attn.to_q(hidden_states)
        width = query.shape[-1] // attn.heads
        if id(tokens) not in self.kept:
            key, value = (
                part(tokens).view(b, -1, attn.heads, width).transpose(1, 2) for part in (attn.to_k, attn.to_v)
            )
            self.kept[id(tokens)] = (tokens, key, value)
        _, key, value = self.kept[id(tokens)]
        query = query.view(b, -1, attn.heads, width).transpose(1, 2)
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(b, -1, attn.heads * width)
        out: Tensor = attn.to_out[1](attn.to_out[0](found.to(query.dtype))) / attn.rescale_output_factor
        return out


@contextmanager
def cached_attention(unet: nn.Module) -> Iterator[None]:
    """Within it every cross-attention of a diffusers U-Net keeps keys and values; they are dropped at the end."""
    before: dict[str, Any] = dict(unet.attn_processors)  # type: ignore[arg-type]
    ours = {name: CachedCrossAttention() if name.endswith("attn2.processor") else one for name, one in before.items()}
    unet.set_attn_processor(dict(ours))  # type: ignore[operator]
    try:
        yield
    finally:
        unet.set_attn_processor(before)  # type: ignore[operator]
