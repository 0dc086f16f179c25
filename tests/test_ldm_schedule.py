"""The noise schedule against diffusers', and the identities of v-prediction."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ldm.schedule import (
    Schedule,
    ScheduleError,
    add_noise,
    min_snr_weight,
    noise_from_velocity,
    trailing_steps,
    velocity,
    x0_from_velocity,
)

T = torch.tensor([0, 1, 500, 998, 999])


def oracle() -> DDPMScheduler:
    return DDPMScheduler(
        1000, beta_start=0.0015, beta_end=0.0205, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )


def test_schedule_is_that_of_diffusers() -> None:
    np.testing.assert_allclose(Schedule().alphas_cumprod, oracle().alphas_cumprod.numpy(), rtol=2e-5)


def test_signal_left_at_the_end_is_that_of_the_design() -> None:
    assert np.sqrt(Schedule().alphas_cumprod[-1]) == pytest.approx(0.0098, abs=1e-4)


def test_noise_and_velocity_are_those_of_diffusers() -> None:
    x0, noise = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(add_noise(x0, noise, T, Schedule()), oracle().add_noise(x0, noise, T), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        velocity(x0, noise, T, Schedule()), oracle().get_velocity(x0, noise, T), atol=1e-5, rtol=0
    )


def test_x0_and_noise_come_back_from_the_velocity() -> None:
    x0, noise = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    xt, v = add_noise(x0, noise, T, Schedule()), velocity(x0, noise, T, Schedule())
    torch.testing.assert_close(x0_from_velocity(xt, v, T, Schedule()), x0, atol=1e-5, rtol=0)
    torch.testing.assert_close(noise_from_velocity(xt, v, T, Schedule()), noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [1, 4, 20, 30, 50, 1000])
def test_trailing_steps_are_those_of_diffusers(n: int) -> None:
    scheduler = DDPMScheduler(1000, timestep_spacing="trailing")
    scheduler.set_timesteps(n)
    assert trailing_steps(Schedule(), n).tolist() == scheduler.timesteps.tolist()
    assert trailing_steps(Schedule(), n)[0] == 999


def test_min_snr_never_weighs_more_than_plain_v_loss() -> None:
    weight = min_snr_weight(torch.arange(1000), Schedule(), 5.0)
    abar = torch.from_numpy(Schedule().alphas_cumprod)
    snr = abar / (1 - abar)
    low = snr <= 5.0
    torch.testing.assert_close(weight[low].double(), abar[low], atol=1e-6, rtol=0)
    torch.testing.assert_close(weight[~low].double(), 5.0 / (snr[~low] + 1), atol=1e-6, rtol=1e-5)


def test_senseless_schedules_are_refused() -> None:
    with pytest.raises(ScheduleError, match="expected 1 to 1000"):
        trailing_steps(Schedule(), 1001)
    with pytest.raises(ScheduleError, match="beta_start"):
        Schedule(beta_start=0.5, beta_end=0.1)
