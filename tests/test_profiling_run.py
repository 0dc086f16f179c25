"""Runs: every format gives the same bytes, bad pictures get names, a killed run goes on where it was."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from painted_screen import (
    BATCH,
    CHANNELS,
    FOLDER_PATTERN,
    OME_PATTERN,
    PLATES,
    SOURCE,
    screen,
    tables_of,
    write_folder,
    write_jump,
    write_load_data,
    write_ome_tiffs,
    write_ome_zarr,
)
from quarters import ALL, Quarters, folder

from profiling import levels
from profiling.embedders import EMBEDDERS
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.inputs import InvalidInput, open_input
from profiling.inputs.formats import Wanted
from profiling.outcomes import MEASURED, NOT_MEASURED, OUTCOMES, BadPicture, Limits
from profiling.profiles import InvalidProfiles, field_medians
from profiling.run import commonest_size, run
from profiling.shards import Finished
from profiling.tables import read_profiles

# ---------------------------------------------------------------------------------------------------------------------
# what the tables say


def test_tables_against_the_pixels(tmp_path: Path) -> None:
    engine = Quarters()
    summary = run(folder(tmp_path / "in"), engine, tmp_path / "p.parquet", ALL)
    assert summary.counts == {"ok": 8}
    assert (summary.cells, summary.wells, summary.size, summary.kept) == (32, 4, (128, 128), 0)
    assert engine.pictures == 8
    cells = read_profiles(tmp_path / "p.cell.parquet")
    assert len(cells) == 32
    assert list(cells.meta)[-1] == levels.OBJECT_NUMBER
    unit = [shot.counts / 65535 for shot in screen()]
    quarter = unit[3][:, :64, 64:].astype(np.float32).astype(float).mean(axis=(1, 2))  # field 4, its second cell
    row = cells.features(["Cells_Mean_0", "Cells_Mean_4", "Nuclei_Mean_0", "Cytoplasm_Mean_4"]).values[13]
    np.testing.assert_allclose(row, [quarter[0], quarter[4], quarter[0], quarter[4]], rtol=1e-12)
    assert np.isnan(cells.features(["Cytoplasm_Mean_4"]).values[12]).all()  # the first cell has no cytoplasm
    assert cells.column("ObjectNumber")[12:16].tolist() == [1, 2, 3, 4]

    fields = read_profiles(tmp_path / "p.field.parquet")
    measured = [Quarters._one(picture.astype(np.float32)) for picture in unit]
    by_hand = field_medians(measured, pd.DataFrame([shot.meta for shot in screen()]))
    assert fields.names == by_hand.names
    np.testing.assert_array_equal(fields.values, by_hand.values)
    assert fields.column("Site").tolist() == ["1", "2"] * 4
    wells = read_profiles(tmp_path / "p.parquet")
    assert wells.column("Well").tolist() == ["A01", "B10"] * 2
    np.testing.assert_allclose(wells.values, by_hand.values.reshape(4, 2, -1).mean(axis=1), rtol=1e-14)
    assert wells.column("Rows_In").tolist() == [2] * 4


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small groups of rows and one large group: the same rows; a well is never cut in two."""
    fields = folder(tmp_path / "in")
    for name, value in (("big", 256), ("small", 1)):
        monkeypatch.setattr(levels, "FLUSH_FIELDS", value)
        monkeypatch.setattr(levels, "FLUSH_CELLS", value)
        run(fields, Quarters(), tmp_path / f"{name}.parquet", ALL)
    for level in (".cell", ".field", ""):
        big, small = (pd.read_parquet(tmp_path / f"{name}{level}.parquet") for name in ("big", "small"))
        pd.testing.assert_frame_equal(big, small)


@pytest.mark.parametrize("chosen", [("cell",), ("field",), ("well",), ("cell", "well")])
def test_chosen_levels(chosen: tuple[str, ...], tmp_path: Path) -> None:
    summary = run(folder(tmp_path / "in"), Quarters(), tmp_path / "p.parquet", replace(ALL, levels=chosen))
    assert set(summary.tables) == set(chosen)
    assert len(read_profiles(tmp_path / "p.parquet")) == {"cell": 32, "field": 8, "well": 4}[chosen[-1]]
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == sorted(p.name for p in summary.tables.values())


# ---------------------------------------------------------------------------------------------------------------------
# formats

