"""Training of the diffusion model, and the one door to every recipe of this room: `train` looks at the tables of the
TOML file.

Stage one teaches the condition encoder alone: a linear head on the pooled condition regresses statistics of the
latents (mean, spread, texture and correlation of channels), so that compound and context effects are in the condition
before the U-Net asks for them. Stage two is v-prediction on cached latents. All random numbers of a step are
functions of (seed, step): a run that is interrupted and given again ends with the same weights.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from safetensors import SafetensorError
from torch import Tensor

from ldm import sharded as sharding
from ldm.autoencoder import GroupAutoencoder
from ldm.checkpoint import Ema, Progress, load_checkpoint, save_checkpoint
from ldm.config import ConfigError, described, read_table, read_toml
from ldm.data import load_compounds, load_data
from ldm.latents import cached_latents
from ldm.objective import DiffusionTraining, TrainingSet, diffusion_loss, held_out, statistics_loss
from ldm.prepare import ConditionConfig, autoencoder_of, build_condition, prepare
from ldm.progress import Bar, check_tracker, training_bar
from ldm.schedule import Schedule
from ldm.train_autoencoder import TrainingStopped, learning_rate
from ldm.train_autoencoder import train as train_autoencoder
from ldm.unet import Denoiser, UNetConfig, build_unet, n_parameters

log = logging.getLogger("dopaint.training")


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
    return run(unet, condition, config, data, out, autoencoder or autoencoder_of(tables, config_path, out), start_from)


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
    check_tracker(config.tracker)
    data, autoencoder, schedule = load_data(folder), GroupAutoencoder.load(vae), Schedule()
    vectors, _ = load_compounds(folder)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        log_with=config.tracker or None,
        project_dir=out,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    check_shards(config, accelerator.num_processes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = build_condition(unet, condition, data, vectors)
        with accelerator.main_process_first():
            latents = cached_latents(autoencoder, data, out, device=accelerator.device)
        held = prepare(encoder, data, folder, latents)
        net = Denoiser(build_unet(unet), encoder, held.statistics.shape[1])
    if config.epochs:
        config = replace(config, steps=math.ceil(config.epochs * len(held.train) / config.batch))
    earlier = load_weights(net, start_from) if start_from is not None else (0, 0.0)
    net.to(accelerator.device)
    log.info(
        f"U-Net {n_parameters(net.unet) / 1e6:.1f} M parameters, condition {n_parameters(encoder) / 1e6:.2f} M, "
        f"{len(held.train)} training rows"
    )
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99), fused=True
    )
    ema, checkpoint = Ema(net, config.ema_decay), out / "diffusion.safetensors"
    recipe = described(unet, condition, config)
    step, seconds = 0, 0.0
    if checkpoint.is_file():
        progress = load_checkpoint(checkpoint, net, ema, optimiser, recipe)
        step, seconds = progress.step, progress.seconds
        log.info(f"going on from step {step} ({seconds / 60:.1f} min)")
    exported = net
    if not export_only:
        if config.tracker:
            accelerator.init_trackers("dopaint")
        if sharded := sharding.asked(accelerator):
            exported = copy.deepcopy(net).cpu()
            model, prepared = sharding.shard(accelerator, net, optimiser, ema, config.precision), optimiser
        else:
            model, prepared = accelerator.prepare(net, optimiser)
        with training_bar("diffusion", accelerator.is_main_process) as bar:
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
                recipe,
                step,
                seconds,
                stop_at,
                bar,
                sharded,
            )
        accelerator.end_training()
        if sharded and accelerator.is_main_process:  # pieces cannot be exported: the last checkpoint holds all of it
            ema = Ema(exported, config.ema_decay)
            load_checkpoint(checkpoint, exported, ema, torch.optim.AdamW(exported.parameters()), recipe)
    result = out / "model"
    if accelerator.is_main_process:
        ema.copy_to(exported)
        try:
            result = export(
                exported.to("cpu"), autoencoder, schedule, folder, result, step + earlier[0], seconds + earlier[1]
            )
        except (OSError, SafetensorError) as error:
            raise TrainingStopped(
                f"training: {result} could not be written ({error}); the weights are safe in {checkpoint}: free some "
                "disk and start the same command again"
            ) from error
    return result


def check_shards(config: DiffusionTraining, processes: int) -> None:
    """Raise ConfigError unless both batches can be cut into equal parts for every process and accumulation."""
    parts = config.accumulate * processes
    if config.accumulate < 1 or config.batch % parts or (config.statistics_steps and config.statistics_batch % parts):
        raise ConfigError(
            f"batch: got {config.batch} and statistics_batch {config.statistics_batch}, expected multiples of "
            f"{parts} (accumulate {config.accumulate} on {processes} processes); change one of them"
        )


def backward(
    accelerator: Accelerator,
    model: torch.nn.Module,
    held: TrainingSet,
    schedule: Schedule,
    config: DiffusionTraining,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of one whole batch, cut over processes and accumulation; returns the loss and what is shown of it."""
    of = config.accumulate * accelerator.num_processes
    total, shown = torch.zeros(()), torch.zeros(())
    for part in range(config.accumulate):
        shard = (accelerator.process_index * config.accumulate + part, of)
        with nullcontext() if part == config.accumulate - 1 else accelerator.no_sync(model):
            loss, told = (
                (statistics_loss(model, held, config, step, shard),) * 2
                if step < config.statistics_steps
                else diffusion_loss(model, held, schedule, config, step, shard)
            )
            accelerator.backward(loss / config.accumulate)
        total, shown = total + loss.detach().cpu() / config.accumulate, shown + told.detach().cpu() / config.accumulate
    if accelerator.num_processes > 1:
        both = torch.stack([total, shown]).to(accelerator.device)
        total, shown = accelerator.reduce(both, reduction="mean").cpu()
    return total, shown


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
    recipe: str,
    step: int,
    seconds: float,
    stop_at: int | None,
    bar: Bar,
    sharded: bool = False,
) -> tuple[float, int]:
    """Both stages, from `step` to the end of the budget; returns seconds and steps done.

    sharded: the network is cut over processes, so that each of them takes part in checkpoints and held-out losses.
    """
    main = accelerator.is_main_process

    def due(wish: bool) -> bool:
        return sharding.agreed(accelerator, wish) if sharded else wish and main

    entered = saved = checked = time.monotonic()
    began, budget, warm, first = entered - seconds, config.max_minutes * 60.0, config.statistics_steps, step
    while True:
        seconds = time.monotonic() - began
        if accelerator.num_processes > 1:  # all must stop at the same step
            seconds = float(broadcast(torch.tensor(seconds, device=accelerator.device)))
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
        optimiser.zero_grad(set_to_none=True)
        loss, shown = backward(accelerator, model, held, schedule, config, step)
        if not torch.isfinite(loss):
            raise TrainingStopped(
                f"diffusion training: the loss is {loss.item()} at step {step}; the last checkpoint is {checkpoint}: "
                "lower learning_rate"
            )
        if sharded:
            sharding.clip(model, config.clip)
        else:
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        step += 1
        ema.update(net, step if step <= warm else step - warm)
        now = time.monotonic()
        speed = (config.statistics_batch if warming else config.batch) * (step - first) / max(now - entered, 1e-9)
        left = budget - seconds if budget else seconds / max(fraction, 1e-9) - seconds
        bar(fraction, speed, left, float(shown))
        if accelerator.is_main_process and step % (10 * config.log_every if warming else config.log_every) == 0:
            name = "statistics" if warming else "v"
            log.info(
                f"step {step} {seconds / 60:.1f} min, {left / 60:.0f} left, {speed:.0f} pictures/s, lr {rate:.1e}, "
                f"{name} {float(shown):.4f}"
            )
            accelerator.log({name: float(shown), "learning_rate": rate, "pictures_per_second": speed}, step=step)
        if due(step == warm or now - checked > config.validate_minutes * 60.0):
            ema.swap(net)
            report = held_out(net, held, schedule, config, unet=step > warm)
            sharding.settle(net)
            ema.swap(net)
            if main:
                _tell_held_out(step, report)
                accelerator.log({f"held_out/{name}": value for name, value in report.items()}, step=step)
            checked = now
        if step == warm:
            entered, first = time.monotonic(), step
        if due(now - saved > config.save_minutes * 60.0):
            progress = Progress(step, time.monotonic() - began, recipe)
            save_checkpoint(checkpoint, net, ema, optimiser, progress, write=main)
            saved = now
    if sharded or main:
        save_checkpoint(checkpoint, net, ema, optimiser, Progress(step, seconds, recipe), write=main)
        report = held_out(net, held, schedule, config, step > warm)
        if main:
            _tell_held_out(step, report)
    return seconds, step


def _tell_held_out(step: int, report: dict[str, float]) -> None:
    log.info(f"held out at step {step}: " + " ".join(f"{name} {value:.4f}" for name, value in report.items()))


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
