"""Training data of real pictures: BBBC021's single cells or fields (three channels, MCF-7), in the layout of `ldm`.

Compounds are named by InChIKey; those whose structure was never published, or cannot be standardised, share one named
token, "unknown". Plates have 96 wells: a well stands at the place of the first of its four wells on a 384-well plate
(row and column doubled), which has the same outline. Doses of a compound are not told apart. Held-out rows are whole
wells, some of every (compound, batch) that has two or more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from jaxtyping import Float
from PIL import Image

from causal.contexts import well_position
from causal.phenotype import stream
from chem.molecule import InvalidSmiles, standardise
from service.errors import InvalidRequest
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES

CHANNELS = ("DNA", "Tubulin", "Actin")
SOURCE = "BBBC021"
UNKNOWN = "unknown"  # the compound of which no structure is known
LIMIT = 4.0  # stored values are clipped to ±LIMIT, -1 and 1 being the percentiles of the scale
CELL, TILE = 64, 128  # pixels a side: the middle of a cell's 68, a quarter of a field's 256
LABELS = ("compound", "concentration", "moa", "smiles", "plate", "batch", "well")
ABOUT = {"evidence": "real", "conditions": "MCF-7, BBBC021, 24 h, all doses of a compound together"}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures [n, 3, h, w] in [0, 1] of the range of their files, and one row of labels each."""

    pixels: Float[np.ndarray, "n c h w"]
    rows: pd.DataFrame


