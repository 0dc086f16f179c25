"""A small painted screen and its writers: the same counts in every format that `profiling.inputs` reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import zarr

from causal.laboratory import Laboratory
from causal.phenotype import DMSO, compound_effects
from causal.simulator import World
from profiling.images import from_counts, to_counts, write_ome_tiff

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
SOURCE, BATCH = "source_4", "2021_04_26_Batch1"
PLATES = ("BR00117035", "BR00117036")
WELLS = ("A01", "B10")
SITES = ("1", "2")
FOLDER_PATTERN = "{source}/{batch}/{plate}/{well}_s{site}_{channel}.tif"
OME_PATTERN = "{source}/{batch}/{plate}/{well}_s{site}.ome.tif"


@dataclass(frozen=True)
class Shot:
    """One field: what it is called, and its counts uint16 [5, 128, 128] in the order of CHANNELS."""

    plate: str
    well: str
    site: str
    counts: np.ndarray

    @property
    def meta(self) -> dict[str, str]:
        return {"Source": SOURCE, "Batch": BATCH, "Plate": self.plate, "Well": self.well, "Site": self.site}


@cache
def screen() -> tuple[Shot, ...]:
    """Two plates, two wells, two sites: eight painted fields of DMSO and one compound."""
    library = pd.DataFrame({"compound": ["K0", "K1"], "moa": ["a", "b"], "second_moa": ["", ""]})
    world = World(Laboratory(), compound_effects(library, np.eye(2, 32, dtype=np.float32)))
    context = world.plates.set_index("plate").loc["S2B01P1"]
    places = [(plate, well, site) for plate in PLATES for well in WELLS for site in SITES]
    rows = pd.DataFrame({"compound": [DMSO if well == "A01" else "K0" for _, well, _ in places]})
    rows["source"], rows["batch"], rows["plate"] = context["source"], context["batch"], "S2B01P1"
    rows["plate_format"], rows["row"], rows["column"] = int(context["plate_format"]), 7, 11
    rows["seed"] = np.arange(len(rows), dtype=np.uint64)
    pictures = to_counts(world.paint(rows))
    return tuple(Shot(*place, counts) for place, counts in zip(places, pictures, strict=True))


def write_folder(root: Path, shots: Sequence[Shot] | None = None) -> Path:
    """One TIFF a channel, named as FOLDER_PATTERN."""
    for shot in shots or screen():
        folder = root / SOURCE / BATCH / shot.plate
        folder.mkdir(parents=True, exist_ok=True)
        for name, plane in zip(CHANNELS, shot.counts, strict=True):
            tifffile.imwrite(folder / f"{shot.well}_s{shot.site}_{name}.tif", plane)
    return root


def write_ome_tiffs(root: Path) -> Path:
    """One OME-TIFF a field, channels in another order than ours."""
    for shot in screen():
        folder = root / SOURCE / BATCH / shot.plate
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{shot.well}_s{shot.site}.ome.tif"
        write_ome_tiff(path, from_counts(shot.counts[::-1]), CHANNELS[::-1], annotation={"evidence": "simulation"})
    return root


def write_ome_zarr(root: Path, version: str) -> Path:
    """One HCS plate a plate, NGFF "0.4" (Zarr 2) or "0.5" (Zarr 3); channels in another order than ours."""
    for plate in PLATES:
        group = zarr.open_group(root / f"{plate}.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
        wells = [{"path": f"{well[0]}/{int(well[1:])}", "rowIndex": 0, "columnIndex": 0} for well in WELLS]
        _describe(group, version, plate={"name": plate, "wells": wells, "version": version})
        for well in wells:
            place = group.create_group(well["path"])
            _describe(place, version, well={"images": [{"path": site} for site in SITES], "version": version})
    for shot in screen():
        image = zarr.open_group(root / f"{shot.plate}.zarr", mode="r+")[f"{shot.well[0]}/{int(shot.well[1:])}"]
        image = image.create_group(shot.site)
        image.create_array("0", data=shot.counts[None, ::-1, None], chunks=(1, 1, 1, 64, 64))
        axes = [{"name": name} for name in "tczyx"]
        _describe(
            image,
            version,
            multiscales=[{"version": version, "axes": axes, "datasets": [{"path": "0"}]}],
            omero={"channels": [{"label": name} for name in CHANNELS[::-1]]},
        )
    return root


def _describe(group: zarr.Group, version: str, **ome: object) -> None:
    group.attrs.update(ome if version == "0.4" else {"ome": {"version": version, **ome}})


def write_jump(root: Path, microscope: str, load_data: bool) -> Path:
    """The gallery's layout. "phenix" (source 4: ch5 is DNA, ch1 Mito) or "cv" (source 2: C01 is DNA); with its
    load_data file or without."""
    source = root / "cpg0016-jump" / ("source_4" if microscope == "phenix" else "source_2")
    for plate in PLATES:
        measured = f"{plate}__2021-05-02T16_02_51-Measurement1/Images" if microscope == "phenix" else plate
        folder = source / "images" / BATCH / "images" / measured
        folder.mkdir(parents=True)
        rows = []
        for shot in (one for one in screen() if one.plate == plate):
            files = {name: _jump_name(microscope, shot, k) for k, name in enumerate(CHANNELS)}
            for name, plane in zip(CHANNELS, shot.counts, strict=True):
                tifffile.imwrite(folder / files[name], plane)
            brightfield = _jump_name(microscope, shot, -1)
            tifffile.imwrite(folder / brightfield, shot.counts[0] // 2)
            rows.append(_load_row(shot, files | {"BrightfieldH": brightfield}, str(folder.relative_to(root))))
        if load_data:
            tables = source / "workspace/load_data_csv" / BATCH / plate
            tables.mkdir(parents=True)
            pd.DataFrame(rows).drop(columns=["Metadata_Source", "Metadata_Batch"]).to_csv(
                tables / "load_data.csv.gz", index=False
            )
    return root / "cpg0016-jump"


def _jump_name(microscope: str, shot: Shot, k: int) -> str:
    row, column, site = ord(shot.well[0]) - 64, int(shot.well[1:]), int(shot.site)
    if microscope == "phenix":
        return f"r{row:02d}c{column:02d}f{site:02d}p01-ch{5 - k if k >= 0 else 6}sk1fk1fl1.tiff"
    return f"{shot.plate}_{shot.well}_T0001F{site:03d}L01A01Z01C{k + 1 if k >= 0 else 6:02d}.tif"


def _load_row(shot: Shot, files: dict[str, str], folder: str) -> dict[str, str]:
    row = {f"Metadata_{name}": value for name, value in shot.meta.items()}
    for name, file in files.items():
        row |= {f"FileName_Orig{name}": file, f"PathName_Orig{name}": f"/home/ubuntu/bucket/{folder}/"}
        row |= {f"FileName_Illum{name}": f"{shot.plate}_Illum{name}.npy", f"PathName_Illum{name}": "/gone"}
    return row


def write_load_data(root: Path) -> Path:
    """A LoadData CSV whose paths begin where the pictures once were."""
    write_folder(root / "pictures")
    rows = []
    for shot in screen():
        files = {name: f"{shot.well}_s{shot.site}_{name}.tif" for name in CHANNELS}
        rows.append(_load_row(shot, files, f"pictures/{SOURCE}/{BATCH}/{shot.plate}"))
    pd.DataFrame(rows).to_csv(root / "load_data.csv", index=False)
    return root / "load_data.csv"


def tables_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each parquet file of a run."""
    for path in sorted(folder.glob("*.parquet")):
        yield path.name, path.read_bytes()
