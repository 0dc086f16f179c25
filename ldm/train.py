"""Training of the diffusion model, and the one door to every recipe of this room: `train` looks at the tables of the
TOML file.

Stage one teaches the condition encoder alone: a linear head on the pooled condition regresses statistics of the
latents (mean, spread, texture and correlation of channels), so that compound and context effects are in the condition
before the U-Net asks for them. Stage two is v-prediction on cached latents. All random numbers of a step are
functions of (seed, step): a run that is interrupted and given again ends with the same weights.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from ldm.autoencoder import GroupAutoencoder
from ldm.checkpoint import Ema, Progress, load_checkpoint, save_checkpoint
from ldm.condition import ConditionEncoder
from ldm.config import ConfigError, read_table, read_toml
from ldm.data import TrainingData, load_compounds, load_data
from ldm.latents import all_statistics, cached_latents
from ldm.objective import DiffusionTraining, TrainingSet, diffusion_loss, held_out, statistics_loss
from ldm.schedule import Schedule
from ldm.train_autoencoder import TrainingStopped, learning_rate, recipe
from ldm.train_autoencoder import train as train_autoencoder
from ldm.unet import Denoiser, UNetConfig, build_unet, n_parameters

log = logging.getLogger("dopaint.training")


@dataclass(frozen=True)
class ConditionConfig:
    """Size of the condition encoder; the widths of tokens and pooled vector are those of the U-Net."""

    hidden: int = 256
    compound_tokens: int = 1
    fourier: int = 4


def build_condition(
    unet: UNetConfig, config: ConditionConfig, data: TrainingData, vectors: np.ndarray
) -> ConditionEncoder:
    """An untrained encoder for the sources, batches and plate formats of the training rows, standardising by all
    compound vectors.
    """
    rows = data.rows[data.rows["split"] == "train"]
    nested = rows[["source", "batch"]].drop_duplicates().sort_values(["source", "batch"])
    encoder = ConditionEncoder(
        compound_dim=vectors.shape[1],
        sources=tuple(sorted(nested["source"].unique())),
        batches=tuple(nested["batch"]),
        batch_sources=tuple(nested["source"]),
        plate_formats=tuple(int(f) for f in sorted(rows["plate_format"].unique())),
        width=unet.token_width,
        pooled=unet.pooled or 2 * unet.token_width,
        hidden=config.hidden,
        compound_tokens=config.compound_tokens,
        fourier=config.fourier,
    )
    encoder.standardise(torch.from_numpy(vectors))
    return encoder


def prepare(condition: ConditionEncoder, data: TrainingData, folder: Path, latents: np.ndarray) -> TrainingSet:
    """Join rows, compound vectors and latents. Held-out rows of batches that no training row has are left out of
    validation: their batch has no embedding.
    """
    vectors, keys = load_compounds(folder)
    rows = data.rows
    known = rows["batch"].isin(condition.batches).to_numpy()
    at = keys.get_indexer(rows["compound"].astype(str))
    if (at < 0).any():
        raise ConfigError(
            f"training data: compound {rows['compound'].iloc[int(np.argmin(at))]} has no vector in compounds.npy; "
            "encode it"
        )
    safe = rows.copy()
    safe.loc[~known, ["source", "batch"]] = [condition.batch_sources[0], condition.batches[0]]
    conditions = condition.conditions(vectors[at], safe)
    train = data.indices("train")
    return TrainingSet(
        latents,
        conditions,
        all_statistics(latents, train),
        train,
        np.flatnonzero((rows["split"] == "val").to_numpy() & known),
    )


def train(
    config_path: Path, data: Path, out: Path, start_from: Path | None = None, autoencoder: Path | None = None
) -> Path:
    """Train what the TOML file describes on a data folder; returns the folder of the result.

    A file with [autoencoder] trains the autoencoder (result `out`/vae). A file with [unet] trains the diffusion model
    on the latents of `autoencoder` (default `out`/vae; result `out`/model, a whole pipeline folder). The same command
    goes on after an interruption. `start_from`: a trained folder whose weights a new run begins with. Raises
    ConfigError, TrainingDataError, CheckpointError, TrainingStopped.
    """
    tables = read_toml(config_path)
    if "autoencoder" in tables:
        return train_autoencoder(config_path, data, out, start_from)
    if "unet" not in tables:
        raise ConfigError(
            f"configuration: {config_path} has neither [autoencoder] nor [unet]; give one of configs/ldm/*.toml"
        )
    unet = read_table(config_path, "unet", UNetConfig)
    condition = read_table(config_path, "condition", ConditionConfig)
    config = read_table(config_path, "diffusion_training", DiffusionTraining)
    return run(unet, condition, config, data, out, autoencoder or out / "vae", start_from)


def run(
    unet: UNetConfig,
    condition: ConditionConfig,
    config: DiffusionTraining,
    folder: Path,
    out: Path,
    vae: Path,
    start_from: Path | None = None,
    stop_at: int | None = None,
    export_only: bool = False,
) -> Path:
    """Train and write the model folder; `stop_at` ends the run after that many steps, as an interruption would;
    `export_only` writes the model of the last checkpoint.
    """
    from ldm.export import export, load_weights

    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    data, autoencoder, schedule = load_data(folder), GroupAutoencoder.load(vae), Schedule()
    vectors, _ = load_compounds(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_condition(unet, condition, data, vectors)
        held = prepare(encoder, data, folder, cached_latents(autoencoder, data, out))
        net = Denoiser(build_unet(unet), encoder, held.statistics.shape[1])
    if start_from is not None:
        load_weights(net, start_from)
    log.info(
        f"U-Net {n_parameters(net.unet) / 1e6:.1f} M parameters, condition {n_parameters(encoder) / 1e6:.2f} M, "
        f"{len(held.train)} training rows"
    )
    accelerator = Accelerator(
        mixed_precision=config.precision, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    ema, checkpoint = Ema(net, config.ema_decay), out / "diffusion.safetensors"
    described = recipe(unet, condition, config)
    step, seconds = 0, 0.0
    if checkpoint.is_file():
        progress = load_checkpoint(checkpoint, net, ema, optimiser, described)
        step, seconds = progress.step, progress.seconds
        log.info(f"going on from step {step} ({seconds / 60:.1f} min)")
    if not export_only:
        model, prepared = accelerator.prepare(net, optimiser)
        seconds, step = loop(
            accelerator,
            model,
            net,
            prepared,
            ema,
            held,
            schedule,
            config,
            checkpoint,
            described,
            step,
            seconds,
            stop_at,
        )
    ema.copy_to(net)
    return export(net, autoencoder, schedule, folder, out / "model", step, seconds)


def loop(
    accelerator: Accelerator,
    model: torch.nn.Module,
    net: Denoiser,
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    held: TrainingSet,
    schedule: Schedule,
    config: DiffusionTraining,
    checkpoint: Path,
    described: str,
    step: int,
    seconds: float,
    stop_at: int | None,
) -> tuple[float, int]:
    """Both stages, from `step` to the end of the budget; returns seconds and steps done."""
    entered = saved = checked = time.monotonic()
    began, budget, warm, first = entered - seconds, config.max_minutes * 60.0, config.statistics_steps, step
    while True:
        seconds = time.monotonic() - began
        fraction = max((step - warm) / config.steps, seconds / budget if budget else 0.0)
        if fraction >= 1.0 or (stop_at is not None and step >= stop_at):
            break
        warming = step < warm
        rate = (
            learning_rate(step / warm, step, config.statistics_rate, 100)
            if warming
            else learning_rate(fraction, step - warm, config.learning_rate, config.warmup_steps)
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, shown = (
            (statistics_loss(model, held, config, step),) * 2
            if warming
            else diffusion_loss(model, held, schedule, config, step)
        )
        if not torch.isfinite(loss):
            raise TrainingStopped(
                f"diffusion training: the loss is {loss.item()} at step {step}; the last checkpoint is {checkpoint}: "
                "lower learning_rate"
            )
        optimiser.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        step += 1
        ema.update(net, step if step <= warm else step - warm)
        now = time.monotonic()
        if accelerator.is_main_process and step % (10 * config.log_every if warming else config.log_every) == 0:
            speed = (config.statistics_batch if warming else config.batch) * (step - first) / (now - entered)
            left = (budget - seconds if budget else seconds / max(fraction, 1e-9) - seconds) / 60.0
            name = "statistics" if warming else "v"
            log.info(
                f"step {step} {seconds / 60:.1f} min, {left:.0f} left, {speed:.0f} pictures/s, lr {rate:.1e}, {name} "
                f"{float(shown.detach()):.4f}"
            )
        if accelerator.is_main_process and (step == warm or now - checked > config.validate_minutes * 60.0):
            ema.swap(net)
            report = held_out(net, held, schedule, config, unet=step > warm)
            ema.swap(net)
            log.info(f"held out at step {step}: " + " ".join(f"{name} {value:.4f}" for name, value in report.items()))
            checked = now
        if step == warm:
            entered, first = time.monotonic(), step
        if accelerator.is_main_process and now - saved > config.save_minutes * 60.0:
            save_checkpoint(checkpoint, net, ema, optimiser, Progress(step, time.monotonic() - began, described))
            saved = now
    if accelerator.is_main_process:
        save_checkpoint(checkpoint, net, ema, optimiser, Progress(step, seconds, described))
        log.info(
            f"held out at step {step}: "
            + " ".join(
                f"{name} {value:.4f}" for name, value in held_out(net, held, schedule, config, step > warm).items()
            )
        )
    return seconds, step


def main() -> None:
    """python -m ldm.train CONFIG --data DIR --out DIR [--autoencoder DIR] [--start-from DIR] [--export]"""
    parser = argparse.ArgumentParser(description="Train the autoencoder or the diffusion model of a TOML file.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, default=None)
    parser.add_argument("--start-from", type=Path, default=None)
    parser.add_argument("--export", action="store_true", help="write the model folder of the last checkpoint and stop")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    if args.export:
        unet, condition = (
            read_table(args.config, "unet", UNetConfig),
            read_table(args.config, "condition", ConditionConfig),
        )
        config = read_table(args.config, "diffusion_training", DiffusionTraining)
        log.info(
            "%s",
            run(unet, condition, config, args.data, args.out, args.autoencoder or args.out / "vae", export_only=True),
        )
        return
    log.info("%s", train(args.config, args.data, args.out, args.start_from, args.autoencoder))


if __name__ == "__main__":
    main()