def cells(data: Path) -> Pictures:
    """The single cells: 16-bit counts over 65535, the middle 64 × 64 pixels. Raises InvalidRequest."""
    folder = data / "bbbc021_single_cells"
    rows = _labels(folder / "cells.csv").sort_values("index").reset_index(drop=True)
    stack = tifffile.imread(_there(folder / "cells.tif"))
    if stack.ndim != 4 or stack.shape[:2] != (len(rows), 3) or min(stack.shape[2:]) < CELL:
        raise InvalidRequest(
            f"cells.tif: got {stack.shape} for {len(rows)} labels, expected [{len(rows)}, 3, {CELL} or more, the same]"
        )
    top, left = ((side - CELL) // 2 for side in stack.shape[2:])
    middle = stack[:, :, top : top + CELL, left : left + CELL]
    return Pictures(middle.astype(np.float32) / 65535.0, rows.assign(tile=0))


def fields(data: Path) -> Pictures:
    """The fields as tiles of 128 × 128 pixels, four a field; 8 bits over 255. Raises InvalidRequest."""
    folder = data / "bbbc021_fields"
    labels = _labels(folder / "labels.csv")
    pixels, rows = [], []
    for label in labels.to_dict("records"):
        with Image.open(_there(folder / "images" / str(label["file"]))) as image:
            whole = np.asarray(image)
        if whole.ndim != 3 or whole.shape[2] != 3 or min(whole.shape[:2]) < TILE:
            raise InvalidRequest(
                f"{label['file']}: got {whole.shape}, expected an RGB picture of {TILE} or more a side"
            )
        stained = whole[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255.0  # red is actin, blue DNA
        for number, (y, x) in enumerate(np.ndindex(whole.shape[0] // TILE, whole.shape[1] // TILE)):
            pixels.append(stained[:, y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE])
            rows.append({**label, "tile": number})
    return Pictures(np.stack(pixels), pd.DataFrame(rows))


KINDS: dict[str, Callable[[Path], Pictures]] = {"cells": cells, "fields": fields}


def _there(path: Path) -> Path:
    if not path.is_file():
        raise InvalidRequest(f"data: {path} does not exist; give the folder that holds {path.parent.name}")
    return path


def _labels(path: Path) -> pd.DataFrame:
    table = pd.read_csv(_there(path))
    if missing := [name for name in LABELS if name not in table.columns]:
        raise InvalidRequest(f"{path.name}: has no column {', '.join(missing)}; expected {', '.join(LABELS)}")
    return table


def identify(rows: pd.DataFrame) -> pd.DataFrame:
    """name, compound (InChIKey or "unknown"), smiles ("" where unknown), reason, for each published name."""
    found = []
    for name, group in rows.groupby("compound", sort=True):
        text = DMSO_SMILES if name == "DMSO" else group["smiles"].iloc[0]
        reason, key, smiles = "no SMILES published", UNKNOWN, ""
        if isinstance(text, str) and text:
            try:
                molecule = standardise(text)
                reason, key, smiles = "", molecule.inchikey, molecule.smiles
            except InvalidSmiles as error:
                reason = error.message
        found.append({"name": name, "compound": key, "smiles": smiles, "reason": reason})
    return pd.DataFrame(found)


def hold_out(rows: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """ "val" or "train" of every row: of the wells of each (name, batch) that has two or more, about `share`, at least
    one and never all, are held out, chosen by the seed.
    """
    split = np.full(len(rows), "train", dtype=object)
    well = (rows["plate"].astype(str) + "/" + rows["well"].astype(str)).to_numpy()
    for key, index in rows.groupby(["name", "batch"], sort=True).indices.items():
        names = np.unique(well[index])
        if len(names) > 1:
            n = min(max(round(share * len(names)), 1), len(names) - 1)
            chosen = stream(seed, "hold out", *key).choice(names, n, replace=False)
            split[index[np.isin(well[index], chosen)]] = "val"
    return split


def scale_of(pixels: Float[np.ndarray, "n c h w"], rows: pd.DataFrame) -> tuple[list[float], list[float], str]:
    """0.1 and 99.9 percentiles of each channel over training rows of DMSO, of all compounds where there is no DMSO."""
    train = (rows["split"] == "train").to_numpy()
    control = train & (rows["compound"] == DMSO_INCHIKEY).to_numpy()
    of, words = (control, "DMSO") if control.any() else (train, "all compounds: there is no DMSO")
    values = pixels[of].transpose(1, 0, 2, 3).reshape(pixels.shape[1], -1)
    low, high = np.percentile(values, [0.1, 99.9], axis=1)
    high = np.maximum(high, low + 1e-6)
    return [round(float(v), 6) for v in low], [round(float(v), 6) for v in high], words


def support(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a published name but DMSO: how many pictures, wells and batches it has, and how many (compound, batch)
    pairs support its contrast: those of its batches in which there are controls too (DMSO, or any other compound where
    there is no DMSO), among training rows and among held-out rows.
    """
    control = rows["compound"] == DMSO_INCHIKEY
    found = []
    for (name, key), mine in rows[~control].groupby(["name", "compound"], sort=True):
        others = rows[control] if control.any() else rows[rows["name"] != name]
        entry: dict[str, object] = {"name": name, "compound": key}
        for split in ("train", "val"):
            batches = set(mine.loc[mine["split"] == split, "batch"])
            entry[f"{split}_pictures"] = int((mine["split"] == split).sum())
            entry[f"{split}_wells"] = int(
                mine.loc[mine["split"] == split, ["plate", "well"]].drop_duplicates().shape[0]
            )
            entry[f"{split}_batches"] = len(batches)
            entry[f"{split}_pairs"] = len(batches & set(others.loc[others["split"] == split, "batch"]))
        found.append(entry)
    return pd.DataFrame(found)


def training_folder(
    data: Path, out: Path, kind: str = "cells", share: float = 0.2, seed: int = 1, progress: Progress | None = None
) -> dict[str, object]:
    """Write a training folder of `kind` (one of `KINDS`) to `out`; gives the report that is kept in report.json.

    data: folder with bbbc021_single_cells and bbbc021_fields. share: of the wells, held out. Raises InvalidRequest.
    """
    if kind not in KINDS:
        raise InvalidRequest(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if not 0.0 < share < 1.0:
        raise InvalidRequest(f"share: got {share}, expected a share of wells between 0 and 1")
    if progress is not None:
        progress(0, 2, "reading pictures")
    found = KINDS[kind](data)
    rows = found.rows.rename(columns={"compound": "name"}).reset_index(drop=True)
    names = identify(found.rows)
    rows["compound"] = rows["name"].map(names.set_index("name")["compound"])
    at = np.array([well_position(str(well)) for well in rows["well"]]).reshape(-1, 2)
    rows = rows.assign(
        source=SOURCE,
        plate_format=384,
        row=2 * at[:, 0],
        column=2 * at[:, 1],
        seed=np.arange(len(rows), dtype=np.uint64),
    )
    rows["split"] = hold_out(rows, share, seed)
    low, high, of = scale_of(found.pixels, rows)
    between = (found.pixels - np.array(low, np.float32)[:, None, None]) / np.subtract(high, low).astype(np.float32)[
        :, None, None
    ]
    stored = np.clip(2.0 * between - 1.0, -LIMIT, LIMIT)
    if progress is not None:
        progress(1, 2, "writing pictures")
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "pictures.npy", stored.astype(np.float16), allow_pickle=False)
    keep = ["compound", "source", "batch", "plate", "plate_format", "row", "column", "seed", "split", "name"]
    rows[[*keep, "moa", "concentration", "well", "tile"]].to_parquet(out / "rows.parquet", index=False)
    scale = {"channels": list(CHANNELS), "sources": {SOURCE: {"low": low, "high": high}}, "scaled by": of}
    (out / "intensity.json").write_text(json.dumps(scale, indent=1) + "\n", encoding="utf-8")
    rows[["source", "batch", "plate", "plate_format"]].drop_duplicates().to_parquet(
        out / "contexts.parquet", index=False
    )
    names[["compound", "smiles"]].drop_duplicates("compound").to_parquet(out / "compounds.parquet", index=False)
    (out / "about.json").write_text(json.dumps(ABOUT, indent=1) + "\n", encoding="utf-8")
    table = support(rows)
    table.to_csv(out / "support.csv", index=False)
    report: dict[str, object] = {
        "kind": kind,
        "pictures": {split: int((rows["split"] == split).sum()) for split in ("train", "val")},
        "pixels a side": int(stored.shape[-1]),
        "names": len(names),
        "unknown": dict(zip(*(names.loc[names["compound"] == UNKNOWN, c] for c in ("name", "reason")), strict=True)),
        "batches": int(rows["batch"].nunique()),
        "share of pixels outside [-1, 1]": round(float((np.abs(stored) > 1.0).mean()), 6),
        "scaled by": of,
        "pairs of (compound, batch) with a control in training": int(table["train_pairs"].sum()),
        "names supported in one batch": int((table["train_pairs"] == 1).sum()),
        "names supported in none": int((table["train_pairs"] == 0).sum()),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report
