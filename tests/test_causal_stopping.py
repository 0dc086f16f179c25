"""Sequential stopping covers what it says; peeking does not."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from causal.contexts import Contexts
from causal.design import InvalidDesign
from causal.stopping import RULES, StoppingRule, confidence_sequence, draw_until, effects_until


def stream(mean, sd, seed, missing=0.0):
    """Unit i is a function of (seed, i)."""
    values = np.random.default_rng(seed).normal(mean, sd, (5000, np.size(sd)))
    values[np.random.default_rng([seed, 1]).random(5000) < missing] = np.nan
    return lambda start, count: values[start : start + count]


@pytest.mark.parametrize("rule", RULES)
def test_it_stops_when_every_interval_is_narrow_and_not_before(rule):
    stopped = draw_until(stream([1.0, 1.0], [1.0, 3.0], 0), StoppingRule(width=1.0, rule=rule))
    assert stopped.reached.all()
    assert (stopped.high - stopped.low <= 1.0 + 1e-9).all()
    # a known variance would need (2 z sd / width)^2 = 138 units for the noisier feature
    assert 100 < stopped.n_units < 400
    assert stopped.high[0] - stopped.low[0] < 0.5  # the quieter one gets as many units


def test_two_stage_interval_is_steins():
    sample = stream([0.0], [2.0], 3)
    stopped = draw_until(sample, StoppingRule(width=1.0, pilot=20, batch=7))
    s0 = sample(0, 20).std(ddof=1)
    t = stats.t.ppf(0.975, 19)
    n = int(np.ceil((2 * t * s0 / 1.0) ** 2))
    assert stopped.n_units == n
    assert stopped.value[0] == pytest.approx(sample(0, n).mean(), rel=1e-12)
    assert stopped.high[0] - stopped.value[0] == pytest.approx(t * s0 / np.sqrt(n), rel=1e-12)


def test_confidence_sequence_is_the_published_formula():
    # Waudby-Smith et al. 2024, theorem 2.2, written out for t = 50 and rho tuned for t = 100
    rho2 = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 100
    expected = 2.0 * np.sqrt(2 * (50 * rho2 + 1) / (50**2 * rho2) * np.log(np.sqrt(50 * rho2 + 1) / 0.05))
    half = confidence_sequence(np.array([2.0]), np.array([50]), 100, 0.95)
    np.testing.assert_allclose(half, expected, rtol=1e-12)


def test_coverage_under_stopping_over_2000_worlds():
    """Two-stage covers 95 %; peeking at ordinary intervals does not; the sequence covers at least 95 %."""
    covered = dict.fromkeys([*RULES, "peeking"], 0)
    worlds = 2000
    for world in range(worlds):
        sample = stream([0.7], [1.0], world)
        for rule in RULES if world < 500 else RULES[:1]:
            stopped = draw_until(sample, StoppingRule(width=0.8, pilot=10, batch=10, rule=rule))
            covered[rule] += int(stopped.low[0] <= 0.7 <= stopped.high[0])
        values = sample(0, 400)[:, 0]
        n = np.arange(1, 401)
        mean = values.cumsum() / n
        sd = np.sqrt(np.maximum((values**2).cumsum() / n - mean**2, 0) * n / np.maximum(n - 1, 1))
        half = 1.96 * sd / np.sqrt(n)
        stop = 1 + np.argmax(2 * half[1:] <= 0.8)
        covered["peeking"] += int(abs(mean[stop] - 0.7) <= half[stop])
    assert 0.94 <= covered["two-stage"] / worlds <= 0.96
    assert covered["peeking"] / worlds < 0.90
    assert covered["sequence"] / 500 >= 0.95


def test_missing_units_are_counted_and_the_wanted_number_is_of_those_with_a_value():
    full = draw_until(stream([0.0], [1.0], 1), StoppingRule(width=0.4))
    some = draw_until(stream([0.0], [1.0], 1, missing=0.3), StoppingRule(width=0.4))
    assert some.n_units > some.n_valid[0] >= 90
    assert some.n_units > 1.2 * full.n_units
    assert some.reached.all()


def test_giving_up_is_said_and_still_covers():
    stopped = draw_until(stream([0.0], [1.0], 1), StoppingRule(width=0.01, max_units=64))
    assert stopped.n_units == 64
    assert not stopped.reached[0]
    assert stopped.high[0] - stopped.low[0] > 0.4


@pytest.mark.parametrize("block", [1, 8])
def test_the_whole_chain_stops_on_paired_effects(block):
    rows = [(f"S{s}", f"S{s}B{b}", f"S{s}B{b}P0", 384) for s in (1, 2) for b in range(4)]
    contexts = Contexts(pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format"]))

    def paint(rows):
        active = rows["compound"].map({"DMSO": 0.0, "A": 1.0, "B": 2.0}).to_numpy(float)
        return active * (5.0 + rows["row"].to_numpy()) + 100.0 * rows["column"].to_numpy()

    rule = StoppingRule(width=3.0, pilot=16, batch=16)
    stopped = effects_until(paint, lambda p: p[:, None], ["A", "B"], contexts, "DMSO", rule, seed=1, block=block)
    assert stopped.reached.all()
    truth = np.array([12.5, 25.0])  # the mean row is 7.5
    assert (np.abs(stopped.value - truth) < 3).all()
    if block == 8:  # rows are stratified within a block: fewer pictures for the same width
        single = effects_until(paint, lambda p: p[:, None], ["A", "B"], contexts, "DMSO", rule, seed=1)
        assert stopped.n_units * block < single.n_units


def test_rules_that_mean_nothing_are_refused():
    for bad in ({"width": 0.0}, {"width": 1.0, "pilot": 1}, {"width": 1.0, "rule": "peek"}):
        with pytest.raises(InvalidDesign, match="expected"):
            StoppingRule(**bad)
