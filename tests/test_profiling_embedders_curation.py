"""CHAMMI-75's curation on tables whose right answer is counted by hand."""

import numpy as np
import pandas as pd
import pytest

from profiling.embedders.curation import (
    COLUMNS,
    CurationConfig,
    bright_enough,
    central_slices,
    complete,
    curate,
    even_over_clusters,
    fewer_controls,
    spread_frames,
)
from profiling.embedders.data import InvalidTrainingData


def files(rows: list[dict[str, object]]) -> pd.DataFrame:
    base = {"experiment.study": "s1", "experiment.control": "no"}
    table = pd.DataFrame([base | {"imaging.multi_channel_id": f"s1_{i}", "storage.path": f"{i}.png"} | row
                          for i, row in enumerate(rows)])  # fmt: skip
    return complete(table.rename(columns=str))


def test_the_schema_has_22_columns_in_six_groups_and_no_empty_cell() -> None:
    assert len(COLUMNS) == 22
    assert len({name.split(".")[0] for name in COLUMNS}) == 6
    table = files([{"biology.cell_line": "U2OS", "microscopy.magnification": 20}, {"biology.cell_line": " "}])
    assert tuple(table.columns) == COLUMNS
    assert table["biology.cell_line"].tolist() == ["U2OS", "unknown"]
    assert not (table == "").to_numpy().any()
    assert (table["geometry.z_slice"] == "unknown").all()
    with pytest.raises(InvalidTrainingData, match=r"biology\.age"):
        complete(pd.DataFrame({"biology.age": [1]}))
    with pytest.raises(InvalidTrainingData, match=r"storage\.path"):
        complete(pd.DataFrame({"experiment.study": ["s"], "imaging.multi_channel_id": ["1"]}))


def test_slices_in_the_middle_fifth_of_their_stack() -> None:
    table = files([{"geometry.z_slice": z, "microscopy.fov": "1"} for z in range(10)]
                  + [{"geometry.z_slice": z, "microscopy.fov": "2"} for z in range(3)] + [{}])  # fmt: skip
    keep = central_slices(table, 0.2)
    assert np.flatnonzero(keep).tolist() == [4, 5, 11, 13]  # 2 of 10, 1 of 3, and the file of no stack


def test_frames_are_spread_over_the_sequence() -> None:
    table = files([{"geometry.timepoint": t} for t in range(9)])
    assert np.flatnonzero(spread_frames(table, 3)).tolist() == [0, 4, 8]
    assert spread_frames(table, 20).all()


def test_controls_are_as_many_as_a_reagent_has() -> None:
    rows = [{"experiment.reagent": f"r{i % 3}"} for i in range(6)]
    rows += [{"experiment.control": "negative", "experiment.reagent": "DMSO"} for _ in range(20)]
    rows += [{"experiment.study": "s2", "experiment.control": "negative", "imaging.multi_channel_id": f"s2_{i}"}
             for i in range(5)]  # fmt: skip
    keep = fewer_controls(files(rows), np.random.default_rng(0))
    assert keep[:6].all()
    assert keep[6:26].sum() == 2  # the median reagent of the study has two pictures
    assert keep[26:].all()  # a study of controls only


def test_dark_channels_go_by_their_own_study() -> None:
    table = files([{"experiment.study": "a"}] * 10 + [{"experiment.study": "b"}] * 10)
    mean = np.concatenate([np.linspace(90, 110, 10), np.linspace(0.9, 1.1, 10)])
    assert bright_enough(table, mean, 3.0).all()
    mean[3] = 1.0
    assert np.flatnonzero(~bright_enough(table, mean, 3.0)).tolist() == [3]
    mean[15] = 0.0
    assert np.flatnonzero(~bright_enough(table, mean, 100.0)).tolist() == [15]


def test_selection_by_content_takes_from_every_cluster_alike() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 0.1, (200, 2)), rng.normal(5, 0.1, (20, 2)), rng.normal(-5, 0.1, (5, 2))])
    chosen = even_over_clusters(features, 30, 3, np.random.default_rng(1))
    kinds = np.digitize(chosen, [200, 220])
    assert np.bincount(kinds).tolist() == [13, 12, 5]  # the third has only five
    assert len(even_over_clusters(features, 0, 3, np.random.default_rng(1))) == 225


def test_all_steps_in_their_order() -> None:
    rows = [{"geometry.z_slice": z, "microscopy.fov": str(f), "imaging.multi_channel_id": f"m{f}_{z}",
             "experiment.reagent": f"r{f}"} for f in range(8) for z in range(5)]  # fmt: skip
    table = files(rows)
    mean = np.full(len(table), 10.0)
    features = np.repeat(np.arange(8.0)[:, None], 5, axis=0)
    done = curate(table, mean, features, CurationConfig(keep=4, clusters=4))
    assert done.log["step"].tolist() == [
        "complete", "central slices", "spread frames", "fewer controls", "bright enough", "even over clusters"
    ]  # fmt: skip
    assert done.log["files"].tolist() == [40, 8, 8, 8, 8, 4]
    assert set(done.table["geometry.z_slice"]) == {"2"}
    again = curate(table, mean, features, CurationConfig(keep=4, clusters=4))
    pd.testing.assert_frame_equal(done.table, again.table)
