"""Seen compounds are evaluated on batches of no training picture, unseen ones on every batch; all rows are counted."""

import numpy as np
import pandas as pd
import pytest

from profiling.heldout import hold_out
from profiling.profiles import InvalidProfiles, Profiles

KEYS = ["AAAAAAAAAAAAAA-UHFFFAOYSA-N", "BBBBBBBBBBBBBB-UHFFFAOYSA-N", "CCCCCCCCCCCCCC-UHFFFAOYSA-N"]


def wells():
    rows = [(key, batch) for key in KEYS for batch in ("b1", "b2", "b3")]
    meta = pd.DataFrame(rows, columns=["Metadata_InChIKey", "Metadata_Batch"])
    return Profiles(meta, np.arange(9.0)[:, None], ("f",))


def test_rows_and_counts():
    other_stereo = KEYS[1][:15] + "XXXXXXXXXX-N"
    training = pd.DataFrame({"InChIKey": [KEYS[0], KEYS[0], other_stereo], "Batch": ["b1", "b2", "b1"]})
    made = hold_out(wells(), training)
    assert made.profiles.values[:, 0].tolist() == [2, 5, 6, 7, 8]  # b3 of the seen two; all of the unseen one
    assert made.profiles.meta["Metadata_Seen"].tolist() == [True, True, False, False, False]
    assert made.funnel["rows"].tolist() == [9, 3, 6, 2]
    assert made.funnel["compounds"].tolist() == [3, 1, 2, 2]
    assert len(made.removed) == 4
    assert set(made.removed["Metadata_Batch"]) == {"b1", "b2"}
    whole = hold_out(wells(), training, inchikey=False)
    assert whole.profiles.meta["Metadata_Seen"].sum() == 1  # another stereo form is another word


def test_refusals():
    with pytest.raises(InvalidProfiles, match="no columns"):
        hold_out(wells(), pd.DataFrame({"InChIKey": KEYS}))
    everything = pd.DataFrame({"InChIKey": KEYS, "Batch": ["b1", "b2", "b3"]})
    with pytest.raises(InvalidProfiles, match="no row is left"):
        hold_out(wells(), everything)
