"""Designs: draws of weight 1/n, shared by all compounds, named by a hash."""

import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts, impossible
from causal.design import (
    PRESETS,
    SCHEMES,
    InvalidDesign,
    cross,
    design_hash,
    draw_contexts,
    draw_plan,
    load_plan,
)


@pytest.fixture(scope="module")
def contexts():
    rows = [
        (f"S{s}", f"S{s}B{b}", f"S{s}B{b}P{p}", 1536 if s == 3 else 384)
        for s in (1, 2, 3)
        for b in range(4)
        for p in (0, 1)
    ]
    return Contexts(pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format"]))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_every_scheme_gives_n_valid_draws_with_their_own_seeds(contexts, scheme, n):
    draws = draw_contexts(contexts, n, scheme, seed=5)
    assert list(draws.columns) == [
        "draw",
        "source",
        "batch",
        "plate",
        "plate_format",
        "row",
        "column",
        "seed",
        "scheme",
        "group",
    ]
    assert draws["draw"].tolist() == list(range(n))
    assert draws["seed"].dtype == np.uint64
    assert draws["seed"].is_unique
    assert not impossible(draws).any()
    pd.testing.assert_frame_equal(draws, draw_contexts(contexts, n, scheme, seed=5))
    assert not draws["seed"].equals(draw_contexts(contexts, n, scheme, seed=6)["seed"])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_draws_from_p_star(contexts, scheme):
    """Averaged over seeds, each draw has the batch and row probabilities of p*: the estimator is unbiased."""
    draws = pd.concat([draw_contexts(contexts, 6, scheme, seed=s) for s in range(150)])
    np.testing.assert_allclose(draws["batch"].value_counts(normalize=True), 1 / 12, atol=4 * np.sqrt(1 / 12 / 900))
    small = draws[draws["plate_format"] == 384]
    np.testing.assert_allclose(small["row"].mean(), 7.5, atol=4 * 4.61 / np.sqrt(len(small)))


def test_strata_are_balanced_over_sources_and_batches(contexts):
    draws = draw_contexts(contexts, 24, "stratified", seed=1)
    assert draws.groupby("group").size().tolist() == [2] * 12
    assert draws.groupby("batch").size().tolist() == [2] * 12
    iid = draw_contexts(contexts, 24, "iid", seed=1)
    assert iid.groupby("batch").size().max() > 2


@pytest.mark.parametrize(("scheme", "groups"), [("iid", None), ("sobol", 4)])
def test_the_first_draws_of_many_are_the_draws_of_few(contexts, scheme, groups):
    few = draw_contexts(contexts, 10, scheme, seed=3, groups=groups)
    many = draw_contexts(contexts, 50, scheme, seed=3, groups=groups)
    pd.testing.assert_frame_equal(few, many.head(10))


def test_seeds_per_context_repeat_the_context_but_not_the_seed(contexts):
    draws = draw_contexts(contexts, 12, "iid", seed=0, seeds_per_context=3)
    places = draws[["plate", "row", "column"]]
    assert places.iloc[0].equals(places.iloc[2])
    assert not places.iloc[2].equals(places.iloc[3])
    assert set(draws["scheme"]) == {"repeated"}
    assert draws["group"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    with pytest.raises(InvalidDesign, match="expected iid, lhs or sobol"):
        draw_contexts(contexts, 12, "stratified", seed=0, seeds_per_context=3)
    assert draws["seed"].is_unique


def test_compounds_share_contexts_and_seeds(contexts):
    draws = draw_contexts(contexts, 5, seed=1)
    design = cross(["DMSO", "A", "B"], draws)
    assert design["compound"].tolist() == ["DMSO", "A", "B"] * 5
    for _, rows in design.groupby("compound"):
        pd.testing.assert_frame_equal(rows.drop(columns="compound").reset_index(drop=True), draws)
    with pytest.raises(InvalidDesign, match="1 of them different"):
        cross(["A", "A"], draws)


def test_hash_is_of_content_not_of_order(contexts):
    design = cross(["DMSO", "A"], draw_contexts(contexts, 4, seed=1))
    shuffled = design.sample(frac=1, random_state=0)[design.columns[::-1]].astype({"row": np.int32})
    assert design_hash(shuffled) == design_hash(design)
    assert len(design_hash(design)) == 64
    for column, value in {"compound": "B", "batch": "S9B9", "row": 31, "seed": np.uint64(1)}.items():
        other = design.copy()
        other.loc[3, column] = value
        assert design_hash(other) != design_hash(design), column


def test_the_papers_algorithm_is_a_preset(contexts):
    plan = load_plan("paper-100")
    draws = draw_plan(contexts, plan, seed=0)
    assert (plan.n, plan.scheme, plan.distribution) == (100, "iid", "paper")
    assert PRESETS["paper-10"].n == 10
    # 8 of 12 batches have 384 wells, three quarters of the positions do not exist there
    assert impossible(draws).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 100))


def test_plans_come_from_toml_and_unknown_keys_are_errors(tmp_path, repository):
    for path in sorted((repository / "configs" / "causal").glob("plan_*.toml")):
        assert load_plan(path).n > 0
    (tmp_path / "a.toml").write_text('n = 32\nscheme = "lhs"\n')
    assert load_plan(tmp_path / "a.toml").scheme == "lhs"
    (tmp_path / "b.toml").write_text("draws = 32\n")
    with pytest.raises(InvalidDesign, match="unknown key 'draws'"):
        load_plan(tmp_path / "b.toml")
    with pytest.raises(InvalidDesign, match="paper-10"):
        load_plan("no-such-plan")


def test_impossible_requests_are_refused(contexts):
    for arguments, message in (
        ({"n": 0}, "got 0 draws"),
        ({"n": 5, "seeds_per_context": 2}, "multiple"),
        ({"n": 4, "scheme": "halton"}, "expected one of iid"),
        ({"n": 4, "scheme": "sobol", "groups": 3}, "expected 1 to 2"),
    ):
        with pytest.raises(InvalidDesign, match=message):
            draw_contexts(contexts, **arguments)
