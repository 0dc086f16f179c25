"""Positivity by hand."""

import numpy as np
import pandas as pd
import pytest

from causal.support import extrapolation_distance, support

SEEN = pd.DataFrame(
    [
        ("A", "S1", "S1B1", "S1B1P1", 384, 0, 0),
        ("A", "S1", "S1B2", "S1B2P1", 384, 15, 23),
        ("B", "S2", "S2B1", "S2B1P1", 1536, 0, 0),
    ],
    columns=["compound", "source", "batch", "plate", "plate_format", "row", "column"],
)
DRAWS = pd.DataFrame(
    [
        ("S1", "S1B1", "S1B1P1", 384, 0, 0),
        ("S1", "S1B1", "S1B1P2", 384, 0, 23),
        ("S1", "S1B9", "S1B9P1", 384, 15, 23),
        ("S2", "S2B1", "S2B1P1", 1536, 31, 47),
    ],
    columns=["source", "batch", "plate", "plate_format", "row", "column"],
)


def test_distances_by_hand():
    distance = extrapolation_distance(SEEN[SEEN["compound"] == "A"], DRAWS)
    # this very well; another plate and the far end of the row (1 of sqrt 2); batch and plate; all three
    np.testing.assert_allclose(distance, [0, (1 + 1 / np.sqrt(2)) / 4, 2 / 4, 3 / 4], atol=1e-12)
    assert (extrapolation_distance(SEEN[:0], DRAWS) == 1).all()


def test_support_of_seen_and_unseen_compounds():
    report = support(SEEN, ["A", "B", "C"], DRAWS)
    table = report.table.set_index("compound")
    assert table.loc["A", ["wells", "plates", "batches", "sources", "positions"]].tolist() == [2, 2, 2, 1, 2]
    assert table.loc["A", ["plate_share", "batch_share", "source_share"]].tolist() == [0.25, 0.5, 0.75]
    assert table.loc["B", "source_share"] == 0.25
    assert table.loc["C", ["wells", "batch_share", "distance"]].tolist() == [0, 0, 1]
    assert "2 batches and 1 sources; 50% of the draws" in report.sentence("A")
    assert "never seen in training" in report.sentence("C")


def test_a_jump_like_table_supports_few_batches(real_data):
    """In JUMP's table (sources 2, 3 and 11) an annotated compound is seen in few of the batches."""
    wells = pd.read_csv(real_data / "jump_metadata" / "well_81fd6c6.csv.gz")
    plates = pd.read_csv(real_data / "jump_metadata" / "plate.csv.gz")
    annotated = pd.read_csv(real_data / "repurposing_hub" / "jump_x_repurposing_hub.csv.gz")
    wells = wells[wells["Metadata_Source"].isin(["source_2", "source_3", "source_11"])]
    wells = wells[wells["Metadata_JCP2022"].isin(set(annotated["Metadata_JCP2022"]))]
    compound_plates = plates[plates["Metadata_PlateType"] == "COMPOUND"]
    table = wells.merge(compound_plates, on=["Metadata_Source", "Metadata_Plate"])
    batches = table.groupby("Metadata_JCP2022")["Metadata_Batch"].nunique()
    assert batches.median() == pytest.approx(2, abs=1)
