"""A student that paints in few steps what its teacher paints in many: progressive distillation (Salimans and Ho 2022,
arXiv:2202.00512, Algorithm 2) on cached latents.

One DDIM step of the student from t to u must land where `substeps` DDIM steps of the teacher land. From both ends the
x_0, and so the v, that such a step needs follows in closed form (their Appendix G):

    x~ = (z_u - (r_u / r_t) z_t) / (s_u - (r_u / r_t) s_t),    v~ = s_t eps~ - r_t x~,    eps~ = (z_t - s_t x~) / r_t

with s = sqrt(abar), r = sqrt(1 - abar). The student starts as its teacher, and each stage's student teaches the next.
DDIM draws no noise on the way: teacher and student map the same starting noise to the same picture, rows stay paired.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor

from ldm.checkpoint import write_atomically
from ldm.condition import training_drop
from ldm.config import ConfigError, described, read_table
from ldm.data import load_data, philox
from ldm.fit import Budget, fit
from ldm.folder import carry_over
from ldm.latents import cached_latents
from ldm.objective import TrainingSet, best_device, device_of, draw
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import prepare
from ldm.schedule import Schedule, add_noise, trailing_steps
from ldm.unet import predict


@dataclass(frozen=True)
class Distillation(Budget):
    """The recipe. teacher: a model folder. stages: numbers of steps, falling, each a divisor of 1000 times a power of
    two or of the stage before; first_substeps: teacher's steps for one of the first stage, substeps: of later ones.
    steps: of each stage. max_minutes: of all stages together, shared equally; 0 for no limit.
    """

    teacher: str = "models/simulation-128"
    stages: tuple[int, ...] = (16, 8, 4)
    first_substeps: int = 4
    substeps: int = 2
    batch: int = 64
    steps: int = 2000
    learning_rate: float = 2e-4
    warmup_steps: int = 50
    ema_decay: float = 0.999
    save_minutes: float = 5.0
    drop_each: float = 0.0
    drop_context: float = 0.05
    drop_everything: float = 0.05


def check(config: Distillation) -> None:
    """Raise ConfigError unless every stage halves (or divides) the one before."""
    falling = all(a > b and a % b == 0 for a, b in zip(config.stages, config.stages[1:], strict=False))
    if not config.stages or not falling or min(config.stages) < 1 or min(config.first_substeps, config.substeps) < 2:
        raise ConfigError(
            f"stages: got {config.stages} with {config.first_substeps} and {config.substeps} substeps, expected "
            "falling numbers, each a divisor of the one before, and at least 2 substeps; for example (16, 8, 4)"
        )


def levels(schedule: Schedule, n: int, substeps: int) -> tuple[Int[np.ndarray, "n s"], Float[np.ndarray, "n e"]]:
    """Time steps [n, substeps] that the teacher takes within each of the n student steps, and abar at each of them and
    at the end, [n, substeps + 1]; the last end has abar 1.
    """
    times = trailing_steps(schedule, n * substeps)
    abar = np.append(schedule.alphas_cumprod[times], 1.0)
    inside = times.reshape(n, substeps)
    return inside, np.stack([abar[i * substeps : (i + 1) * substeps + 1] for i in range(n)])


def ddim_step(
    x: Float[Tensor, "b c h w"], v: Float[Tensor, "b c h w"], now: Float[Tensor, " b"], then: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """x at abar `then` from x at abar `now` and the velocity there."""
    s, r = now.sqrt().view(-1, 1, 1, 1), (1.0 - now).sqrt().view(-1, 1, 1, 1)
    x0, noise = s * x - r * v, r * x + s * v
    return then.sqrt().view(-1, 1, 1, 1) * x0 + (1.0 - then).sqrt().view(-1, 1, 1, 1) * noise


def target_velocity(
    x: Float[Tensor, "b c h w"], end: Float[Tensor, "b c h w"], now: Float[Tensor, " b"], then: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """The v with which one DDIM step from (x, now) lands on (end, then): the equations above."""
    s_t, r_t, s_u, r_u = (
        value.view(-1, 1, 1, 1) for value in (now.sqrt(), (1.0 - now).sqrt(), then.sqrt(), (1.0 - then).sqrt())
    )
    x0 = (end - r_u / r_t * x) / (s_u - r_u / r_t * s_t)
    return s_t * (x - s_t * x0) / r_t - r_t * x0


def stage_loss(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    condition: torch.nn.Module,
    held: TrainingSet,
    schedule: Schedule,
    config: Distillation,
    n: int,
    substeps: int,
    step: int,
) -> Float[Tensor, ""]:
    """Mean squared error of the student's v for one batch: a function of (seed, n, step) only."""
    rng = philox(config.seed, step, 40 + n)
    rows = draw(held.train, config.batch, rng)
    index = torch.from_numpy(rows)
    x0 = torch.from_numpy(held.latents[rows].astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32))
    which = rng.permutation(np.arange(len(rows)) % n)
    inside, abar = levels(schedule, n, substeps)
    times, marks = torch.from_numpy(inside[which]), torch.from_numpy(abar[which].astype(np.float32))
    given = training_drop(
        held.conditions.rows(index), config.seed, step, config.drop_each, config.drop_context, config.drop_everything
    )
    device = device_of(student)
    x0, noise, times, marks = (part.to(device) for part in (x0, noise, times, marks))
    given = given.to(device)
    x = start = add_noise(x0, noise, times[:, 0], schedule)
    with torch.no_grad():
        tokens, pooled = condition(given)
        for k in range(substeps):
            x = ddim_step(x, predict(teacher, x, times[:, k], tokens, pooled), marks[:, k], marks[:, k + 1])
        wanted = target_velocity(start, x, marks[:, 0], marks[:, -1])
    loss: Tensor = (predict(student, start, times[:, 0], tokens, pooled) - wanted).pow(2).mean()
    return loss


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Distil as the table [distillation] of a TOML file says; returns the folder of the student, `out`/model, which
    paints with DDIM in the last stage's number of steps. `start_from` goes before the recipe's teacher.

    The same command goes on after an interruption. Raises ConfigError, ModelFolderError, TrainingDataError,
    CheckpointError, TrainingStopped.
    """
    config = read_table(config_path, "distillation", Distillation)
    return run(replace(config, teacher=str(start_from)) if start_from else config, data, out)


def run(config: Distillation, folder: Path, out: Path, stop_at: int | None = None) -> Path:
    """All stages; `stop_at` ends the run after that many steps over all stages, as an interruption would."""
    check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    pipeline, data = CellPaintingPipeline.from_pretrained(config.teacher), load_data(folder)
    device = best_device()
    held = prepare(pipeline.condition, data, folder, cached_latents(pipeline.autoencoder, data, out, device=device))
    pipeline.condition.to(device)
    teacher = pipeline.unet.to(device)
    done = 0
    for k, n in enumerate(config.stages):
        kept = out / f"stage_{n}.safetensors"
        student = copy.deepcopy(teacher).requires_grad_(True)
        if kept.is_file():
            student.load_state_dict(load_file(kept))
        else:
            left = None if stop_at is None else stop_at - done
            substeps = config.substeps if k else config.first_substeps
            if not _stage(student, teacher, pipeline, held, config, n, substeps, out / f"distil_{n}.safetensors", left):
                return out
            write_atomically(dict(student.state_dict()), kept, {"stage": str(n)})
        done += config.steps
        teacher = student.eval().requires_grad_(False)
    pipeline.condition.to("cpu")
    pipeline.register_modules(unet=teacher.to("cpu"))
    pipeline.settings = replace(
        pipeline.settings, sampler="ddim", steps=config.stages[-1], spacing="trailing", training_steps=done
    )
    carry_over(Path(config.teacher), out / "model")
    pipeline.save_pretrained(out / "model")
    return out / "model"


def _stage(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    pipeline: CellPaintingPipeline,
    held: TrainingSet,
    config: Distillation,
    n: int,
    substeps: int,
    checkpoint: Path,
    stop_at: int | None,
) -> bool:
    """Train one stage from its checkpoint on; True when it is done, its averaged weights then in `student`."""
    return fit(
        f"{n} steps",
        student,
        list(student.parameters()),
        lambda step: stage_loss(
            student, teacher, pipeline.condition, held, pipeline.schedule, config, n, substeps, step
        ),
        config,
        checkpoint,
        described(config) + f" stage {n}",
        stop_at,
        shares=len(config.stages),
    )