#: Each writer, what is asked for, and a folder that names its fields just so.
SAME = {
    "ome-tiff": (write_ome_tiffs, Wanted(OME_PATTERN), FOLDER_PATTERN),
    "load-data": (write_load_data, Wanted(), FOLDER_PATTERN),
    "jump": (lambda root: write_jump(root, "phenix", False), Wanted(), FOLDER_PATTERN),
    "jump, load_data": (lambda root: write_jump(root, "phenix", True), Wanted(), FOLDER_PATTERN),
    "ome-zarr 0.4": (
        lambda root: write_ome_zarr(root, "0.4"),
        Wanted(),
        FOLDER_PATTERN.replace("{source}/{batch}", "{_source}/{_batch}"),
    ),
    "ome-zarr 0.5": (
        lambda root: write_ome_zarr(root, "0.5"),
        Wanted(),
        FOLDER_PATTERN.replace("{source}/{batch}", "{_source}/{_batch}"),
    ),
}


@pytest.mark.parametrize("way", SAME)
def test_every_format_gives_the_same_bytes(way: str, tmp_path: Path) -> None:
    write, wanted, pattern = SAME[way]
    one, other = tmp_path / "one", tmp_path / "other"
    for place, fields in (
        (one, open_input(write_folder(tmp_path / "folder"), Wanted(pattern))),
        (other, open_input(write(tmp_path / "in"), wanted)),
    ):
        place.mkdir()
        run(fields, Quarters(), place / "p.parquet", ALL)
    assert dict(tables_of(one)) == dict(tables_of(other))
    assert len(dict(tables_of(one))) == 3
    assert (one / "p.outcomes.csv").read_bytes() == (other / "p.outcomes.csv").read_bytes()


# ---------------------------------------------------------------------------------------------------------------------
# bad pictures


def painted_bad(root: Path) -> dict[str, tuple[str, str]]:
    """A screen in which every field but one is bad in its own way: (well, site) → expected outcome, in the folder."""
    plane = screen()[0].counts
    one_cell = np.zeros_like(plane)
    one_cell[:, 10:30, 70:90] = 900
    empty = np.zeros_like(plane)
    empty[1:] = 300
    saturated = plane.copy()
    saturated[2, :40] = 65535
    mild = plane.copy()
    mild[2, :3] = 65535  # 2.3 % of the pixels: below the limit of 5 %
    black = plane.copy()
    black[4] = 0
    nan = (plane / 65535).astype(np.float32)
    nan[3, 5, 5] = np.nan
    cases = {
        "ok": plane,
        "mild": mild,
        "one_cell": one_cell,
        "all_black": black,
        "saturated": saturated,
        "wrong_size": plane[:, :, :100],
        "not_finite": nan,
        "wrong_range": plane.astype(np.int32) + 70000,
        "truncated": plane,
        "unreadable": plane,
        "missing": plane,
    }
    place = root / SOURCE / BATCH / PLATES[0]
    place.mkdir(parents=True)
    for k, (name, planes) in enumerate(cases.items()):
        for channel, one in zip(CHANNELS, planes, strict=True):
            tifffile.imwrite(place / f"A01_s{k}_{channel}.tif", one)
        if name == "truncated":
            path = place / f"A01_s{k}_Mito.tif"
            path.write_bytes(path.read_bytes()[:2000])
        if name == "unreadable":
            (place / f"A01_s{k}_AGP.tif").write_text("no picture")
        if name == "missing":
            (place / f"A01_s{k}_ER.tif").unlink()
    return {str(k): "ok" if name == "mild" else name for k, name in enumerate(cases)}


def test_every_bad_picture_gets_its_name_and_stops_nothing(tmp_path: Path) -> None:
    expected = painted_bad(tmp_path / "in")
    fields = open_input(tmp_path / "in", Wanted(FOLDER_PATTERN))
    engine = Quarters()
    summary = run(fields, engine, tmp_path / "p.parquet", ALL)
    told = pd.read_csv(tmp_path / "p.outcomes.csv", dtype=str, keep_default_na=False)
    assert dict(zip(told["Site"], told["Outcome"], strict=True)) == expected
    assert set(told.columns) >= {"Source", "Batch", "Plate", "Well", "Site", "Outcome", "Reason", "Flags", "Cells"}
    assert all(
        bool(reason) == (outcome not in MEASURED) for reason, outcome in zip(told.Reason, told.Outcome, strict=True)
    )
    assert engine.pictures == 3
    assert summary.measured == 3
    assert summary.sentence().startswith("11 fields in: 2 ok, 1 one_cell, 1 missing, 1 unreadable, 1 truncated, ")
    assert summary.sentence().endswith("3 measured, 8 not; 9 cells, 1 wells")
    profiles = read_profiles(tmp_path / "p.field.parquet")
    assert len(profiles) == 11  # every field keeps its row
    good = np.isin(profiles.column("Outcome"), list(MEASURED))
    assert np.isnan(profiles.values[~good]).all()
    assert np.isfinite(profiles.values[good][:, :4]).all()
    wells = read_profiles(tmp_path / "p.parquet")
    assert wells.column("Rows_In").tolist() == [11]
    assert wells.column("Rows_Used").tolist() == [3]


