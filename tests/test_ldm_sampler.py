"""Samplers against diffusers' schedulers, and against the exact solution when the data are Gaussian."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from ldm.sampler import SAMPLERS, get_sampler, row_noise
from ldm.schedule import Schedule, ScheduleError, time_steps

SEEDS = np.arange(3, dtype=np.uint64)
SHAPE = (2, 4, 4)


def step_noise(i: int) -> Tensor:
    return row_noise(SEEDS, SHAPE, i + 1)


def some_network(x: Tensor, t: int) -> Tensor:
    return torch.tanh(0.7 * x + 0.001 * t - 0.3)


def oracle(kind: type, steps: int, **extra: Any) -> Any:
    # exactly our betas: diffusers' own are the same computed in float32
    scheduler = kind(
        1000,
        trained_betas=Schedule().betas,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        **extra,
    )
    scheduler.set_timesteps(steps)
    return scheduler


ORACLES: dict[str, Callable[[int], Any]] = {
    "ddpm": lambda n: oracle(DDPMScheduler, n, clip_sample=False),
    "ddim": lambda n: oracle(DDIMScheduler, n, clip_sample=False),
    "dpm++": lambda n: oracle(DPMSolverMultistepScheduler, n, final_sigmas_type="zero"),
    "unipc": lambda n: oracle(UniPCMultistepScheduler, n, final_sigmas_type="zero", solver_type="bh2"),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers under NumPy 2
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_samplers_are_those_of_diffusers(name: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = ORACLES[name](steps)
    x = start = row_noise(SEEDS, SHAPE, 0)
    for i, t in enumerate(scheduler.timesteps):
        monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, i=i, **__: step_noise(i))
        x = scheduler.step(some_network(x, int(t)), t, x).prev_sample
    ours = SAMPLERS[name](some_network, start, Schedule(), time_steps(Schedule(), steps, "trailing"), step_noise)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-5)


MEAN, SD = 1.5, 0.4


def gaussian_velocity(x: Tensor, t: int) -> Tensor:
    """The exact E[v | x_t] when x_0 is normal with MEAN and SD."""
    abar = Schedule().alphas_cumprod[t]
    x0 = MEAN + SD**2 * abar**0.5 * (x - abar**0.5 * MEAN) / (SD**2 * abar + 1 - abar)
    noise = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
    return abar**0.5 * noise - (1 - abar) ** 0.5 * x0


def exact_solution(x: Tensor) -> Tensor:
    """Where the probability-flow line from x_T ends: Gaussian quantiles are kept."""
    abar = Schedule().alphas_cumprod[-1]
    return MEAN + SD * (x - abar**0.5 * MEAN) / (SD**2 * abar + 1 - abar) ** 0.5


def error(name: str, steps: int, spacing: str = "trailing") -> float:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None, None]
    found = SAMPLERS[name](gaussian_velocity, x, Schedule(), time_steps(Schedule(), steps, spacing), step_noise)
    return float((found - exact_solution(x)).abs().max())


def test_deterministic_samplers_reach_the_exact_solution() -> None:
    assert error("ddim", 1000) < 0.01
    assert error("dpm++", 1000) < 0.01
    assert error("unipc", 1000) < 0.01
    # the last trailing step makes both first order; the quadratic ones leave DPM-Solver++ its second order
    assert 1.6 < error("ddim", 100) / error("ddim", 200) < 2.2
    assert error("dpm++", 31, "quadratic") < 0.2 * error("ddim", 31, "quadratic")
    assert error("dpm++", 20, "quadratic") < 0.1 * error("dpm++", 20)


def test_ancestral_sampling_reaches_the_mean_and_spread_of_the_data() -> None:
    seeds = np.arange(8, dtype=np.uint64)
    x = row_noise(seeds, (16, 8, 8), 0)
    times = time_steps(Schedule(), 500, "trailing")
    found = SAMPLERS["ddpm"](gaussian_velocity, x, Schedule(), times, lambda i: row_noise(seeds, (16, 8, 8), i + 1))
    # 8,192 values: the standard error is SD / 90 = 0.0044 of the mean and 0.0031 of the sd
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(SD, abs=0.03)


def test_noise_is_a_function_of_seed_and_stream_only() -> None:
    together = row_noise(SEEDS, SHAPE, 3)
    alone = torch.cat([row_noise(SEEDS[i : i + 1], SHAPE, 3) for i in range(3)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, row_noise(SEEDS, SHAPE, 4))
    many = row_noise(np.arange(200, dtype=np.uint64), (500,), 0)
    assert abs(float(many.mean())) < 0.02
    assert float(many.std()) == pytest.approx(1.0, abs=0.01)
    # neighbouring seeds and streams do not repeat each other
    assert abs(float((many[:-1] * many[1:]).mean())) < 0.02


def test_an_unknown_sampler_is_refused_and_the_known_are_listed() -> None:
    with pytest.raises(ScheduleError, match=r"expected one of ddpm, ddim, dpm\+\+, unipc"):
        get_sampler("euler")
