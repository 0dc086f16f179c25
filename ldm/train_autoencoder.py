"""Training of the group autoencoder: L1, edges and local contrast at several scales, and KL.

There is no downloaded feature network: texture is kept by comparing gradients and maps of the local standard
deviation of picture and reconstruction.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups, to_groups
from ldm.checkpoint import Ema, Progress, load_checkpoint, save_checkpoint
from ldm.config import described as recipe
from ldm.config import read_table
from ldm.data import TrainingData, load_data, philox
from ldm.progress import Bar, training_bar

log = logging.getLogger("dopaint.training")


class TrainingStopped(ValueError):
    """Raised when training cannot go on, for instance because the loss is not a number."""


@dataclass(frozen=True)
class AutoencoderTraining:
    """The recipe. The learning rate falls over `steps` or, if max_minutes > 0, over that time, whichever ends first."""

    seed: int = 1
    batch: int = 32
    crop: int = 64
    steps: int = 20000
    max_minutes: float = 0.0
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema_decay: float = 0.998
    kl_weight: float = 1e-5
    gradient_weight: float = 1.0
    contrast_weight: float = 1.0
    scales: int = 3
    bfloat16: bool = True
    threads: int = 2
    log_every: int = 50
    save_minutes: float = 3.0


def gradient_loss(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], scales: int) -> Float[Tensor, ""]:
    """Mean L1 distance of horizontal and vertical differences at `scales` scales, each half as large as the one
    before.
    """
    total = x.new_zeros(())
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        d = x - y
        total = total + (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
    return total / scales


def local_sd(x: Float[Tensor, "b c h w"], window: int = 5) -> Float[Tensor, "b c y x"]:
    """Standard deviation in windows of `window` pixels, every second pixel."""
    mean = F.avg_pool2d(x, window, stride=2)
    square = F.avg_pool2d(x * x, window, stride=2)
    return (square - mean * mean).clamp(min=0.0).add(1e-5).sqrt()


def contrast_loss(x: Float[Tensor, "b c h w"], y: Float[Tensor, "b c h w"], scales: int) -> Float[Tensor, ""]:
    """Mean L1 distance of the local standard deviations, so that smooth reconstructions of grainy pictures are
    penalised.
    """
    total = x.new_zeros(())
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        total = total + (local_sd(x) - local_sd(y)).abs().mean()
    return total / scales


def learning_rate(fraction: float, step: int, peak: float, warmup: int) -> float:
    """Linear warm-up over `warmup` steps, then a half cosine over the fraction of the run that is done, down to a
    hundredth of the peak.
    """
    cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
    return peak * cosine * min(1.0, (step + 1) / max(warmup, 1))


def measure_scale(autoencoder: GroupAutoencoder, data: TrainingData, index: np.ndarray, batch: int = 16) -> None:
    """Measure mean and sd of every latent channel over these rows, and store them in the autoencoder."""
    total = torch.zeros(autoencoder.latent_channels, dtype=torch.float64)
    square = torch.zeros_like(total)
    count = 0
    with torch.no_grad():
        for start in range(0, len(index), batch):
            z = autoencoder.encode_raw(torch.from_numpy(data.read(index[start : start + batch]))).double()
            total += z.sum(dim=(0, 2, 3))
            square += (z * z).sum(dim=(0, 2, 3))
            count += z.shape[0] * z.shape[2] * z.shape[3]
    mean = total / count
    autoencoder.store_scale(mean, (square / count - mean**2).clamp(min=1e-12).sqrt())


def losses(
    vae: torch.nn.Module,
    x: Float[Tensor, "b 3 h w"],
    noise: Float[Tensor, "b z y x"] | None,
    config: AutoencoderTraining,
) -> dict[str, Float[Tensor, ""]]:
    """All parts of the loss for a batch of groups; noise None decodes the posterior mean. "loss" is their weighted
    sum.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        posterior = vae.encode(x).latent_dist  # type: ignore[operator]
        z = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        y = vae.decode(z).sample.float()  # type: ignore[operator]
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    parts = {
        "l1": (x - y).abs().mean(),
        "gradient": gradient_loss(x, y, config.scales),
        "contrast": contrast_loss(x, y, config.scales),
        "kl": 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar).mean(),
    }
    parts["loss"] = (
        parts["l1"]
        + config.gradient_weight * parts["gradient"]
        + config.contrast_weight * parts["contrast"]
        + config.kl_weight * parts["kl"]
    )
    return parts


def training_batch(
    data: TrainingData, index: np.ndarray, channels: ChannelGroups, config: AutoencoderTraining, step: int
) -> Float[Tensor, "b 3 s s"]:
    """Crops of random rows, one random group each: a function of (seed, step) only."""
    rng = philox(config.seed, step, 1)
    crops = torch.from_numpy(data.crops(rng.choice(index, config.batch), config.crop, rng))
    group = torch.from_numpy(rng.integers(0, len(channels.groups), config.batch))
    return to_groups(crops, channels)[torch.arange(config.batch), group]


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Train the autoencoder of a TOML file (tables [autoencoder] and [autoencoder_training]) on a data folder;
    returns the folder `out`/vae.

    A run that was stopped goes on from `out`/autoencoder.safetensors when the same command is given again.
    `start_from` is the folder of a trained autoencoder whose weights a new run begins with. Raises TrainingStopped
    when the loss is not a number.
    """
    config = read_table(config_path, "autoencoder_training", AutoencoderTraining)
    size = read_table(config_path, "autoencoder", AutoencoderConfig)
    return run(size, config, load_data(data), out, start_from)


def run(
    size: AutoencoderConfig,
    config: AutoencoderTraining,
    data: TrainingData,
    out: Path,
    start_from: Path | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train on opened data; `stop_at` ends the run after that many steps, as an interruption would (the schedule
    stays that of the whole run).
    """
    with training_bar("autoencoder") as bar:
        return _train(size, config, data, out, start_from, stop_at, bar)


