"""The noise schedule and the equations of v-prediction.

Forward process: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, with abar_t the running product of 1 - beta_t. The
network predicts v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (Salimans and Ho 2022, arXiv:2202.00512, Appendix D).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class ScheduleError(ValueError):
    """Raised when a schedule or a number of steps makes no sense."""


@dataclass(frozen=True)
class Schedule:
    """A scaled-linear schedule: sqrt(beta) runs linearly from sqrt(beta_start) to sqrt(beta_end) over `steps` steps."""

    steps: int = 1000
    beta_start: float = 0.0015
    beta_end: float = 0.0205

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ScheduleError(
                f"schedule: got {self!r}, expected steps >= 1 and 0 < beta_start <= beta_end < 1; correct the "
                "configuration"
            )

    @property
    def betas(self) -> Float[np.ndarray, " t"]:
        """beta_t, float64 [steps]."""
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=np.float64) ** 2

    @property
    def alphas_cumprod(self) -> Float[np.ndarray, " t"]:
        """abar_t, float64 [steps], falling from almost 1 to almost 0."""
        return np.cumprod(1.0 - self.betas)

    def signal_noise(self, t: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """sqrt(abar_t) and sqrt(1 - abar_t) of each row, float32 [b, 1, 1, 1], on the device of t."""
        abar = torch.as_tensor(self.alphas_cumprod, device=t.device)[t].view(-1, 1, 1, 1)
        return abar.sqrt().float(), (1.0 - abar).sqrt().float()


def add_noise(
    x0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: Int[Tensor, " b"], schedule: Schedule
) -> Float[Tensor, "b c h w"]:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps."""
    signal, sd = schedule.signal_noise(t)
    return signal * x0 + sd * noise


def velocity(
    x0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], t: Int[Tensor, " b"], schedule: Schedule
) -> Float[Tensor, "b c h w"]:
    """v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0, the target of the network."""
    signal, sd = schedule.signal_noise(t)
    return signal * noise - sd * x0


def x0_from_velocity(
    xt: Float[Tensor, "b c h w"], v: Float[Tensor, "b c h w"], t: Int[Tensor, " b"], schedule: Schedule
) -> Float[Tensor, "b c h w"]:
    """x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v."""
    signal, sd = schedule.signal_noise(t)
    return signal * xt - sd * v


def noise_from_velocity(
    xt: Float[Tensor, "b c h w"], v: Float[Tensor, "b c h w"], t: Int[Tensor, " b"], schedule: Schedule
) -> Float[Tensor, "b c h w"]:
    """eps = sqrt(1 - abar_t) x_t + sqrt(abar_t) v."""
    signal, sd = schedule.signal_noise(t)
    return sd * xt + signal * v


def min_snr_weight(t: Int[Tensor, " b"], schedule: Schedule, gamma: float) -> Float[Tensor, " b"]:
    """Weight of the v loss under min-SNR-gamma: min(SNR, gamma) / (SNR + 1) (Hang et al. 2023, arXiv:2303.09556,
    v-prediction form).
    """
    abar = torch.as_tensor(schedule.alphas_cumprod, device=t.device)[t]
    snr = abar / (1.0 - abar)
    return (snr.clamp(max=gamma) / (snr + 1.0)).float()


def trailing_steps(schedule: Schedule, n: int) -> Int[np.ndarray, " n"]:
    """n time steps in falling order, trailing spacing: the first is always T - 1 (Lin et al. 2023, arXiv:2305.08891,
    Table 2).

    Raises ScheduleError unless 1 <= n <= T.
    """
    if not 1 <= n <= schedule.steps:
        raise ScheduleError(f"number of steps: got {n}, expected 1 to {schedule.steps}; choose a number in that range")
    return np.round(np.arange(schedule.steps, 0, -schedule.steps / n)).astype(np.int64) - 1


def quadratic_steps(schedule: Schedule, n: int) -> Int[np.ndarray, " n"]:
    """n time steps in falling order from T - 1, their square roots evenly spaced (Song et al. 2021, arXiv:2010.02502,
    D.3).

    The last step starts where little noise is left, so that few steps do not smooth fine structure away, as trailing
    ones
    do: with 20 of them the last goes to the mean of what noise of sd 0.29 leaves open. Raises ScheduleError unless
    1 <= n <= sqrt(T).
    """
    if not 1 <= n <= math.isqrt(schedule.steps):
        raise ScheduleError(
            f"number of steps: got {n}, expected 1 to {math.isqrt(schedule.steps)} with quadratic spacing; "
            "choose a number in that range, or trailing spacing"
        )
    return np.round((schedule.steps - 1) * (np.arange(n, 0, -1) / n) ** 2).astype(np.int64)


SPACINGS = {"trailing": trailing_steps, "quadratic": quadratic_steps}


def time_steps(schedule: Schedule, n: int, spacing: str) -> Int[np.ndarray, " n"]:
    """n time steps by the name of their spacing. Raises ScheduleError for an unknown name or number."""
    if spacing not in SPACINGS:
        raise ScheduleError(f"spacing: got {spacing!r}, expected one of {', '.join(SPACINGS)}; choose one of these")
    return SPACINGS[spacing](schedule, n)
