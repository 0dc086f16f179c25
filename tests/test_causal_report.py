"""The page about one effect says what was found and what could not have been."""

from dataclasses import replace

from causal.baselines import regression_adjustment
from causal.design import draw_contexts
from causal.diagnose import Question
from causal.report import BLIND, refute, report
from causal.tabular import COMPOUND, CONTROL, FEATURES, PLACEBO, TabularWorlds, WorldSettings


def page(settings):
    worlds = TabularWorlds.make(1, 3, settings)
    values, table = worlds.screens(0.6, 3, n_treated=60)
    question = Question(regression_adjustment, values, table, COMPOUND, CONTROL, ("plate", "edge"))
    draws = draw_contexts(worlds.contexts, 32, seed=0)
    return question, report(
        question, FEATURES, draws, adjusted=("source", "batch", "well"), placebo=PLACEBO, negative_features=[1]
    )


def test_a_hidden_cause_is_reported_where_controls_share_it_and_the_blind_spot_always():
    settings = WorldSettings(source_interaction_sd=0.0, hidden=2.0)
    question, shared = page(settings)
    _, unshared = page(replace(settings, hidden_shared=False))
    assert "**found**: placebo compound" in shared
    assert "**found**: negative-control outcome" in shared
    assert "not found: placebo compound" in unshared
    for text in (shared, unshared):
        assert BLIND in text
        assert "open: compound ← plate → picture" in text  # the graph's own caveat
        assert "was seen in 60 wells" in text
    names = [f.name for f in refute(question)]
    assert names == ["permuted allocation", "random common cause", "data subset", "leave one source out"]
