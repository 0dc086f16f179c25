"""The painted world as a test bench: truth by brute force, and a screen whose dial confounds."""

import numpy as np
import pytest

from causal.contexts import Contexts
from causal.design import cross, draw_contexts
from causal.gformula import contrast
from causal.painted import FEATURES, PaintedConfig, observed_screen, painted_dial, painted_world, simple_features
from causal.phenotype import DMSO


def test_features_of_a_picture_by_hand():
    picture = np.zeros((1, 5, 2, 2))
    picture[0, 1] = [[1.0, 1.0], [1.0, 5.0]]
    found = dict(zip(FEATURES, simple_features(picture)[0], strict=True))
    assert (found["ER_mean"], found["ER_spread"], found["ER_foreground"]) == (2.0, pytest.approx(np.sqrt(3)), 0.25)
    assert found["DNA_mean"] == 0.0


def test_pairing_pays_in_painted_pictures():
    """The same cells, treated and not: paired errors are smaller than those of arms with their own seeds."""
    world = painted_world(PaintedConfig(compounds=1, classes=1))
    draws = draw_contexts(Contexts.from_table(world.plates), 24, "iid", seed=0)
    design = cross([DMSO, "compound00"], draws)
    values = simple_features(world.paint(design))
    paired = contrast(values, design, DMSO, names=FEATURES).se[1]
    arms = [values[(design["compound"] == c).to_numpy()].std(0, ddof=1) for c in (DMSO, "compound00")]
    unpaired = np.sqrt((arms[0] ** 2 + arms[1] ** 2) / 24)
    assert np.median(unpaired / paired) > 1.5


def test_the_dial_ties_compounds_to_places():
    config = PaintedConfig(compounds=2, classes=2, wells=12)
    world = painted_world(config)
    tables = [observed_screen(world, config, dial)[1] for dial in (0.0, 1.0)]
    places = [t[t["compound"] != DMSO].groupby("compound")["batch"].nunique().mean() for t in tables]
    assert places[1] <= 3 < places[0]


@pytest.mark.slow
def test_the_g_formula_on_the_world_covers_and_naive_does_not():
    table = painted_dial(PaintedConfig(compounds=6, wells=24, truth_draws=192, dial=(0.0, 1.0)))
    rows = table.set_index(["setting", "estimator"])
    assert rows.loc[("1.00", "g-formula, simulator"), "coverage"] >= 0.88
    assert rows.loc[("0.00", "naive"), "coverage"] >= 0.88
    assert rows.loc[("1.00", "naive"), "coverage"] < 0.8
    assert rows.loc[("1.00", "naive"), "rmse"] > 4 * rows.loc[("1.00", "g-formula, simulator"), "rmse"]
