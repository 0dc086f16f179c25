"""One training loop for what is trained from a finished model: a budget of steps or minutes, a learning rate that falls
over it, averaged weights, and a checkpoint from which a stopped run goes on with the same numbers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ldm.checkpoint import Ema, Progress, load_checkpoint, save_checkpoint
from ldm.progress import training_bar
from ldm.train_autoencoder import TrainingStopped, learning_rate

log = logging.getLogger("dopaint.training")


@dataclass(frozen=True)
class Budget:
    """What every such recipe says. The learning rate rises over warmup_steps and falls over `steps` or, if max_minutes
    is above 0, over that time, whichever ends first. threads: 0 leaves torch's number.
    """

    seed: int = 1
    batch: int = 32
    steps: int = 4000
    max_minutes: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.0
    clip: float = 1.0
    ema_decay: float = 0.998
    threads: int = 0
    log_every: int = 50
    save_minutes: float = 3.0


def fit(
    what: str,
    module: torch.nn.Module,
    weights: Sequence[Tensor],
    loss_of: Callable[[int], Float[Tensor, ""]],
    config: Budget,
    checkpoint: Path,
    recipe: str,
    stop_at: int | None = None,
    shares: int = 1,
    report: Callable[[int], str] = lambda _: "",
) -> bool:
    """Train `weights` of `module` from the checkpoint on; True when the budget is spent, its averaged weights then in
    the module.

    loss_of: the loss of a step, a function of the step's number alone. recipe: text that a checkpoint must bear.
    stop_at: end after that many steps, as an interruption would. shares: parts that max_minutes is for. report: more to
    log, told with the averaged weights in the module.

    Raises TrainingStopped when the loss is not a number, CheckpointError.
    """
    optimiser = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99))
    ema, step, seconds = Ema(module, config.ema_decay), 0, 0.0
    if checkpoint.is_file():
        progress = load_checkpoint(checkpoint, module, ema, optimiser, recipe)
        step, seconds = progress.step, progress.seconds
        log.info(f"{what}: going on from step {step} ({seconds / 60:.1f} min)")
    began, entered = time.monotonic() - seconds, time.monotonic()
    first, saved, budget = step, entered, config.max_minutes * 60.0 / shares
    with training_bar(what) as bar:
        while True:
            seconds = time.monotonic() - began
            fraction = max(step / config.steps, seconds / budget if budget else 0.0)
            if fraction >= 1.0 or (stop_at is not None and step >= stop_at):
                break
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(fraction, step, config.learning_rate, config.warmup_steps)
            optimiser.zero_grad(set_to_none=True)
            loss = loss_of(step)
            shown = loss.item()
            if not torch.isfinite(loss):
                raise TrainingStopped(
                    f"{what}: the loss is {shown} at step {step}; the last checkpoint is {checkpoint}: lower "
                    "learning_rate"
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, config.clip)
            optimiser.step()
            step += 1
            ema.update(module, step)
            speed = config.batch * (step - first) / max(time.monotonic() - entered, 1e-9)
            bar(fraction, speed, seconds / max(fraction, 1e-9) - seconds, shown)
            if step % config.log_every == 0:
                ema.swap(module)
                more = report(step)
                ema.swap(module)
                log.info(f"{what}, step {step}: {seconds / 60:.1f} min, {speed:.1f} a second, loss {shown:.5f}{more}")
            if time.monotonic() - saved > config.save_minutes * 60.0:
                save_checkpoint(checkpoint, module, ema, optimiser, Progress(step, time.monotonic() - began, recipe))
                saved = time.monotonic()
    save_checkpoint(checkpoint, module, ema, optimiser, Progress(step, seconds, recipe))
    if fraction < 1.0:
        return False
    ema.copy_to(module)
    return True
