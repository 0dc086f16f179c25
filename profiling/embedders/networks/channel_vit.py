"""Multi-channel attention: tokens of all channels in one sequence (ChannelViT, Bao et al. 2024, arXiv 2309.16108).

Every channel goes through one patch embedding (of one input channel); a learned embedding of its name, the same for
all patches, says which channel a token is of. Positions are shared. Channels that a picture lacks are masked out of
the attention, so batches may mix channel combinations. A channel without an embedding of its own (never trained on)
gets the mean of the known ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from profiling.embedders.networks.vit import Block, PatchEmbed, VitConfig, grid_positions, initialise


class ChannelVit(nn.Module):
    """Pictures [b, c, s, s] with named channels to tokens [b, 1 + memory + c n, dim]; the first is the class token."""

    def __init__(self, config: VitConfig, names: Sequence[str], memory: int = 0) -> None:
        super().__init__()
        self.config, self.names, self.memory = config, tuple(names), memory
        n = (config.image // config.patch) ** 2
        self.patch_embed = PatchEmbed(config.patch, 1, config.dim)
        self.channel_embed = nn.Parameter(torch.zeros(len(self.names), config.dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.memory_tokens = nn.Parameter(torch.zeros(1, memory, config.dim)) if memory else None
        self.pos_embed = nn.Parameter(torch.zeros(1, n + 1, config.dim))
        drops = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.mlp, drop) for drop in drops)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        initialise(self)
        for learned in (self.cls_token, self.pos_embed, self.channel_embed, self.memory_tokens):
            if learned is not None:
                nn.init.trunc_normal_(learned, std=0.02)

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.config.dim

    def index(self, channels: Sequence[str]) -> Int[Tensor, " c"]:
        """Positions of channels among the known names; -1 for a name never trained on."""
        known = {name: i for i, name in enumerate(self.names)}
        return torch.tensor([known.get(name, -1) for name in channels])

    def patches(self, x: Float[Tensor, "b c h w"], index: Int[Tensor, " c"]) -> Float[Tensor, "b c n d"]:
        """Tokens of every channel with channel and position embeddings."""
        b, c, h, w = x.shape
        p = self.config.patch
        positions = grid_positions(self.pos_embed, h // p, w // p)[:, 1:]
        named = torch.cat([self.channel_embed, self.channel_embed.mean(dim=0, keepdim=True)])[index]
        tokens = self.patch_embed(x.reshape(b * c, 1, h, w)).reshape(b, c, -1, self.dim)
        return tokens + positions[:, None] + named[None, :, None]

    def front(self, b: int) -> Float[Tensor, "b k d"]:
        """Class token with its position, and the memory tokens."""
        first = self.cls_token + self.pos_embed[:, :1]
        whole = first if self.memory_tokens is None else torch.cat([first, self.memory_tokens], dim=1)
        return whole.expand(b, -1, -1)

    def run(self, tokens: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """The blocks and the last norm."""
        for block in self.blocks:
            tokens = block(tokens, allowed)
        return self.norm(tokens)

    def forward(
        self, x: Float[Tensor, "b c h w"], index: Int[Tensor, " c"], present: Bool[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b m d"]:
        """`present`: which channels each picture has; None: all. What an absent channel holds changes nothing in the
        class token, the memory and the tokens of the present channels."""
        patches = self.patches(x, index)
        b, c, n, _ = patches.shape
        front = self.front(b)
        allowed = None
        if present is not None:
            always = torch.ones(b, front.shape[1], dtype=torch.bool, device=x.device)
            allowed = torch.cat([always, present[:, :, None].expand(b, c, n).reshape(b, c * n)], dim=1)
        return self.run(torch.cat([front, patches.flatten(1, 2)], dim=1), allowed)
