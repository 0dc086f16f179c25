"""The exact denoiser of a mixture of Gaussians, and the order at which each sampler converges on it."""

import numpy as np
import pytest
import torch

from ldm.mixture import GaussianMixture, errors, even_log_snr, fine_schedule, order
from ldm.sampler import SAMPLERS, dpm_solver, row_noise
from ldm.schedule import Schedule, ScheduleError, time_steps

MIXTURE = GaussianMixture((0.3, 0.7), (-1.0, 1.2), (0.35, 0.5))


def test_the_expected_picture_is_the_posterior_mean() -> None:
    abar, n = 0.3, 400_000
    rng = np.random.default_rng(0)
    which = rng.random(n) < 0.3
    x0 = np.where(which, rng.normal(-1.0, 0.35, n), rng.normal(1.2, 0.5, n))
    xt = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * rng.standard_normal(n)
    for at in (-1.0, 0.0, 1.0):
        near = np.abs(xt - at) < 0.02
        expected = float(MIXTURE.expected(torch.tensor([at], dtype=torch.float64), abar))
        # a few thousand draws within the window: standard error below 0.02
        assert x0[near].mean() == pytest.approx(expected, abs=0.05)


def test_the_fine_schedule_is_the_same_process() -> None:
    fine, plain = fine_schedule(100).alphas_cumprod, Schedule().alphas_cumprod
    np.testing.assert_allclose(np.log(fine[99::100]), np.log(plain), rtol=0.02)


# Slopes over 16 to 128 steps; UniPC's corrector adds an order to its predictor's 2 (Zhao et al., Theorem 3.1).
@pytest.mark.parametrize(("name", "low", "high"), [("ddim", 0.85, 1.15), ("dpm++", 1.8, 2.4), ("unipc", 2.2, 3.6)])
def test_samplers_converge_at_their_order(name: str, low: float, high: float) -> None:
    numbers = (16, 32, 64, 128)
    assert low < order(numbers, errors(SAMPLERS[name], numbers, MIXTURE, 2048)) < high


def test_ancestral_sampling_draws_from_the_mixture() -> None:
    seeds = np.arange(24, dtype=np.uint64)
    shape = (1, 16, 16)
    times = time_steps(Schedule(), 250, "trailing")
    noise = row_noise(seeds, shape, 0)
    found = SAMPLERS["ddpm"](
        MIXTURE.velocity(Schedule()), noise, Schedule(), times, lambda i: row_noise(seeds, shape, i + 1)
    )
    # 6,144 draws: standard error 0.006 of the share, 0.014 of the mean
    assert float((found < 0.15).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(found.mean()) == pytest.approx(0.3 * -1.0 + 0.7 * 1.2, abs=0.05)


def test_more_steps_than_the_schedule_can_tell_apart_are_refused() -> None:
    with pytest.raises(ScheduleError, match="no step is taken twice"):
        even_log_snr(Schedule(), 900)
    assert len(even_log_snr(Schedule(), 20)) == 20
    assert dpm_solver is SAMPLERS["dpm++"]


def test_guidance_biases_an_effect_whose_truth_is_known() -> None:
    control, treated = GaussianMixture((1.0,), (0.0,), (0.5,)), GaussianMixture((1.0,), (1.0,), (0.5,))
    both = GaussianMixture((0.5, 0.5), (0.0, 1.0), (0.5, 0.5)).velocity(Schedule())
    start = row_noise(np.arange(16, dtype=np.uint64), (1, 16, 16), 0).double()
    times = time_steps(Schedule(), 40, "trailing")

    def mean(of: GaussianMixture, scale: float) -> float:
        told = of.velocity(Schedule())

        def guided(x: torch.Tensor, t: int) -> torch.Tensor:
            return both(x, t) + scale * (told(x, t) - both(x, t))

        return float(SAMPLERS["dpm++"](guided, start, Schedule(), times, lambda _: start).mean())

    assert mean(treated, 1.0) - mean(control, 1.0) == pytest.approx(1.0, abs=0.02)
    assert mean(treated, 3.0) - mean(control, 3.0) > 1.5
