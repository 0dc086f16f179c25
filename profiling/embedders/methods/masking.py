"""MAE: most patches are hidden and predicted from the rest; ChA-MAEViT: whole channels too, with labels beside.

ChA-MAEViT (Pham et al. 2025): dynamic channel-patch masking, memory tokens, a decoder that knows the channels, and a
fused token (the class token plus an attention-pooled mean of the patch tokens) that is to name the label. Its loss is
`supervised` times cross-entropy plus 1 - `supervised` times the reconstruction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from profiling.embedders.augment import Augmentation, view
from profiling.embedders.data import stacked
from profiling.embedders.methods.method import Batch, Method, Sources, choose_channels, torch_generator
from profiling.embedders.networks.build import Encoder, MultiChannel
from profiling.embedders.networks.vit import Block, initialise
from profiling.embedders.objectives.masked import channel_patch_mask, masked_loss, patchify
from profiling.embedders.recipe import InvalidRecipe


@dataclass(frozen=True)
class MaskingConfig:
    """`kind`: "mae" or "cha_mae". `share`: of the patches hidden; `channel_share`: of the pictures that have whole
    channels hidden instead. `normalised`: patches are predicted with their own mean and deviation taken out."""

    kind: str = "mae"
    share: float = 0.75
    channel_share: float = 0.0
    decoder_dim: int = 64
    decoder_depth: int = 2
    decoder_heads: int = 4
    normalised: bool = True
    supervised: float = 0.0
    label: tuple[str, ...] = ("compound",)
    area: tuple[float, ...] = (0.5, 1.0)
    augmentation: Augmentation = field(init=False)

    def __post_init__(self) -> None:
        if not (0.0 < self.share < 1.0 and 0.0 <= self.channel_share <= 1.0 and 0.0 <= self.supervised < 1.0):
            raise InvalidRecipe(
                f"objective: share {self.share}, channel_share {self.channel_share}, supervised {self.supervised}; "
                "expected shares between 0 and 1"
            )
        object.__setattr__(self, "augmentation", Augmentation(self.area))


class Decoder(nn.Module):
    """Tokens of the visible patches and a learned one for each hidden patch, with positions and channels, to pixels."""

    def __init__(self, dim: int, n: int, names: int, patch: int, config: MaskingConfig) -> None:
        super().__init__()
        inner = config.decoder_dim
        self.embed = nn.Linear(dim, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, n, inner))
        self.channel_embed = nn.Parameter(torch.zeros(names + 1, inner))
        self.blocks = nn.ModuleList(Block(inner, config.decoder_heads, 4.0) for _ in range(config.decoder_depth))
        self.norm = nn.LayerNorm(inner, eps=1e-6)
        self.pixels = nn.Linear(inner, patch * patch)
        initialise(self)
        for learned in (self.mask_token, self.pos_embed, self.channel_embed):
            nn.init.trunc_normal_(learned, std=0.02)

    def forward(
        self,
        front: Float[Tensor, "b k d"],
        visible: Float[Tensor, "b v d"],
        order: Tensor,
        index: Tensor,
        seen: Bool[Tensor, "b v"],
    ) -> Float[Tensor, "b c n q"]:
        """`order` [b, c n]: the place of every token in (visible, hidden); `index` [c]: the channels, -1 unnamed;
        `seen`: which of the visible ones are no padding."""
        b, v = visible.shape[:2]
        n, c = self.pos_embed.shape[2], len(index)
        hidden = self.mask_token.expand(b, c * n - v, -1)
        shown = torch.where(seen[:, :, None], self.embed(visible), self.mask_token)
        tokens = torch.cat([shown, hidden], dim=1)
        tokens = torch.gather(tokens, 1, order[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = tokens + (self.pos_embed + self.channel_embed[index][None, :, None]).flatten(1, 2)
        start = front.shape[1]
        tokens = torch.cat([self.embed(front), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.pixels(self.norm(tokens)[:, start:]).reshape(b, c, n, -1)


class Fusion(nn.Module):
    """Hybrid token: the class token plus patch tokens, each weighted by how well it answers a learned question."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.question = nn.Linear(dim, 1)

    def forward(
        self, first: Float[Tensor, "b d"], patches: Float[Tensor, "b v d"], seen: Bool[Tensor, "b v"]
    ) -> Float[Tensor, "b d"]:
        """One token a picture."""
        weight = torch.softmax(self.question(patches).masked_fill(~seen[:, :, None], float("-inf")), dim=1)
        return first + (weight * patches).sum(dim=1)


