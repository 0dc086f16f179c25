"""From a recipe's `[network]` to an encoder: bag of channels, or attention among the channels.

Bag of channels: one network reads each channel by itself, and the features of a picture are those of its channels side
by side, in the order of the channels' names; so any combination of channels can be read. Multi-channel attention: one
vector a picture, whatever its channels (`channel_vit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from profiling.embedders.networks.channel_vit import ChannelVit
from profiling.embedders.networks.vit import VisionTransformer, VitConfig
from profiling.embedders.recipe import InvalidRecipe

KINDS = ("boc", "mca")


@dataclass(frozen=True)
class NetworkConfig:
    """`kind`: "boc" (bag of channels) or "mca" (multi-channel attention). `memory`: memory tokens of ChA-MAEViT."""

    kind: str = "boc"
    image: int = 64
    patch: int = 8
    dim: int = 128
    depth: int = 5
    heads: int = 4
    mlp: float = 4.0
    drop_path: float = 0.0
    memory: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidRecipe(f"network: kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.image % self.patch or self.dim % self.heads:
            raise InvalidRecipe(
                f"network: image {self.image} and dim {self.dim} must be multiples of patch {self.patch} and heads "
                f"{self.heads}; change them"
            )

    @property
    def vit(self) -> VitConfig:
        """The transformer's part."""
        return VitConfig(self.image, self.patch, self.dim, self.depth, self.heads, self.mlp, 1, self.drop_path)


class BagOfChannels(nn.Module):
    """One transformer, channel by channel."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.vit = VisionTransformer(config.vit)

    def width(self, channels: Sequence[str]) -> int:
        """Features of a picture with these channels."""
        return len(channels) * self.vit.dim

    def embed(self, x: Float[Tensor, "b c h w"], channels: Sequence[str]) -> Float[Tensor, "b k"]:
        """Class tokens of all channels, in the order of the channels' names."""
        order = sorted(range(len(channels)), key=lambda i: channels[i])
        b, c = x.shape[:2]
        tokens = self.vit(x[:, order].reshape(b * c, 1, *x.shape[2:]))
        return tokens[:, 0].reshape(b, -1)


class MultiChannel(nn.Module):
    """One transformer over the tokens of all channels."""

    def __init__(self, config: NetworkConfig, names: Sequence[str]) -> None:
        super().__init__()
        self.vit = ChannelVit(config.vit, names, config.memory)

    def width(self, channels: Sequence[str]) -> int:
        """Features of a picture, whatever its channels."""
        del channels
        return self.vit.dim

    def embed(
        self, x: Float[Tensor, "b c h w"], channels: Sequence[str], present: Bool[Tensor, "b c"] | None = None
    ) -> Float[Tensor, "b k"]:
        """The class token."""
        return self.vit(x, self.vit.index(channels).to(x.device), present)[:, 0]


Encoder = BagOfChannels | MultiChannel


def build_encoder(config: NetworkConfig, names: Sequence[str]) -> Encoder:
    """`names`: the channels trained on, which attention among channels has embeddings for."""
    return BagOfChannels(config) if config.kind == "boc" else MultiChannel(config, sorted(names))


def n_parameters(module: nn.Module) -> int:
    """Numbers that training sets."""
    return sum(p.numel() for p in module.parameters())
