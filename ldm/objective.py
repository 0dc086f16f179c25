"""What one training step of the diffusion model minimises, and how held-out rows show whether conditions are used.

Stage one teaches the condition encoder alone: a linear head on the pooled condition regresses statistics of the latents
(mean, spread, texture and correlation of channels). Stage two is v-prediction. All random numbers of a step are
functions of (seed, step).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ldm.condition import Conditions, training_drop
from ldm.config import LATER
from ldm.data import philox
from ldm.schedule import Schedule, add_noise, min_snr_weight, velocity
from ldm.unet import Denoiser


@dataclass(frozen=True)
class DiffusionTraining:
    """The recipe. The learning rate falls over `steps` or, if max_minutes > 0, over that time, whichever ends first.

    min_snr: gamma of the min-SNR weight, 0 for none. drop_each, drop_context, drop_everything: probabilities of
    dropping each token, all context tokens together, all tokens. statistics_*: stage one, and the weight that its
    loss keeps in stage two. precision: "no" (float32) or "bf16". threads: 0 leaves torch's number alone.

    epochs: if above 0, `steps` is that many passes over the training rows. accumulate: parts that a batch is cut into,
    one after the other, with the same gradient. tracker: "tensorboard" or another of accelerate's, "" for none.
    """

    seed: int = 1
    batch: int = 64
    steps: int = 20000
    max_minutes: float = 0.0
    learning_rate: float = 6e-4
    warmup_steps: int = 200
    weight_decay: float = 1e-3
    clip: float = 1.0
    ema_decay: float = 0.999
    min_snr: float = 0.0
    drop_each: float = 0.05
    drop_context: float = 0.1
    drop_everything: float = 0.05
    statistics_steps: int = 3000
    statistics_batch: int = 256
    statistics_rate: float = 2e-3
    statistics_weight: float = 0.05
    precision: str = "no"
    threads: int = 0
    log_every: int = 50
    save_minutes: float = 5.0
    validate_minutes: float = 10.0
    validate_rows: int = 256
    epochs: float = field(default=0.0, metadata=LATER)
    accumulate: int = field(default=1, metadata=LATER)
    tracker: str = field(default="", metadata=LATER)


@dataclass(frozen=True)
class TrainingSet:
    """Everything that a step reads: latents [n, z, y, x] on disk, conditions and standardised statistics of all
    rows, and the rows of each split.
    """

    latents: np.ndarray
    conditions: Conditions
    statistics: Float[Tensor, "n s"]
    train: np.ndarray
    val: np.ndarray


def draw(pool: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows of the pool, with replacement when the pool is smaller than n."""
    return rng.choice(pool, n, replace=n > len(pool))


def uniform_steps(n: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """n time steps, uniform over 0 to total - 1, stratified within the batch."""
    return rng.permutation(((np.arange(n) + rng.random()) / n * total).astype(np.int64))


def device_of(net: torch.nn.Module) -> torch.device:
    """Where the weights are."""
    return next(net.parameters()).device


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


Shard = tuple[int, int]
"""(k, of): rows k, k + of, k + 2 of, ... of a batch; all shards together are the batch, whose draws none of them
changes."""


def statistics_loss(
    net: torch.nn.Module, held: TrainingSet, config: DiffusionTraining, step: int, shard: Shard = (0, 1)
) -> Float[Tensor, ""]:
    """Stage one: mean squared error of the predicted statistics of one batch, or of a shard of it."""
    index = torch.from_numpy(draw(held.train, config.statistics_batch, philox(config.seed, step, 1)))
    given = training_drop(
        held.conditions.rows(index), config.seed, step, config.drop_each, config.drop_context, config.drop_everything
    )
    mine, device = torch.arange(shard[0], len(index), shard[1]), device_of(net)
    _, predicted = net(None, None, given.rows(mine).to(device))
    loss: Tensor = (predicted - held.statistics[index[mine]].to(device)).pow(2).mean()
    return loss


def diffusion_loss(
    net: torch.nn.Module,
    held: TrainingSet,
    schedule: Schedule,
    config: DiffusionTraining,
    step: int,
    shard: Shard = (0, 1),
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Stage two: the loss of one batch, or of a shard of it, and its v part alone."""
    rng = philox(config.seed, step, 2)
    rows = draw(held.train, config.batch, rng)
    index = torch.from_numpy(rows)
    noise = torch.from_numpy(rng.standard_normal((len(rows), *held.latents.shape[1:]), dtype=np.float32))
    t = torch.from_numpy(uniform_steps(len(rows), schedule.steps, rng))
    given = training_drop(
        held.conditions.rows(index), config.seed, step, config.drop_each, config.drop_context, config.drop_everything
    )
    mine, device = torch.arange(shard[0], len(index), shard[1]), device_of(net)
    x0 = torch.from_numpy(held.latents[rows[mine.numpy()]].astype(np.float32)).to(device)
    noise, t, given = noise[mine].to(device), t[mine].to(device), given.rows(mine).to(device)
    predicted, statistics = net(add_noise(x0, noise, t, schedule), t, given)
    squared = (predicted - velocity(x0, noise, t, schedule)).pow(2).mean(dim=(1, 2, 3))
    v_loss = (squared * min_snr_weight(t, schedule, config.min_snr)).mean() if config.min_snr else squared.mean()
    told = held.statistics[index[mine]].to(device)
    return v_loss + config.statistics_weight * (statistics - told).pow(2).mean(), v_loss.detach()


@torch.no_grad()
def held_out(
    net: Denoiser, held: TrainingSet, schedule: Schedule, config: DiffusionTraining, unet: bool
) -> dict[str, float]:
    """Held-out v loss and share of explained variance of the statistics: conditional, with shuffled compounds, with
    shuffled contexts, unconditional.

    The same rows, noise and time steps every time. A model that uses what it is given is worse when compounds or
    contexts are shuffled.
    """
    if not len(held.val):
        return {}
    rng = philox(config.seed, 0, 9)
    rows = held.val[rng.permutation(len(held.val))[: config.validate_rows]]
    n = len(rows)
    x0 = torch.from_numpy(held.latents[np.sort(rows)].astype(np.float32))
    index, other = torch.from_numpy(np.sort(rows)), torch.from_numpy(rng.permutation(n))
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    t = torch.from_numpy(uniform_steps(n, schedule.steps, rng))
    device = device_of(net)
    x0, noise, t = x0.to(device), noise.to(device), t.to(device)
    given, truth = held.conditions.rows(index).to(device), held.statistics[index].to(device)
    xt, v = add_noise(x0, noise, t, schedule), velocity(x0, noise, t, schedule)
    mixed = given.rows(other.to(device))
    variants = {
        "conditional": given,
        "compound_shuffled": replace(given, compound=mixed.compound),
        "context_shuffled": replace(mixed, compound=given.compound, given=given.given),
        "unconditional": given.keeping(),
    }
    result: dict[str, float] = {}
    for name, conditions in variants.items():
        predicted = net.statistics(conditions)
        result[f"r2_{name}"] = float(
            1.0 - (predicted - truth).pow(2).mean() / (truth - truth.mean(dim=0)).pow(2).mean()
        )
        if unet:
            total = 0.0
            for part in torch.arange(n, device=device).split(config.batch):
                with torch.autocast(xt.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                    guess, _ = net(xt[part], t[part], conditions.rows(part))
                total += float((guess.float() - v[part]).pow(2).mean(dim=(1, 2, 3)).sum())
            result[f"v_{name}"] = total / n
    return result
