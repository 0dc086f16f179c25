"""Stringencies forbid what they say; groups are left out whole."""

import numpy as np
import pandas as pd
import pytest

from profiling.profiles import InvalidProfiles, Profiles
from profiling.retrieval import Pairing, average_precisions, mean_average_precision
from profiling.stringency import by_stringency, leave_out, stringent

SAME = Pairing(("Compound",), (), (), ("Compound",))


def screen(seed=0, k=30):
    """Ten compounds, each always in its own well; two sources of two batches. Only the well has an effect."""
    rng = np.random.default_rng(seed)
    rows = [(f"c{c}", f"s{s}", f"s{s}b{b}", f"W{c % 5}") for s in range(2) for b in range(2) for c in range(10)]
    meta = pd.DataFrame(rows, columns=["Metadata_Compound", "Metadata_Source", "Metadata_Batch", "Metadata_Well"])
    well = {f"W{i}": rng.normal(size=k) for i in range(5)}
    values = np.stack([well[w] for w in meta["Metadata_Well"]]) + rng.normal(size=(40, k))
    return Profiles(meta, values, tuple(f"f{i}" for i in range(k)))


def test_positives_differ_in_the_column_of_the_stringency():
    profiles = screen()
    counts = {
        name: set(average_precisions(profiles, stringent(SAME, name))["n_positives"]) for name in ("NR", "NSB", "NSS")
    }
    assert counts == {"NR": {3}, "NSB": {3}, "NSS": {2}}  # of 4 rows of a compound: another source has 2
    assert stringent(stringent(SAME, "NSB"), "NSB").pos_diffby == ("Batch",)
    with pytest.raises(InvalidProfiles, match="must be one of"):
        stringent(SAME, "NSX")


def test_a_layout_that_helps_everywhere_but_at_nsl():
    table = by_stringency(screen(), SAME, ("Compound",), np.random.default_rng(0), 2000).set_index("stringency")
    assert table.loc["NR", "normalised"] > 0.2  # the well alone brings replicates together
    assert table.loc["NSL", "n_queries"] == 0  # and without it there is no replicate left
    assert "no query" in table.loc["NSL", "reason"]
    assert table.loc["NSS", "n_groups"] == 10


def test_the_interval_of_a_group_is_that_of_its_queries():
    queries = average_precisions(screen(), SAME)
    made = mean_average_precision(queries, ["Compound"], np.random.default_rng(0), 500)
    again = mean_average_precision(queries, ["Compound"], np.random.default_rng(0), 500)
    pd.testing.assert_frame_equal(made, again)
    assert (made["low"] <= made["map"]).all()
    assert (made["map"] <= made["high"]).all()
    alone = mean_average_precision(queries.head(1), ["Compound"], np.random.default_rng(0), 50)
    assert np.isnan(alone["low"]).all()


@pytest.mark.parametrize("column", ["Compound", "Batch", "Source"])
def test_groups_are_left_out_whole_and_once(column):
    profiles = screen()
    profiles.meta.loc[0, f"Metadata_{column}"] = None
    words = profiles.column(column)
    splits = list(leave_out(profiles, column, 2))
    for split in splits:
        assert not set(words[split.fit]) & set(words[split.evaluate])
        assert set(words[split.evaluate]) == set(split.left_out)
    assert (sum(split.evaluate.astype(int) for split in splits)[1:] == 1).all()
    assert not any(split.fit[0] or split.evaluate[0] for split in splits)
    with pytest.raises(InvalidProfiles, match="folds must lie between"):
        next(leave_out(profiles, column, 50))
