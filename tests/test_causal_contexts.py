"""Contexts are nested, valid, and follow their p*(C)."""

import numpy as np
import pandas as pd
import pytest

from causal.contexts import (
    Condition,
    Contexts,
    InvalidContexts,
    UnknownDistribution,
    impossible,
    well_name,
    well_position,
)

PLATES = pd.DataFrame(
    [
        ("S1", "S1B1", "S1B1P1", 384),
        ("S1", "S1B1", "S1B1P2", 384),
        ("S1", "S1B1", "S1B1P3", 384),
        ("S1", "S1B2", "S1B2P1", 384),
        ("S2", "S2B1", "S2B1P1", 1536),
    ],
    columns=["source", "batch", "plate", "plate_format"],
)


def test_well_names_of_the_corners():
    assert [well_name(0, 0), well_name(15, 23), well_name(31, 47)] == ["A01", "P24", "AF48"]
    assert [well_position("A01"), well_position("Z10"), well_position("AF48")] == [(0, 0), (25, 9), (31, 47)]
    with pytest.raises(InvalidContexts, match="expected letters and a number"):
        well_position("17")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": "S1B1", "source": "S2"}, "batch 'S1B1' lies in 2 values of source"),
        ({"plate": "S1B1P1"}, "plate 'S1B1P1' lies in 2 values of batch"),
        ({"plate_format": 96}, "expected one of \\[384, 1536\\]"),
    ],
)
def test_tables_that_are_not_nested_are_refused(change, message):
    bad = PLATES.copy()
    for column, value in change.items():
        bad.loc[4, column] = value
    with pytest.raises(InvalidContexts, match=message):
        Contexts(bad)


@pytest.mark.parametrize(
    ("name", "by_plate"),
    [
        ("valid", [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3]),  # batches alike, then plates
        ("stratified", [1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 2]),  # sources alike, then batches, then plates
        ("uniform", [384 / 3072] * 4 + [1536 / 3072]),
        ("paper", [1 / 9, 1 / 9, 1 / 9, 1 / 3, 1 / 3]),
    ],
)
def test_named_distributions_have_these_plate_probabilities(name, by_plate):
    contexts = Contexts(PLATES)
    target = contexts.distribution(name)
    np.testing.assert_allclose(target.weight, by_plate, rtol=1e-12)
    # a fine regular grid through the quantile gives the same shares: the map is the inverse distribution
    u = np.column_stack([(np.arange(3600) + 0.5) / 3600, np.full(3600, 0.5), np.full(3600, 0.5)])
    drawn = target.quantile(u)["plate"].value_counts(normalize=True)
    np.testing.assert_allclose(drawn[PLATES.plate], by_plate, atol=1 / 3600)


def test_only_the_paper_draws_impossible_pairs_and_as_many_as_computed():
    contexts = Contexts(PLATES)
    u = np.random.default_rng(0).random((20_000, 3))
    for name in ("valid", "uniform", "stratified"):
        assert not impossible(contexts.distribution(name).quantile(u)).any()
    # 2 of 3 batches have 384 wells; 1152 of the 1536 positions do not exist there
    share = impossible(contexts.distribution("paper").quantile(u)).mean()
    assert share == pytest.approx(2 / 3 * 0.75, abs=0.012)


def test_enumeration_sums_to_one_and_equals_the_quantile_map():
    contexts = Contexts(PLATES, conditions=(Condition("dose", (1.0, 10.0), (1.0, 3.0)),))
    target = contexts.distribution("valid")
    every = target.enumerate()
    assert len(every) == (4 * 384 + 1536) * 2
    assert every["weight"].sum() == pytest.approx(1.0, abs=1e-12)
    u = np.random.default_rng(1).random((40_000, 4))
    drawn = target.quantile(u)
    for column in ("row", "column", "dose"):
        exact = (every[column] * every["weight"]).sum()
        assert drawn[column].mean() == pytest.approx(exact, abs=4 * drawn[column].std() / 200)


def test_wells_in_use_are_drawn_alike_even_when_rows_differ_in_length():
    positions = pd.DataFrame({"plate_format": 384, "row": [0, 0, 0, 7], "column": [1, 2, 3, 9]})
    contexts = Contexts(PLATES[PLATES.plate_format == 384], positions)
    drawn = contexts.distribution("valid").quantile(np.random.default_rng(2).random((20_000, 3)))
    share = drawn.groupby(["row", "column"]).size() / len(drawn)
    assert list(share.index) == [(0, 1), (0, 2), (0, 3), (7, 9)]
    np.testing.assert_allclose(share, 0.25, atol=0.013)
    with pytest.raises(InvalidContexts, match="0 of them exist"):
        Contexts(PLATES[PLATES.plate_format == 384], positions.assign(row=20))


def test_observed_and_user_tables():
    wells = pd.DataFrame({"plate": ["S1B1P1"] * 3 + ["S2B1P1"], "row": [0, 0, 1, 31], "column": [0, 0, 1, 47]})
    contexts = Contexts(PLATES)
    observed = contexts.distribution("observed", wells)
    np.testing.assert_allclose(observed.weight, [0.5, 0.25, 0.25])
    assert observed.enumerate()[["row", "column"]].to_numpy().tolist() == [[0, 0], [1, 1], [31, 47]]
    by_batch = contexts.distribution(pd.DataFrame({"batch": ["S1B1", "S2B1"], "weight": [3.0, 1.0]}))
    np.testing.assert_allclose(by_batch.weight, [0.25, 0.25, 0.25, 0.25])
    with pytest.raises(UnknownDistribution, match="got no table"):
        contexts.distribution("observed")
    with pytest.raises(UnknownDistribution, match="1 wells do not exist on their plate"):
        contexts.distribution(pd.DataFrame({"plate": ["S1B1P1"], "row": [31], "column": [0]}))
    with pytest.raises(UnknownDistribution, match="unknown batch"):
        contexts.distribution(pd.DataFrame({"batch": ["S9"]}))
    with pytest.raises(UnknownDistribution, match="expected a table or one of valid"):
        contexts.distribution("everything")


def test_the_papers_five_sources_have_48_batches(real_data):
    table = pd.read_csv(real_data / "jump_metadata" / "plate.csv.gz")
    contexts = Contexts.from_jump(table, sources=("source_1", "source_2", "source_3", "source_9", "source_11"))
    assert contexts.plates["batch"].nunique() == 48
    assert len(contexts.plates) == 830
    formats = contexts.plates.groupby("source")["plate_format"].unique().map(list).to_dict()
    assert formats == {"source_1": [1536], "source_2": [384], "source_3": [384], "source_9": [1536], "source_11": [384]}
