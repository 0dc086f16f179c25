"""Published numbers and simulation for the sensitivity analysis."""

import numpy as np
import pytest
import statsmodels.api as sm

from causal.sensitivity import confounding_bias, e_value, e_value_of_interval, robustness, tipping_point


def test_robustness_of_the_darfur_example():
    """Cinelli and Hazlett 2020, table 1: estimate 0.097, se 0.023, df 783: R² 2.2 %, RV 13.9 %, RV at 5 % 7.6 %."""
    answer = robustness(np.array([0.09731582]), np.array([0.02325654]), np.array([783.0]))
    assert answer.partial_r2[0] == pytest.approx(0.02187, abs=1e-4)
    assert answer.value_to_null[0] == pytest.approx(0.1388, abs=1e-4)
    assert answer.interval_to_null[0] == pytest.approx(0.0763, abs=1e-4)
    assert robustness(np.array([0.01]), np.array([0.02]), np.array([783.0])).interval_to_null[0] == 0.0


def test_bias_formula_is_exact_for_a_known_confounder():
    """Leave a confounder out of a regression: the formula gives the difference of the two coefficients."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=400)
    t = 0.6 * z + rng.normal(size=400)
    y = 1.0 * t + 0.9 * z + rng.normal(size=400)
    short, long = sm.OLS(y, sm.add_constant(t)).fit(), sm.OLS(y, sm.add_constant(np.column_stack([t, z]))).fit()
    r2_outcome = 1 - long.ssr / short.ssr  # of z with y given t
    r2_treatment = np.corrcoef(z, t)[0, 1] ** 2
    bias = confounding_bias(short.bse[1:2], np.array([float(short.df_resid)]), r2_outcome, r2_treatment)
    assert bias[0] == pytest.approx(short.params[1] - long.params[1], rel=1e-10)
    # a confounder as strong as the robustness value on both sides brings the estimate exactly to zero
    rv = robustness(short.params[1:2], short.bse[1:2], np.array([float(short.df_resid)])).value_to_null[0]
    at_rv = confounding_bias(short.bse[1:2], np.array([float(short.df_resid)]), rv, rv)
    assert at_rv[0] == pytest.approx(short.params[1], rel=1e-10)
    with pytest.raises(ValueError, match="expected shares"):
        confounding_bias(short.bse[1:2], np.array([10.0]), 0.5, 1.0)


def test_e_values():
    # VanderWeele and Ding 2017: a risk ratio of 3.9 has the E-value 7.26
    assert e_value(np.array([np.log(3.9) / 0.91]))[0] == pytest.approx(7.26, abs=0.005)
    assert e_value(np.zeros(1))[0] == 1.0
    np.testing.assert_allclose(
        e_value_of_interval(np.array([-0.1, 0.5, -2.0]), np.array([0.3, 0.9, -0.5])),
        [1, *e_value(np.array([0.5, 0.5]))],
    )


def test_tipping_point_of_a_call():
    classes = np.array([[1.0, 0.0], [0.0, 1.0]])
    call = lambda effect: int(np.argmax(classes @ effect))  # noqa: E731
    # (2, 1) - s (1, 0) calls the other class from s = 1 on
    assert tipping_point(np.array([2.0, 1.0]), call, np.array([1.0, 0.0]), largest=5.0) == pytest.approx(1.0, abs=1e-9)
    assert tipping_point(np.array([2.0, 1.0]), call) == np.inf  # shrinking keeps the order up to nothing
    active = lambda effect: bool(np.abs(effect).max() > 0.5)  # noqa: E731
    assert tipping_point(np.array([2.0, 1.0]), active) == pytest.approx(0.75, abs=1e-9)
