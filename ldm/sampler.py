"""From noise to latents: DDPM, DDIM, DPM-Solver++(2M) and UniPC, on given falling time steps, one noise stream a
picture.

Noise is a function of (seed of the row, stream, position) only: stream 0 starts a picture, stream i + 1 is what the
i-th step adds. So a picture does not depend on the batch it is made in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt64
from torch import Tensor

from ldm.schedule import Schedule, ScheduleError

VelocityFn = Callable[[Tensor, int], Tensor]
StepNoise = Callable[[int], Tensor]
Sampler = Callable[[VelocityFn, Tensor, Schedule, np.ndarray, StepNoise], Tensor]


def row_noise(seeds: UInt64[np.ndarray, " b"], shape: tuple[int, ...], stream: int) -> Float[Tensor, "b ..."]:
    """Standard normal noise, float32 [b, *shape]: row k is Philox keyed by seeds[k], its counter begun at `stream`."""
    rows = [
        np.random.Generator(np.random.Philox(key=int(seed), counter=[0, 0, stream, 0])).standard_normal(
            shape, dtype=np.float32
        )
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(rows))


def _levels(schedule: Schedule, times: Int[np.ndarray, " n"]) -> list[float]:
    """abar at each time step, with a final 1 (no noise left)."""
    return [float(a) for a in schedule.alphas_cumprod[times]] + [1.0]


def _split(x: Tensor, v: Tensor, abar: float) -> tuple[Tensor, Tensor]:
    """x_0 and eps that (x_t, v) stand for."""
    signal, sd = math.sqrt(abar), math.sqrt(1.0 - abar)
    return signal * x - sd * v, sd * x + signal * v


def ddim(velocity: VelocityFn, x: Tensor, schedule: Schedule, times: np.ndarray, step_noise: StepNoise) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, arXiv:2010.02502, equation 12 with sigma 0); order 1."""
    abar = _levels(schedule, times)
    for i, t in enumerate(times.tolist()):
        x0, noise = _split(x, velocity(x, t), abar[i])
        x = math.sqrt(abar[i + 1]) * x0 + math.sqrt(1.0 - abar[i + 1]) * noise
    return x


def ddpm(velocity: VelocityFn, x: Tensor, schedule: Schedule, times: np.ndarray, step_noise: StepNoise) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, arXiv:2006.11239, equations 6 and 7, the smaller variance); adds noise
    at every step but the last.
    """
    abar = _levels(schedule, times)
    for i, t in enumerate(times.tolist()):
        x0, _ = _split(x, velocity(x, t), abar[i])
        now, then = abar[i], abar[i + 1]
        alpha = now / then
        x = math.sqrt(then) * (1.0 - alpha) / (1.0 - now) * x0 + math.sqrt(alpha) * (1.0 - then) / (1.0 - now) * x
        variance = (1.0 - then) / (1.0 - now) * (1.0 - alpha)
        if variance > 0.0:
            x = x + math.sqrt(variance) * step_noise(i)
    return x


def dpm_solver(velocity: VelocityFn, x: Tensor, schedule: Schedule, times: np.ndarray, step_noise: StepNoise) -> Tensor:
    """DPM-Solver++(2M), midpoint form (Lu et al. 2022, arXiv:2211.01095, Algorithm 2); order 2, first and last
    step of order 1.
    """
    abar = _levels(schedule, times)
    half_log_snr = [0.5 * math.log(a / (1.0 - a)) for a in abar[:-1]]
    before: Tensor | None = None
    for i, t in enumerate(times.tolist()):
        x0, _ = _split(x, velocity(x, t), abar[i])
        if i == len(times) - 1:
            return x0
        h = half_log_snr[i + 1] - half_log_snr[i]
        guess = x0
        if before is not None:
            ratio = (half_log_snr[i] - half_log_snr[i - 1]) / h
            guess = x0 + (x0 - before) / (2.0 * ratio)
        x = math.sqrt((1.0 - abar[i + 1]) / (1.0 - abar[i])) * x - math.sqrt(abar[i + 1]) * math.expm1(-h) * guess
        before = x0
    return x


def unipc(velocity: VelocityFn, x: Tensor, schedule: Schedule, times: np.ndarray, step_noise: StepNoise) -> Tensor:
    """UniPC-2 with B(h) = exp(h) - 1, data prediction (Zhao et al. 2023, arXiv:2302.04867, Algorithms 1 and 2): a
    predictor of order 2, and a corrector of order 2 that takes the next evaluation, so no evaluation is added; first
    and last step of order 1.
    """
    abar = _levels(schedule, times)
    signal, sd = [math.sqrt(a) for a in abar], [math.sqrt(1.0 - a) for a in abar]
    half_log_snr = [0.5 * math.log(a / (1.0 - a)) for a in abar[:-1]]
    older = before = start = x  # x_0 of the two steps before, and the corrected state that the last step began with
    for i, t in enumerate(times.tolist()):
        x0, _ = _split(x, velocity(x, t), abar[i])
        if i:  # correct the state at t_i, now that the network has been asked there
            h = half_log_snr[i] - half_log_snr[i - 1]
            grow, weight = math.expm1(-h), 0.5
            moved = sd[i] / sd[i - 1] * start - signal[i] * grow * before
            if i > 1:
                ratio = (half_log_snr[i - 2] - half_log_snr[i - 1]) / h
                first = grow / (-h) - 1.0
                b1, b2 = first / grow, 2.0 * (first / (-h) - 0.5) / grow
                back = (b2 - b1) / (ratio - 1.0)
                weight = b1 - back
                moved = moved - signal[i] * grow * (back / ratio) * (older - before)
            x = moved - signal[i] * grow * weight * (x0 - before)
        if i == len(times) - 1:
            return x0
        h, guess = half_log_snr[i + 1] - half_log_snr[i], x0
        if i:
            guess = x0 + 0.5 * h / (half_log_snr[i - 1] - half_log_snr[i]) * (before - x0)
        older, before, start = before, x0, x
        x = sd[i + 1] / sd[i] * x - signal[i + 1] * math.expm1(-h) * guess
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "dpm++": dpm_solver, "unipc": unipc}


def get_sampler(name: str) -> Sampler:
    """The sampler of this name. Raises ScheduleError, listing the known ones."""
    if name not in SAMPLERS:
        raise ScheduleError(f"sampler: got {name!r}, expected one of {', '.join(SAMPLERS)}; choose one of these")
    return SAMPLERS[name]
