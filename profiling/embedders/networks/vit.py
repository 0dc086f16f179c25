"""A vision transformer (Dosovitskiy et al. 2021), with the parameter names of DINO's and timm's.

Patches of `patch` pixels become tokens; a learned class token goes in front; positions are learned on the grid of
`image` pixels and interpolated for other sizes (DINO's local crops).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class VitConfig:
    """Sizes. `image`: pixels a side that the positions are learned for; `drop_path`: the share of the residual
    branches of the last block that are left out of a training step, rising linearly from 0 at the first.
    """

    image: int = 64
    patch: int = 8
    dim: int = 128
    depth: int = 5
    heads: int = 4
    mlp: float = 4.0
    channels: int = 1
    drop_path: float = 0.0


class Attention(nn.Module):
    """Multi-head self-attention: softmax(q kᵀ / √d) v over the tokens of one picture."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "3 b h n e"]:
        """Queries, keys and values by head."""
        b, n, d = x.shape
        return self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)

    def forward(self, x: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """`allowed`: tokens that may be looked at; None: all."""
        q, k, v = self.split(x)
        mask = None if allowed is None else allowed[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(y.transpose(1, 2).reshape(x.shape))

    def weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"]:
        """What each token looks at: rows sum to 1."""
        q, k, _ = self.split(x)
        return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Token by token."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x). In training a row's branches are left out with probability `drop`
    and the others scaled by 1 / (1 - drop)."""

    def __init__(self, dim: int, heads: int, mlp: float, drop: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp))
        self.drop = drop

    def _kept(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        if not self.training or self.drop == 0.0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * keep / (1.0 - self.drop)

    def forward(self, x: Float[Tensor, "b n d"], allowed: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """Tokens to tokens of one picture."""
        x = x + self._kept(self.attn(self.norm1(x), allowed))
        return x + self._kept(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patches to tokens: a convolution with stride equal to its side."""

    def __init__(self, patch: int, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Row by row of the grid."""
        return self.proj(x).flatten(2).transpose(1, 2)


def initialise(module: nn.Module) -> None:
    """Linear weights by Glorot's rule, biases 0, as in MAE: DINO's N(0, 0.02²) is for widths of 384 and more; below 200
    a picture would hardly move its class token."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def grid_positions(learned: Float[Tensor, "1 n d"], height: int, width: int, extra: int = 1) -> Float[Tensor, "1 m d"]:
    """Learned positions (the first `extra` are not on the grid) brought to a grid of height x width, bicubic."""
    front, grid = learned[:, :extra], learned[:, extra:]
    side = math.isqrt(grid.shape[1])
    if (height, width) == (side, side):
        return learned
    square = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=(height, width), mode="bicubic", align_corners=False)
    return torch.cat([front, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class VisionTransformer(nn.Module):
    """Pictures [b, channels, s, s] to tokens [b, 1 + n, dim]; the first is the class token, the vector of a picture."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        n = (config.image // config.patch) ** 2
        self.patch_embed = PatchEmbed(config.patch, config.channels, config.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, n + 1, config.dim))
        drops = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.mlp, drop) for drop in drops)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        initialise(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.config.dim

    def patches(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "1 1 d"]]:
        """Patch tokens with their positions, and the class token with its own."""
        p = self.config.patch
        positions = grid_positions(self.pos_embed, x.shape[-2] // p, x.shape[-1] // p)
        return self.patch_embed(x) + positions[:, 1:], self.cls_token + positions[:, :1]

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m d"]:
        """All tokens after the last norm."""
        patches, front = self.patches(x)
        tokens = torch.cat([front.expand(len(x), -1, -1), patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def last_attention(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b heads n"], Float[Tensor, "b n d"]]:
        """What the class token looks at in the last block, by head over the patches, and the patches' keys there (the
        features that LOST and FOUND read)."""
        patches, front = self.patches(x)
        tokens = torch.cat([front.expand(len(x), -1, -1), patches], dim=1)
        for block in list(self.blocks)[:-1]:
            tokens = block(tokens)
        last = self.blocks[-1]
        assert isinstance(last, Block)
        inner = last.norm1(tokens)
        keys = last.attn.split(inner)[1].transpose(1, 2).flatten(2)
        return last.attn.weights(inner)[:, :, 0, 1:], keys[:, 1:]
