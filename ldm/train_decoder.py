"""Distillation of the small decoder (`ldm.small_decoder`) from the autoencoder's own, on cached latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ldm.autoencoder import GroupAutoencoder
from ldm.config import described, read_table
from ldm.data import load_data, philox, to_float
from ldm.fit import Budget, fit
from ldm.latents import cached_latents
from ldm.objective import best_device
from ldm.small_decoder import SmallDecoder
from ldm.train_autoencoder import contrast_loss, gradient_loss


@dataclass(frozen=True)
class DecoderConfig:
    """Size of the network: see SmallDecoder; latent and picture channels are those of the autoencoder."""

    widths: tuple[int, ...] = (48, 24, 12, 8)
    blocks: tuple[int, ...] = (3, 1, 0, 0)


@dataclass(frozen=True)
class DecoderTraining(Budget):
    """The recipe. autoencoder: folder of the teacher, "" for the output folder's `vae`. model: a model folder with that
    autoencoder, of which the result is a copy that decodes with the small decoder; "" for the decoder alone. crop: of
    latents, per side. pictures_weight: share of the loss against the true pictures beside the teacher's.
    """

    autoencoder: str = "models/simulation-128/vae"
    model: str = ""
    crop: int = 8
    learning_rate: float = 2e-3
    gradient_weight: float = 1.0
    contrast_weight: float = 1.0
    pictures_weight: float = 0.0
    scales: int = 3


def psnr(true: Float[Tensor, "b c h w"], found: Float[Tensor, "b c h w"], span: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB of pictures whose range has the length `span`."""
    return float(10.0 * torch.log10(span**2 / (true - found).pow(2).mean().clamp(min=1e-12)))


def batch_of(
    latents: np.ndarray, pictures: np.ndarray, index: np.ndarray, factor: int, config: DecoderTraining, step: int
) -> tuple[Float[Tensor, "b z s s"], Float[Tensor, "b c p p"]]:
    """Crops of latents of random rows and the pictures' crops that belong to them: a function of (seed, step) only."""
    rng = philox(config.seed, step, 6)
    rows, side = rng.choice(index, config.batch), min(config.crop, latents.shape[-1])
    top, left = rng.integers(0, latents.shape[-2] - side + 1), rng.integers(0, latents.shape[-1] - side + 1)
    z = latents[rows, :, top : top + side, left : left + side].astype(np.float32)
    at = (slice(top * factor, (top + side) * factor), slice(left * factor, (left + side) * factor))
    return torch.from_numpy(z), torch.from_numpy(to_float(np.stack([pictures[i][:, at[0], at[1]] for i in rows])))


def loss_of(
    found: Float[Tensor, "b c h w"], wanted: Float[Tensor, "b c h w"], config: DecoderTraining
) -> Float[Tensor, ""]:
    """L1, gradients and local contrast, as the autoencoder was trained."""
    return (
        (found - wanted).abs().mean()
        + config.gradient_weight * gradient_loss(wanted, found, config.scales)
        + config.contrast_weight * contrast_loss(wanted, found, config.scales)
    )


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Distil as the tables [small_decoder] and [decoder_training] of a TOML file say; returns the folder `out`/decoder,
    or `out`/model where the recipe names a model.

    The same command goes on after an interruption. Raises ConfigError, AutoencoderError, TrainingDataError,
    CheckpointError, TrainingStopped.
    """
    size = read_table(config_path, "small_decoder", DecoderConfig)
    config = read_table(config_path, "decoder_training", DecoderTraining)
    teacher = start_from or (Path(config.autoencoder) if config.autoencoder else out / "vae")
    decoder = run(size, config, teacher, data, out)
    return install(Path(config.model), decoder, out / "model") if config.model else decoder


def install(model: Path, decoder: Path, out: Path) -> Path:
    """A copy of a model folder that decodes with the small decoder in the folder `decoder`. Raises ModelFolderError."""
    from ldm.folder import carry_over
    from ldm.pipeline import CellPaintingPipeline

    pipeline = CellPaintingPipeline.from_pretrained(model)
    pipeline.small = SmallDecoder.from_pretrained(decoder)
    pipeline.settings = replace(pipeline.settings, decoder="small")
    carry_over(model, out)
    pipeline.save_pretrained(out)
    return out


def run(
    size: DecoderConfig, config: DecoderTraining, teacher: Path, folder: Path, out: Path, stop_at: int | None = None
) -> Path:
    """Train; `stop_at` ends the run after that many steps, as an interruption would."""
    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    autoencoder, data = GroupAutoencoder.load(teacher), load_data(folder)
    device = best_device()
    latents = cached_latents(autoencoder, data, out, device=device)
    autoencoder.vae.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = SmallDecoder(autoencoder.latent_channels, len(autoencoder.channels.names), size.widths, size.blocks)
    net.to(device)
    index, heard = data.indices("train"), [0.0]

    def loss(step: int) -> Float[Tensor, ""]:
        z, pictures = batch_of(latents, data.pictures, index, autoencoder.factor, config, step)
        z, pictures = z.to(device), pictures.to(device)
        with torch.no_grad():
            wanted = autoencoder.decode(z)
        found = net(z)
        heard[0] = psnr(wanted, found.detach())
        total = loss_of(found, wanted, config)
        return total + config.pictures_weight * loss_of(found, pictures, config) if config.pictures_weight else total

    done = fit(
        "small decoder",
        net,
        list(net.parameters()),
        loss,
        config,
        out / "decoder.safetensors",
        described(size, config),
        stop_at,
        report=lambda _: f", {heard[0]:.1f} dB from the large decoder",
    )
    if not done:
        return out
    net.to("cpu").eval().requires_grad_(False)
    net.save_pretrained(out / "decoder", safe_serialization=True)
    return out / "decoder"
