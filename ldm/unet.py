"""The paper's U-Net and the small one, both diffusers' `UNet2DConditionModel`.

The paper: three levels 256/512/768, two residual blocks each, attention on the two deepest, 260.0 M parameters with
768-wide tokens. The small one is chosen for capacity a second on two CPU cores: at 16 x 16 latents convolutions are
cheap where the channels are many and the picture small, and attention above the middle block costs more than it
gives; the condition also enters every residual block through the pooled vector (scale and shift).
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from ldm.condition import ConditionEncoder, Conditions


class UNetError(ValueError):
    """Raised when the sizes of a U-Net do not fit together."""


@dataclass(frozen=True)
class UNetConfig:
    """Size of the network.

    latent_size: side of a latent. latent_channels: in and out. widths: channels of each level. layers: residual
    blocks a level. attention: levels (0 = largest picture) with transformer blocks beside the middle block, which
    always has one. token_width: width of the condition tokens. pooled: width of the pooled condition that is added to
    the time embedding, 0 for none. scale_shift: let the embedding scale and shift (True) or only shift (False) each
    residual block.
    """

    latent_size: int = 16
    latent_channels: int = 16
    widths: tuple[int, ...] = (64, 128, 256)
    layers: int = 1
    attention: tuple[int, ...] = ()
    head_width: int = 32
    norm_groups: int = 16
    token_width: int = 128
    pooled: int = 256
    scale_shift: bool = True


PAPER = UNetConfig(
    latent_size=48,
    latent_channels=8,
    widths=(256, 512, 768),
    layers=2,
    attention=(1, 2),
    head_width=64,
    norm_groups=32,
    token_width=768,
    pooled=0,
    scale_shift=False,
)
PAPER_PARAMETERS = 259_990_024


def build_unet(config: UNetConfig) -> UNet2DConditionModel:
    """An untrained U-Net. Raises UNetError when an attention level does not exist or a width is no multiple of the
    head width or norm groups.
    """
    levels = range(len(config.widths))
    if any(level not in levels for level in config.attention):
        raise UNetError(
            f"attention: got levels {config.attention}, expected levels 0 to {len(config.widths) - 1}; correct the "
            "configuration"
        )
    if any(width % config.norm_groups or width % config.head_width for width in config.widths):
        raise UNetError(
            f"widths: got {config.widths}, expected multiples of head_width {config.head_width} and norm_groups "
            f"{config.norm_groups}; correct the configuration"
        )
    down = tuple("CrossAttnDownBlock2D" if level in config.attention else "DownBlock2D" for level in levels)
    up = tuple("CrossAttnUpBlock2D" if level in config.attention else "UpBlock2D" for level in reversed(levels))
    heads = tuple(width // config.head_width for width in config.widths)
    return UNet2DConditionModel(
        sample_size=config.latent_size,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        norm_num_groups=config.norm_groups,
        cross_attention_dim=config.token_width,
        # diffusers reads the number of heads from this argument when num_attention_heads is not given
        attention_head_dim=heads,
        class_embed_type="simple_projection" if config.pooled else None,
        projection_class_embeddings_input_dim=config.pooled or None,
        resnet_time_scale_shift="scale_shift" if config.scale_shift else "default",
    )


def n_parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def predict(
    unet: nn.Module,
    xt: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    tokens: Float[Tensor, "b n e"],
    pooled: Float[Tensor, "b p"],
) -> Float[Tensor, "b c h w"]:
    """The velocity that the network predicts; networks without a pooled input get the tokens only."""
    takes_pooled = unet.config["class_embed_type"] is not None  # type: ignore[index]
    result = unet(xt, t, encoder_hidden_states=tokens, class_labels=pooled if takes_pooled else None, return_dict=False)
    velocity: Tensor = result[0]
    return velocity


class Denoiser(nn.Module):
    """U-Net, condition encoder and a throw-away linear head that reads latent statistics from the pooled
    condition, as one module for training.
    """

    def __init__(self, unet: UNet2DConditionModel, condition: ConditionEncoder, n_statistics: int) -> None:
        super().__init__()
        self.unet, self.condition = unet, condition
        self.head = nn.Linear(int(condition.config["pooled"]), n_statistics)

    def statistics(self, conditions: Conditions) -> Float[Tensor, "b s"]:
        """Expected standardised latent statistics of pictures under these conditions; the U-Net is not run."""
        _, pooled = self.condition(conditions)
        predicted: Tensor = self.head(pooled)
        return predicted

    def forward(
        self, xt: Float[Tensor, "b c h w"] | None, t: Int[Tensor, " b"] | None, conditions: Conditions
    ) -> tuple[Float[Tensor, "b c h w"] | None, Float[Tensor, "b s"]]:
        """Velocity, and the statistics that the head reads from the same pooled vector; without xt and t the U-Net
        is not run.
        """
        tokens, pooled = self.condition(conditions)
        if xt is None or t is None:
            return None, self.head(pooled)
        return predict(self.unet, xt, t, tokens, pooled), self.head(pooled)
