"""Tables in every format: AnnData files, the CSV of large tables by Arrow, sub-profiles with their null."""

import numpy as np
import pandas as pd
import pytest

from profiling import tables
from profiling.library import read_folder, summary_with_null, write_folder
from profiling.profiles import InvalidProfiles, Profiles
from profiling.subprofile import build, overlap
from profiling.tables import read_profiles, read_table, write_profiles, write_table


def some(n=6):
    meta = pd.DataFrame({"Metadata_Well": [f"A{i}" for i in range(n)], "Metadata_Note": ["x", None] * (n // 2)})
    meta["Metadata_Seen"], meta["Metadata_Count"] = np.arange(n) % 2 == 0, np.arange(n, dtype=float)
    values = np.arange(2.0 * n).reshape(n, 2)
    values[1, 1] = np.nan
    return Profiles(meta, values, ("a", "b"))


@pytest.mark.parametrize("ending", ["h5ad", "csv", "tsv.gz", "parquet"])
def test_profiles_there_and_back(tmp_path, ending):
    write_profiles(some(), tmp_path / f"p.{ending}")
    back = read_profiles(tmp_path / f"p.{ending}")
    np.testing.assert_array_equal(back.values, some().values)
    assert back.names == ("a", "b")
    assert back.meta["Metadata_Well"].astype(str).tolist() == [f"A{i}" for i in range(6)]
    assert back.meta["Metadata_Seen"].tolist() == [True, False] * 3
    chosen = read_profiles(tmp_path / f"p.{ending}", features=["b"])
    assert chosen.names == ("b",)


@pytest.mark.parametrize("ending", ["csv", "tsv.gz"])
def test_a_large_table_reads_as_a_small_one(tmp_path, ending, monkeypatch):
    table = pd.concat(
        [some().meta, pd.DataFrame({"a": np.pi * np.arange(6), "b": [0.1, np.nan, 1e-300, 2, 3, 4]})], axis=1
    )
    table["Metadata_Well"] = ['with "quotes"', "with, comma", "with\ttab", "d", "e", "f"]
    write_table(table, tmp_path / f"small.{ending}")
    monkeypatch.setattr(tables, "LARGE", 1)
    write_table(table, tmp_path / f"large.{ending}")
    small, large = (read_table(tmp_path / f"{name}.{ending}") for name in ("small", "large"))
    pd.testing.assert_frame_equal(small, large, check_dtype=False, rtol=0, atol=0)  # Arrow writes 1.0 as 1


def test_what_is_not_there_is_refused(tmp_path):
    for read, name in ((read_profiles, "no.parquet"), (read_profiles, "no.h5ad"), (read_table, "no.csv")):
        with pytest.raises(InvalidProfiles, match="does not exist"):
            read(tmp_path / name)
    with pytest.raises(InvalidProfiles, match="unknown ending"):
        read_table(tmp_path / "no.xlsx")


def test_a_folder_of_subprofiles_tells_its_null_and_overlap(tmp_path):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=40)
    values = rng.normal(size=(30, 40))
    values[:10] += 3.0 * direction  # "real" agrees; "chance" is noise; "few" has too little
    labels = ["real"] * 10 + ["chance"] * 10 + ["few"] * 3 + [None] * 7
    sub = build(values, labels, [f"Cells_A_{i}" for i in range(40)])
    table = summary_with_null(sub, values, rng, 200).set_index("label")
    assert table.loc["real", "p"] == 1 / 201
    assert table.loc["chance", "p"] > 0.05
    assert np.isnan(table.loc["few", "p"])
    assert table.loc["chance", "n_features_permuted"] == table.loc["real", "n_features_permuted"] > 0
    write_folder(sub, tmp_path, table.reset_index())
    assert read_folder(tmp_path).labels == sub.labels
    pairs = pd.read_csv(tmp_path / "overlap.csv").set_index(["label1", "label2"])
    jaccard, correlation = overlap(sub)
    at = sub.labels.index("chance"), sub.labels.index("real")
    assert pairs.loc[("chance", "real"), "jaccard"] == pytest.approx(jaccard[at])
    assert pairs.loc[("chance", "real"), "correlation"] == pytest.approx(correlation[at], nan_ok=True)
