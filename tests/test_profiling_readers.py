"""CellProfiler's files in, rows excluded with reasons."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.exclude import ExcludeConfig, exclude
from profiling.profiles import COUNT_CELLS, COUNT_NUCLEI, InvalidProfiles, Profiles
from profiling.readers import fields, read_cellprofiler, read_csv_folder


def cells():
    return pd.DataFrame(
        {
            "ImageNumber": [1, 1, 1, 2],
            "ObjectNumber": [1, 2, 3, 1],
            "AreaShape_Area": [1.0, 2.0, 9.0, 4.0],
            "Note": list("abcd"),
        }
    )


def nuclei():
    return pd.DataFrame({"ImageNumber": [1, 1, 2], "ObjectNumber": [1, 2, 1], "AreaShape_Area": [1.0, np.nan, 3.0]})


def images():
    return pd.DataFrame({"ImageNumber": [1, 2, 3], "Metadata_Well": ["A01", "A02", "A03"], "Count_Cells": [3, 1, 0]})


def check(made):
    assert made.names == (COUNT_CELLS, COUNT_NUCLEI, "Nuclei_AreaShape_Area", "Cells_AreaShape_Area")
    nan = np.nan
    np.testing.assert_array_equal(made.values, [[3, 2, 1, 2], [1, 1, 3, 4], [0, 0, nan, nan]])
    assert made.column("Well").tolist() == ["A01", "A02", "A03"]
    assert made.column("Outcome").tolist() == ["ok", "ok", "no_cells"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_folder(tmp_path, ending):
    for name, table in {"Cells": cells(), "Nuclei": nuclei(), "Image": images()}.items():
        table.to_csv(tmp_path / f"{name}.{ending}", index=False)
    check(read_cellprofiler(tmp_path))


@pytest.mark.parametrize("prefix", ["", "Per_"])
def test_sqlite(tmp_path, prefix):
    path = tmp_path / "plate.sqlite"
    with closing(sqlite3.connect(path)) as database:
        for name, table in {"Cells": cells(), "Nuclei": nuclei(), "Image": images()}.items():
            own = table.rename(columns=lambda c, n=name: f"{n}_{c}" if c.startswith("AreaShape") else c)
            own.to_sql(f"{prefix}{name}", database, index=False)
    check(read_cellprofiler(path))


def test_cytotable(tmp_path):
    c, n = cells(), nuclei()
    table = pd.DataFrame({"Metadata_ImageNumber": c["ImageNumber"], "Image_Metadata_Well": ["A01"] * 3 + ["A02"]})
    table["Cells_AreaShape_Area"] = c["AreaShape_Area"]
    table["Nuclei_AreaShape_Area"] = [1.0, np.nan, 5.0, 3.0]
    table["Image_Count_Cells"] = 9
    table["Metadata_Cells_Number"] = [1, 2, 3, 1]
    table.to_parquet(tmp_path / "t.parquet")
    made = read_cellprofiler(tmp_path / "t.parquet")
    assert made.names[2:] == ("Nuclei_AreaShape_Area", "Cells_AreaShape_Area")
    np.testing.assert_array_equal(made.values, [[3, 3, 3, 2], [1, 1, 3, 4]])
    assert made.column("Well").tolist() == ["A01", "A02"]
    assert "Metadata_Cells_Number" not in made.meta
    assert len(n) == 3


def test_reader_refusals(tmp_path):
    with pytest.raises(InvalidProfiles, match="has none of"):
        read_csv_folder(tmp_path)
    with pytest.raises(InvalidProfiles, match="no column 'ImageNumber'"):
        fields({"Cells": cells().drop(columns="ImageNumber")})
    with pytest.raises(InvalidProfiles, match="1 rows repeat"):
        fields({"Cells": cells()}, pd.concat([images(), images().head(1)]))
    with pytest.raises(InvalidProfiles, match="does not exist"):
        read_cellprofiler(tmp_path / "none.sqlite")
    with pytest.raises(InvalidProfiles, match="expected a folder"):
        read_cellprofiler(tmp_path / "x.xlsx")


def plate():
    n = 20
    values = np.random.default_rng(0).normal(size=(n, 6))
    values[:, 0] = 100.0
    values[[1, 2, 3], 0] = [0.0, 40.0, 10.0]
    values[1, 1:] = np.nan
    values[4, 1:] = 90.0
    meta = pd.DataFrame({"Metadata_Outcome": ["ok"] * n, "Metadata_Row": np.arange(n)})
    meta.loc[0, "Metadata_Outcome"] = "failed"
    return Profiles(meta, values, (COUNT_CELLS, *(f"f{i}" for i in range(5))))


def test_each_excluded_row_has_its_reason():
    config = ExcludeConfig(cells=15, relative_count=0.5, outlier=8.0)
    made = exclude(plate(), config, controls=np.arange(20) >= 10)
    reasons = dict(zip(made.removed["Metadata_Row"], made.removed["Metadata_Excluded_By"], strict=True))
    assert reasons == {0: "not measured", 1: "too few cells", 2: "low relative count", 3: "too few cells", 4: "outlier"}
    assert made.report.to_numpy().tolist() == [
        ["not measured", 20, 19],
        ["too few cells", 19, 17],
        ["low relative count", 17, 16],
        ["outlier", 16, 15],
    ]
    assert len(made.kept) + len(made.removed) == 20


def test_exclusion_refusals():
    with pytest.raises(InvalidProfiles, match="needs controls"):
        exclude(plate(), ExcludeConfig(relative_count=0.5))
    with pytest.raises(InvalidProfiles, match="no cell count"):
        exclude(plate().features(["f0"]))
    with pytest.raises(InvalidProfiles, match="unknown keys"):
        ExcludeConfig.from_mapping({"cell": 3})
    assert ExcludeConfig.from_mapping({"cells": "off"}).cells is None


def test_a_real_field(real_data: Path):
    """CellProfiler 4 output of one JUMP pilot field: 109 cells; medians as pandas has them."""
    folder = real_data / "cellprofiler_outputs" / "BR00116991-A01-1"
    made = read_csv_folder(folder)
    assert made.values.shape[0] == 1
    assert made.values[0, :2].tolist() == [109.0, 109.0]
    table = pd.read_csv(folder / "Cells.csv.gz")
    at = made.names.index("Cells_AreaShape_Area")
    assert made.values[0, at] == table["AreaShape_Area"].median()
    assert len(made.names) > 5900
