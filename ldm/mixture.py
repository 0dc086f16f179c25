"""A world in which the denoiser is known: data from a mixture of Gaussians, whose score is exact at every noise level.

With x_t = s x_0 + r eps (s = sqrt(abar), r = sqrt(1 - abar)) each component stays Gaussian, with mean s m and variance
s^2 d^2 + r^2, so E[x_0 | x_t] is a weighted mean of the components' regressions. What a sampler does wrong is then its
own error: nothing was learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ldm.sampler import Sampler, VelocityFn
from ldm.schedule import Schedule, ScheduleError


@dataclass(frozen=True)
class GaussianMixture:
    """Each number of a sample is drawn on its own: component k with probability weights[k], normal with means[k] and
    sds[k].
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    def expected(self, x: Float[Tensor, "..."], abar: float) -> Float[Tensor, "..."]:
        """E[x_0 | x_t], element by element (Bayes' rule for the component, regression within it)."""
        signal, noise = math.sqrt(abar), 1.0 - abar
        weights, means, sds = (x.new_tensor(v) for v in (self.weights, self.means, self.sds))
        variance = abar * sds**2 + noise
        gap = x[..., None] - signal * means
        share = torch.softmax(weights.log() - 0.5 * variance.log() - 0.5 * gap**2 / variance, dim=-1)
        return (share * (means + signal * sds**2 / variance * gap)).sum(dim=-1)

    def velocity(self, schedule: Schedule) -> VelocityFn:
        """The exact E[v | x_t] as the network of a sampler."""
        levels = schedule.alphas_cumprod

        def exact(x: Tensor, t: int) -> Tensor:
            abar = float(levels[t])
            x0 = self.expected(x, abar)
            noise = (x - math.sqrt(abar) * x0) / math.sqrt(1.0 - abar)
            return math.sqrt(abar) * noise - math.sqrt(1.0 - abar) * x0

        return exact


def fine_schedule(times_finer: int = 100) -> Schedule:
    """The paper's schedule cut into `times_finer` times as many steps with as much less noise each, so that whole
    numbers of steps do not limit how finely a solver can go.
    """
    plain = Schedule()
    return Schedule(plain.steps * times_finer, plain.beta_start / times_finer, plain.beta_end / times_finer)


def even_log_snr(schedule: Schedule, n: int, last: float = 2.0) -> Int[np.ndarray, " n"]:
    """n falling time steps from the noisiest, even in lambda = log(signal / noise), the last one at lambda = `last`.

    Raises ScheduleError when two of them fall on the same step.
    """
    levels = schedule.alphas_cumprod
    half_log_snr = 0.5 * np.log(levels / (1.0 - levels))
    times = np.searchsorted(-half_log_snr, -np.linspace(half_log_snr[-1], last, n), side="left").clip(
        0, schedule.steps - 1
    )
    if (np.diff(times) >= 0).any():
        raise ScheduleError(f"number of steps: got {n}, expected fewer, so that no step is taken twice; choose less")
    return times.astype(np.int64)


def errors(
    sampler: Sampler, numbers: Sequence[int], mixture: GaussianMixture, reference: int = 4096
) -> Float[np.ndarray, " n"]:
    """Root mean square distance between where `sampler` ends after each number of steps and where the probability
    flow ends (DPM-Solver++ with `reference` steps), from the same 257 starting points, in float64.
    """
    from ldm.sampler import dpm_solver

    schedule = fine_schedule()
    start = torch.linspace(-2.5, 2.5, 257, dtype=torch.float64)[:, None, None, None]

    def end(run: Sampler, n: int) -> Tensor:
        return run(mixture.velocity(schedule), start, schedule, even_log_snr(schedule, n), lambda _: start * 0.0)

    truth = end(dpm_solver, reference)
    return np.array([float((end(sampler, n) - truth).pow(2).mean().sqrt()) for n in numbers])


def order(numbers: Sequence[int], error: Float[np.ndarray, " n"]) -> float:
    """Minus the slope of log error against log number of steps, by least squares."""
    return -float(np.polyfit(np.log(np.asarray(numbers, dtype=np.float64)), np.log(error), 1)[0])
