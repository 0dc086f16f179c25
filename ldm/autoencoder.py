"""One AutoencoderKL for three-channel groups; the latents of all groups concatenated and normalised.

Scale and shift of the latents are numbers stored in the autoencoder's config.json: per latent channel
(`latents_mean`, `latents_std`), or one `scaling_factor` as in the SDXL autoencoder (0.13025), when no per-channel
numbers are stored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from ldm.channels import ChannelGroups, from_groups, to_groups

CHANNELS_FILE = "channels.json"


class AutoencoderError(ValueError):
    """Raised when an autoencoder folder is missing or does not fit the pictures."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Size of the network. widths: channels of each level, each level but the last halves the picture (four
    levels: 8 times smaller).
    """

    channels: tuple[str, ...] = ("DNA", "ER", "RNA", "AGP", "Mito")
    widths: tuple[int, ...] = (16, 32, 64, 96)
    layers_per_block: int = 1
    latent_channels: int = 8
    norm_groups: int = 8
    mid_attention: bool = False


def build_network(config: AutoencoderConfig) -> AutoencoderKL:
    """An untrained AutoencoderKL with three channels in and out."""
    levels = len(config.widths)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        mid_block_add_attention=config.mid_attention,
        scaling_factor=1.0,
    )


class GroupAutoencoder:
    """Pictures [b, c, h, w] in [-1, 1] to normalised latents [b, groups * latent_channels, h / f, w / f] and back.

    vae: the network for three-channel groups. channels: names and groups. The latents of group 0 come first. small: a
    distilled decoder (ldm.small_decoder) that decodes in place of the network's own.
    """

    def __init__(self, vae: AutoencoderKL, channels: ChannelGroups, small: nn.Module | None = None) -> None:
        self.vae = vae
        self.channels = channels
        self.small = small

    @property
    def latent_channels(self) -> int:
        """Latent channels of all groups together."""
        return int(self.vae.config["latent_channels"]) * len(self.channels.groups)

    @property
    def factor(self) -> int:
        """How many times smaller a latent is on each side."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def scale(self) -> tuple[Float[Tensor, "1 z 1 1"], Float[Tensor, "1 z 1 1"]]:
        """Mean and sd by which raw latents are normalised, float32 [1, latent_channels, 1, 1]."""
        mean, sd = self.vae.config["latents_mean"], self.vae.config["latents_std"]
        if mean is None or sd is None:
            mean, sd = (
                [0.0] * self.latent_channels,
                [1.0 / float(self.vae.config["scaling_factor"])] * self.latent_channels,
            )
        if len(mean) != self.latent_channels:
            raise AutoencoderError(
                f"latents_mean: got {len(mean)} numbers, expected {self.latent_channels} (groups x latent channels); "
                "measure the scale again"
            )
        return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(sd).view(1, -1, 1, 1)

    def encode_raw(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z y x"]:
        """Posterior means of all groups, concatenated, not normalised."""
        if pictures.shape[-1] % self.factor or pictures.shape[-2] % self.factor:
            raise AutoencoderError(
                f"pictures: got sides {tuple(pictures.shape[-2:])}, expected multiples of {self.factor}; crop or pad "
                "them"
            )
        grouped = to_groups(pictures, self.channels)
        flat = grouped.flatten(0, 1)
        mean = self.vae.encode(flat).latent_dist.mode()
        return mean.unflatten(0, (pictures.shape[0], -1)).flatten(1, 2)

    def encode(self, pictures: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z y x"]:
        """Normalised latents, about mean 0 and sd 1 in every latent channel."""
        mean, sd = self.scale()
        raw = self.encode_raw(pictures)
        return (raw - mean.to(raw)) / sd.to(raw)

    def decode(self, latents: Float[Tensor, "b z y x"]) -> Float[Tensor, "b c h w"]:
        """Pictures of normalised latents; a channel that stands in two groups is the average of both. Not clipped."""
        if self.small is not None:
            decoded: Tensor = self.small(latents)
            return decoded
        mean, sd = self.scale()
        raw = latents * sd.to(latents) + mean.to(latents)
        flat = raw.unflatten(1, (len(self.channels.groups), -1)).flatten(0, 1)
        grouped = self.vae.decode(flat).sample.unflatten(0, (latents.shape[0], -1))
        return from_groups(grouped, self.channels)

    def store_scale(self, mean: Float[Tensor, " z"], sd: Float[Tensor, " z"]) -> None:
        """Keep the normalising numbers in the autoencoder's configuration, so that they are saved with it."""
        self.vae.register_to_config(latents_mean=[float(x) for x in mean], latents_std=[float(x) for x in sd])

    def save(self, folder: Path) -> None:
        """Write config.json, safetensors weights and channels.json into `folder`."""
        self.vae.save_pretrained(folder, safe_serialization=True)
        (folder / CHANNELS_FILE).write_text(
            json.dumps({"names": self.channels.names, "groups": self.channels.groups}, indent=2) + "\n",
            encoding="utf-8",
        )

    @classmethod
    def load(cls, folder: Path) -> GroupAutoencoder:
        """Read what `save` wrote; weights are computed with in float32 whatever they are stored in.

        Raises AutoencoderError when the folder has no autoencoder.
        """
        if not (folder / "config.json").is_file():
            raise AutoencoderError(
                f"autoencoder: {folder} has no config.json; train one with dopaint train "
                "configs/ldm/small_autoencoder.toml, or give its folder"
            )
        named = folder / CHANNELS_FILE
        channels = ChannelGroups()
        if named.is_file():
            content = json.loads(named.read_text(encoding="utf-8"))
            channels = ChannelGroups(tuple(content["names"]), tuple(tuple(group) for group in content["groups"]))
        vae = AutoencoderKL.from_pretrained(
            folder, use_safetensors=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )
        vae.eval().requires_grad_(False)
        return cls(vae, channels)