class MaskingMethod(Method):
    """Encoder, decoder and, with labels, the fused token's classifier; the encoder is kept."""

    def __init__(self, encoder: Encoder, config: MaskingConfig, sources: Sources, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.encoder = encoder
        vit = encoder.vit
        names = len(encoder.vit.names) if isinstance(encoder, MultiChannel) else 0
        n = (size // vit.config.patch) ** 2
        self.decoder = Decoder(vit.dim, n, names, vit.config.patch, config)
        self.labels = sources.data.codes(*config.label) if config.supervised else None
        count = 0 if self.labels is None else int(self.labels.max()) + 1
        self.fusion = Fusion(vit.dim) if count else None
        self.classifier = nn.Linear(vit.dim, count) if count else None

    def batch(self, sources: Sources, b: int, rng: np.random.Generator) -> tuple[Batch, tuple[str, ...]]:
        """Views, and which of their patches are hidden [b, c, n]; labels where they take part."""
        rows = sources.pick(b, rng)
        own, channels = choose_channels(sources.data, len(rows), self.encoder, rng)
        x = stacked(sources.data, rows, own)
        centres, sides = sources.draw(rows, rng)
        views = view(x, centres, sides, self.size, self.config.augmentation, rng)
        n = self.decoder.pos_embed.shape[2]
        generator = torch_generator(rng)
        share = self.config.channel_share
        out: Batch = {
            "views": views,
            "hidden": channel_patch_mask(b, views.shape[1], n, self.config.share, share, generator),
        }
        if self.labels is not None:
            out["labels"] = torch.from_numpy(self.labels[rows])
        return out, channels

    def forward(self, batch: Batch, channels: tuple[str, ...], fraction: float) -> dict[str, Tensor]:
        """Reconstruction of the hidden patches, and the label."""
        del fraction
        x, hidden = batch["views"], batch["hidden"]
        front, tokens, order, index, seen = self.encoded(x, hidden, channels)
        pixels = patchify(x, self.encoder.vit.config.patch)
        said = self.decoder(front, tokens, order, index, seen)
        parts = {"reconstruction": masked_loss(said, pixels, hidden, self.config.normalised)}
        loss = parts["reconstruction"]
        if self.fusion is not None and self.classifier is not None:
            fused = self.fusion(front[:, 0], tokens, seen)
            parts["label"] = F.cross_entropy(self.classifier(fused), batch["labels"])
            loss = (1.0 - self.config.supervised) * loss + self.config.supervised * parts["label"]
        return {"loss": loss, **parts}

    def encoded(
        self, x: Float[Tensor, "b c h w"], hidden: Bool[Tensor, "b c n"], channels: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Front tokens, tokens of visible patches [b, v, d] (rows with fewer are padded, and the padding is not looked
        at), the place of every token among (visible, hidden), the channels, and which of the v are real."""
        b, c = x.shape[:2]
        vit = self.encoder.vit
        if isinstance(self.encoder, MultiChannel):
            index = self.encoder.vit.index(channels).to(x.device)
            patches = self.encoder.vit.patches(x, index).flatten(1, 2)
            front = self.encoder.vit.front(b)
        else:
            index = torch.zeros(c, dtype=torch.long, device=x.device)
            patches, first = vit.patches(x)
            front = first.expand(b, -1, -1)
        flat = hidden.flatten(1)
        visible = (~flat).sum(dim=1)
        v = int(visible.max())
        places = flat.to(torch.int8).argsort(dim=1, stable=True)  # visible ones first, in their order
        kept = torch.gather(patches, 1, places[:, :v, None].expand(-1, -1, patches.shape[2]))
        seen = torch.arange(v, device=x.device)[None] < visible[:, None]
        allowed = torch.cat([torch.ones(b, front.shape[1], dtype=torch.bool, device=x.device), seen], dim=1)
        tokens = torch.cat([front, kept], dim=1)
        for block in vit.blocks:
            tokens = block(tokens, allowed)
        tokens = vit.norm(tokens)
        start = front.shape[1]
        order = places.argsort(dim=1)
        return tokens[:, :start], tokens[:, start:], order, index, seen