def _train(
    size: AutoencoderConfig,
    config: AutoencoderTraining,
    data: TrainingData,
    out: Path,
    start_from: Path | None,
    stop_at: int | None,
    bar: Bar,
) -> Path:
    torch.set_num_threads(config.threads)
    channels = ChannelGroups(size.channels)
    out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        vae = build_network(size)
    if start_from is not None:
        vae.load_state_dict(GroupAutoencoder.load(start_from).vae.state_dict())
    vae.train()
    optimiser = torch.optim.AdamW(
        vae.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    ema = Ema(vae, config.ema_decay)
    checkpoint, described = out / "autoencoder.safetensors", recipe(size, config)
    step, seconds = 0, 0.0
    if checkpoint.is_file():
        progress = load_checkpoint(checkpoint, vae, ema, optimiser, described)
        step, seconds = progress.step, progress.seconds
        log.info(f"going on from step {step} ({seconds / 60:.1f} min)")
    train_index, val_index = data.indices("train"), data.indices("val")
    entered = saved = time.monotonic()
    began, first = entered - seconds, step
    budget = config.max_minutes * 60.0
    while True:
        seconds = time.monotonic() - began
        fraction = max(step / config.steps, seconds / budget if budget else 0.0)
        if fraction >= 1.0 or (stop_at is not None and step >= stop_at):
            break
        rate = learning_rate(fraction, step, config.learning_rate, config.warmup_steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        x = training_batch(data, train_index, channels, config, step)
        side = x.shape[-1] // 2 ** (len(size.widths) - 1)
        generator = torch.Generator().manual_seed((config.seed << 32) + step)
        parts = losses(vae, x, torch.randn((len(x), size.latent_channels, side, side), generator=generator), config)
        if not torch.isfinite(parts["loss"]):
            raise TrainingStopped(
                f"autoencoder training: the loss is {parts['loss'].item()} at step {step}; the last checkpoint is "
                f"{checkpoint}: lower learning_rate"
            )
        optimiser.zero_grad(set_to_none=True)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), config.clip)
        optimiser.step()
        step += 1
        ema.update(vae, step)
        speed = config.batch * (step - first) / max(time.monotonic() - entered, 1e-9)
        bar(fraction, speed, seconds / max(fraction, 1e-9) - seconds, float(parts["loss"].detach()))
        if step % config.log_every == 0:
            record(
                out,
                step,
                seconds,
                fraction,
                rate,
                speed,
                parts,
                validate(vae, ema, data, val_index, channels, config),
            )
        if time.monotonic() - saved > config.save_minutes * 60.0:
            save_checkpoint(checkpoint, vae, ema, optimiser, Progress(step, time.monotonic() - began, described))
            saved = time.monotonic()
    save_checkpoint(checkpoint, vae, ema, optimiser, Progress(step, seconds, described))
    ema.copy_to(vae)
    vae.eval().requires_grad_(False)
    autoencoder = GroupAutoencoder(vae, channels)
    measure_scale(autoencoder, data, train_index[:: max(1, len(train_index) // 512)])
    autoencoder.save(out / "vae")
    return out / "vae"


def validate(
    vae: torch.nn.Module,
    ema: Ema,
    data: TrainingData,
    index: np.ndarray,
    channels: ChannelGroups,
    config: AutoencoderTraining,
) -> dict[str, float]:
    """Losses of the averaged weights on the same crops of held-out rows every time; empty without held-out rows."""
    if not len(index):
        return {}
    x = training_batch(data, index, channels, config, 0)
    ema.swap(vae)
    with torch.no_grad():
        parts = {name: float(value) for name, value in losses(vae, x, None, config).items()}
    ema.swap(vae)
    return parts


def record(
    out: Path,
    step: int,
    seconds: float,
    fraction: float,
    rate: float,
    speed: float,
    parts: dict[str, Tensor],
    held: dict[str, float],
) -> None:
    """Print one line and add it to log.csv."""
    numbers = {name: float(value.detach()) for name, value in parts.items()} | {
        f"val_{name}": value for name, value in held.items()
    }
    left = seconds / fraction - seconds if fraction > 0 else float("nan")
    text = " ".join(f"{name} {value:.4f}" for name, value in numbers.items())
    log.info(f"step {step} {seconds / 60:.1f} min, {left / 60:.0f} left, {speed:.0f} pictures/s, lr {rate:.1e}, {text}")
    path = out / "autoencoder_log.csv"
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if fresh:
            writer.writerow(["step", "seconds", "learning_rate", *numbers])
        writer.writerow([step, f"{seconds:.1f}", f"{rate:.3e}", *[f"{value:.6f}" for value in numbers.values()]])


def main() -> None:
    """python -m ldm.train_autoencoder CONFIG --data DIR --out DIR"""
    parser = argparse.ArgumentParser(description="Train the group autoencoder.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start-from", type=Path, default=None)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    log.info("%s", train(args.config, args.data, args.out, args.start_from))


if __name__ == "__main__":
    main()
