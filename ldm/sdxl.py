"""An autoencoder by its name on the hub or by its folder: the SDXL one that the paper took, or any AutoencoderKL.

Its config.json holds one `scaling_factor` (SDXL: 0.13025); latents of each group of three channels are multiplied by it
and concatenated. SDXL's weights overflow in float16: it is computed with in float32 or bfloat16 here.
"""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ldm.autoencoder import CHANNELS_FILE, AutoencoderConfig, AutoencoderError, GroupAutoencoder
from ldm.channels import CHANNELS, ChannelGroups

FILES = ("config.json", "diffusion_pytorch_model.safetensors", CHANNELS_FILE)
SDXL = AutoencoderConfig(
    widths=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_groups=32, mid_attention=True
)
SDXL_SCALE = 0.13025


def autoencoder_folder(name: str | Path, subfolder: str = "") -> Path:
    """The folder `name`, or where the files of the hub's repository `name` lie after a download.

    subfolder: of the folder or repository ("vae" in a whole pipeline). Raises AutoencoderError when there is neither.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            wanted = [f"{subfolder}/{file}" if subfolder else file for file in FILES]
            folder = Path(snapshot_download(str(name), allow_patterns=wanted))
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise AutoencoderError(
                f"autoencoder: {name} is no folder here and could not be fetched from the hub ({reason}); give a "
                "folder with config.json and diffusion_pytorch_model.safetensors"
            ) from error
    return folder / subfolder if subfolder else folder


def load_autoencoder(name: str | Path, channels: tuple[str, ...] = CHANNELS, subfolder: str = "") -> GroupAutoencoder:
    """The autoencoder of a hub id or folder for pictures with these named channels; a folder that names its channels
    itself (channels.json) keeps them.

    Raises AutoencoderError when it is missing, takes other than three channels, or holds other channels.
    """
    folder = autoencoder_folder(name, subfolder)
    loaded = GroupAutoencoder.load(folder)
    if int(loaded.vae.config["in_channels"]) != 3:
        raise AutoencoderError(
            f"autoencoder: {folder} takes {loaded.vae.config['in_channels']} channels, expected 3; groups are triples"
        )
    if not (folder / CHANNELS_FILE).is_file():
        return GroupAutoencoder(loaded.vae, ChannelGroups(channels))
    if loaded.channels.names != channels:
        raise AutoencoderError(
            f"autoencoder: {folder} was made for {', '.join(loaded.channels.names)}, expected {', '.join(channels)}; "
            "name the channels that it was trained on"
        )
    return loaded


def sdxl_shape() -> AutoencoderKL:
    """An untrained network of SDXL's shape: for counting and timing where its weights are not at hand."""
    from ldm.autoencoder import build_network

    vae = build_network(SDXL)
    vae.register_to_config(scaling_factor=SDXL_SCALE)
    return vae
