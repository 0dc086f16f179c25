"""profiling.damaged: every reader says one sentence over a file that is cut short, and never a library's traceback."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.profiles import InvalidProfiles, Profiles
from profiling.readers import read_csv_folder, read_cytotable, read_sqlite
from profiling.subprofile import SubProfiles
from profiling.tables import read_profiles, read_table, write_profiles

KINDS: dict[str, Callable[[Path], object]] = {
    "p.parquet": read_profiles,
    "p.h5ad": read_profiles,
    "p.csv.gz": read_profiles,
    "t.parquet": read_table,
    "t.tsv.gz": read_table,
    "s.parquet": SubProfiles.read,
    "c.parquet": read_cytotable,
}


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_is_refused_by_name(name: str, tmp_path: Path):
    whole = Profiles(pd.DataFrame({"Metadata_Well": ["A01", "A02"]}), np.eye(2), ("Cells_a", "Cells_b"))
    write_profiles(whole, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for kept in (len(data) // 2, 0):
        (tmp_path / name).write_bytes(data[:kept])
        with pytest.raises(InvalidProfiles, match=f"{name}.*cannot be read.*again"):
            KINDS[name](tmp_path / name)


def test_other_things_under_the_name_of_a_database_or_a_table(tmp_path: Path):
    (tmp_path / "d.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(InvalidProfiles, match=r"d\.sqlite.*SQLite.*not a database"):
        read_sqlite(tmp_path / "d.sqlite")
    (tmp_path / "Cells.csv").write_bytes(b"\xff\xfe\x00a,b\n1,2\n")
    with pytest.raises(InvalidProfiles, match=r"Cells\.csv.*cannot be read"):
        read_csv_folder(tmp_path)