def test_no_cells_and_a_failing_engine_are_outcomes_too(tmp_path: Path) -> None:
    class Odd(Quarters):
        @staticmethod
        def _one(picture: np.ndarray) -> FieldMeasurement:
            if picture[1].mean() > 0.5:
                return FieldMeasurement("failed", "worker process ended with exit code -9 (2 attempts)")
            return Quarters._one(np.where(picture > 0.5, 0, picture))

        def measure(self, pictures: np.ndarray, channels: Sequence[str], progress: object = None) -> list:
            return [self._one(picture) for picture in pictures]

    place = tmp_path / "in" / SOURCE / BATCH / PLATES[0]
    place.mkdir(parents=True)
    for site, level in (("1", [60000, 9, 9, 9, 9]), ("2", [9, 60000, 9, 9, 9]), ("3", [9, 9, 9, 9, 9])):
        for channel, count in zip(CHANNELS, level, strict=True):
            tifffile.imwrite(place / f"A01_s{site}_{channel}.tif", np.full((32, 32), count, np.uint16))
    fields = open_input(tmp_path / "in", Wanted(FOLDER_PATTERN))
    summary = run(fields, Odd(), tmp_path / "p.parquet", ALL)
    assert summary.counts == {"no_cells": 1, "failed": 1, "ok": 1}
    profiles = read_profiles(tmp_path / "p.field.parquet")
    np.testing.assert_array_equal(profiles.values[:, 0], [0.0, np.nan, 4.0])


def test_not_one_good_picture(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", screen()[:2])
    for path in (tmp_path / "in").rglob("*_DNA.tif"):
        path.write_bytes(b"")
    fields = open_input(tmp_path / "in", Wanted(FOLDER_PATTERN))
    summary = run(fields, Quarters(), tmp_path / "p.parquet", ALL)
    assert summary.counts == {"truncated": 2}
    assert (summary.measured, summary.size) == (0, None)
    assert len(read_profiles(tmp_path / "p.field.parquet")) == 2


def test_the_size_is_the_commonest_or_the_one_that_is_stated(tmp_path: Path) -> None:
    fields = folder(tmp_path / "in")
    for path in fields.fields[0].planes.values():
        tifffile.imwrite(path.path, np.full((64, 64), 9, np.uint16))
    assert commonest_size(fields.fields, CHANNELS) == (128, 128)
    config = replace(ALL, limits=Limits(size=(64, 64)))
    assert run(fields, Quarters(), tmp_path / "p.parquet", config).counts == {"ok": 1, "wrong_size": 7}


def test_outcomes_are_a_closed_list() -> None:
    assert len(set(OUTCOMES)) == len(MEASURED) + len(NOT_MEASURED)
    with pytest.raises(ValueError, match="expected one of missing"):
        BadPicture("strange", "")


# ---------------------------------------------------------------------------------------------------------------------
# corrections, embedders, refusals


def test_embedders_run_as_engines_do(tmp_path: Path) -> None:
    with EMBEDDERS["random_conv"](None) as engine:
        config = replace(ALL, name="random_conv")
        summary = run(folder(tmp_path / "in"), engine, tmp_path / "p.parquet", config)
    assert summary.counts == {"ok": 8}
    wells = read_profiles(tmp_path / "p.parquet")
    assert wells.names[2:4] == ("Field_random_conv_000", "Field_random_conv_001")
    assert np.isfinite(wells.values[:, 2:]).all()
    assert len(read_profiles(tmp_path / "p.cell.parquet")) == 8


def test_refusals(tmp_path: Path) -> None:
    write_folder(tmp_path / "in")
    with pytest.raises(InvalidInput, match="expected one of 8, 12, 16, float"):
        replace(ALL, bits="14")
    with pytest.raises(InvalidProfiles, match="expected some of cell, field, well"):
        replace(ALL, levels=("plate",))
    places = open_input(tmp_path / "in", Wanted("{_a}/{_b}/{plate}/{spot}_{channel}.tif"))
    with pytest.raises(InvalidProfiles, match=r"fields have no Well, only Plate, Spot"):
        run(places, Quarters(), tmp_path / "p.parquet", ALL)
    assert not (tmp_path / "p.fields").exists()
    lonely = {"Cells": ObjectTable(("A",), np.ones((2, 1))), "Nuclei": ObjectTable(("A",), np.ones((3, 1)))}
    with pytest.raises(InvalidProfiles, match="no column ties Nuclei to Cells"):
        levels.cell_rows(Finished("ok", objects=lonely))
