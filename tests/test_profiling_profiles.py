"""Profiles: cells -> field -> well, with every row accounted for; and the way through files."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest

from profiling.profiles import (
    COUNT_CELLS,
    COUNT_NUCLEI,
    InvalidProfiles,
    Profiles,
    aggregate,
    concatenate,
    field_medians,
)
from profiling.tables import from_anndata, read_profiles, split_table, to_anndata, write_profiles


@dataclass
class Measured:
    outcome: str = "ok"
    reason: str = ""
    objects: dict = field(default_factory=dict)
    image: dict = field(default_factory=dict)


def some(n=6, k=3, seed=0):
    rng = np.random.default_rng(seed)
    meta = pd.DataFrame({"Metadata_Plate": [f"p{i % 2}" for i in range(n)], "Metadata_Row": np.arange(n)})
    return Profiles(meta, rng.normal(size=(n, k)), tuple(f"Cells_f{i}" for i in range(k)))


def test_field_medians_take_the_median_over_cells_and_keep_every_field():
    cells = (["Area", "Solidity"], np.array([[1.0, 5.0], [2.0, np.nan], [9.0, 7.0]]))
    nuclei = (["Area"], np.array([[1.0], [3.0], [4.0], [100.0]]))
    measured = [
        Measured(objects={"Cells": cells, "Nuclei": nuclei}),
        Measured("no_cells", "no nucleus above the threshold"),
        Measured("failed", "timed out"),
        Measured(objects={"Nuclei": (["Area"], np.array([[7.0]])), "Cells": (["Area"], np.empty((0, 1)))}),
    ]
    made = field_medians(measured, pd.DataFrame({"compound": list("abcd")}))
    assert made.names == (COUNT_CELLS, COUNT_NUCLEI, "Cells_Area", "Cells_Solidity", "Nuclei_Area")
    nan = np.nan
    want = [[3, 4, 2, 6, 3.5], [0, 0, nan, nan, nan], [nan, nan, nan, nan, nan], [0, 1, nan, nan, 7]]
    np.testing.assert_array_equal(made.values, want)
    assert made.meta["Metadata_compound"].tolist() == list("abcd")
    assert made.meta["Metadata_Outcome"].tolist() == ["ok", "no_cells", "failed", "ok"]
    assert made.meta["Metadata_Reason"][2] == "timed out"


def test_counts_come_from_the_image_where_there_are_no_objects():
    made = field_medians([Measured(image={"Count_Cells": 4.0, "Count_Nuclei": 5.0})], pd.DataFrame(index=range(1)))
    np.testing.assert_array_equal(made.values, [[4.0, 5.0]])


@pytest.mark.parametrize("how", ["mean", "median"])
def test_aggregate_equals_pandas_and_counts_rows(how):
    rng = np.random.default_rng(3)
    meta = pd.DataFrame(
        {"Metadata_Plate": rng.choice(list("abc"), 50), "Metadata_Well": rng.choice(["A01", "B02"], 50)}
    )
    meta["Metadata_Site"] = np.arange(50)
    meta["Metadata_Lab"] = meta["Metadata_Plate"].map({"a": "x", "b": "x", "c": "y"})
    values = rng.normal(size=(50, 4))
    values[rng.random((50, 4)) < 0.3] = np.nan
    values[meta["Metadata_Plate"] == "b", 2] = np.nan
    values[[3, 17]] = np.nan
    names = ("w", "x", "y", "z")
    got = aggregate(Profiles(meta, values, names), ["Plate", "Metadata_Well"], how)
    table = pd.concat([meta, pd.DataFrame(values, columns=names)], axis=1)
    want = table.groupby(["Metadata_Plate", "Metadata_Well"])[list(names)].agg(how)
    np.testing.assert_allclose(got.values, want.to_numpy(), rtol=1e-12)
    sizes = table.groupby(["Metadata_Plate", "Metadata_Well"]).size()
    assert got.meta["Metadata_Rows_In"].tolist() == sizes.tolist()
    used = table[np.isfinite(values).any(axis=1)].groupby(["Metadata_Plate", "Metadata_Well"]).size()
    assert got.meta["Metadata_Rows_Used"].tolist() == used.tolist()
    assert "Metadata_Lab" in got.meta
    assert "Metadata_Site" not in got.meta


@pytest.mark.parametrize("how", ["mean", "median"])
def test_aggregate_keeps_a_group_without_cells_and_averages_its_counts(how):
    meta = pd.DataFrame({"Metadata_Well": ["A", "A", "B", "B", "C"]})
    values = np.array([[4.0, 1.0], [0.0, np.nan], [0.0, np.nan], [0.0, np.nan], [6.0, 9.0]])
    use = np.array([True, True, True, True, False])
    got = aggregate(Profiles(meta, values, (COUNT_CELLS, "Cells_Area")), ["Well"], how, use)
    np.testing.assert_array_equal(got.values, [[2.0, 1.0], [0.0, np.nan], [np.nan, np.nan]])
    assert got.meta["Metadata_Rows_In"].tolist() == [2, 2, 1]
    assert got.meta["Metadata_Rows_Used"].tolist() == [1, 0, 0]


def test_rows_features_and_columns():
    p = some()
    assert p.rows(p.column("Plate") == "p1").meta["Metadata_Row"].tolist() == [1, 3, 5]
    np.testing.assert_array_equal(p.rows([4, 0]).values, p.values[[4, 0]])
    np.testing.assert_array_equal(p.features(["Cells_f2", "Cells_f0"]).values, p.values[:, [2, 0]])
    both = concatenate([p, p.rows([0])])
    assert len(both) == 7
    with pytest.raises(InvalidProfiles, match="1 features are not in the profiles"):
        p.features(["Cells_f0", "Cells_f9"])
    with pytest.raises(InvalidProfiles, match=r"other features than part 0"):
        concatenate([p, p.features(["Cells_f0"])])


@pytest.mark.parametrize(
    ("meta", "names", "message"),
    [
        ({"Metadata_A": [1]}, ("x", "y"), "meta has 1 rows, values has 2"),
        ({"Metadata_A": [1, 2]}, ("x",), "names has 1 entries"),
        ({"Metadata_A": [1, 2]}, ("x", "x"), "got twice"),
        ({"A": [1, 2]}, ("x", "y"), "must begin with"),
        ({"Metadata_A": [1, 2]}, ("x", "Metadata_y"), "move them to meta"),
    ],
)
def test_contradictions_are_refused(meta, names, message):
    with pytest.raises(InvalidProfiles, match=message):
        Profiles(pd.DataFrame(meta), np.zeros((2, 2)), names)


def test_parquet_round_trip_keeps_bits_and_the_split(tmp_path):
    p = some()
    p.values[2, 1] = np.nan
    write_profiles(p, tmp_path / "p.parquet")
    back = read_profiles(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(back.meta, p.meta)
    assert back.names == p.names
    np.testing.assert_array_equal(back.values, p.values)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "t.parquet"])
def test_foreign_tables(tmp_path, name):
    table = pd.DataFrame({"Well": ["A", "B"], "f1": [1.0, 2.0], "f0": [3, 4]})
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if "csv" in name else "\t", index=False)
    with pytest.raises(InvalidProfiles, match=r"\['Well'\] are not numbers"):
        read_profiles(path)
    got = read_profiles(path, features=["f0", "f1"])
    np.testing.assert_array_equal(got.values, [[3, 1], [4, 2]])
    assert got.meta["Metadata_Well"].tolist() == ["A", "B"]


def test_unknown_ending_is_refused(tmp_path):
    with pytest.raises(InvalidProfiles, match="unknown ending"):
        read_profiles(tmp_path / "p.xlsx")


def test_split_table_names_missing_features():
    with pytest.raises(InvalidProfiles, match="1 columns are not in the table"):
        split_table(pd.DataFrame({"a": [1.0]}), ["a", "b"])


def test_anndata_round_trip():
    p = some()
    data = to_anndata(p)
    assert data.shape == (6, 3)
    back = from_anndata(data)
    pd.testing.assert_frame_equal(back.meta, p.meta, check_dtype=False)
    assert back.names == p.names
    np.testing.assert_array_equal(back.values, p.values)
