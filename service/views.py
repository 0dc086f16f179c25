"""From jobs and result folders to what the HTTP doors answer. Reads only; every path is made of checked numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from chem.bounded import standardise_within
from chem.depict import depict
from service.answer import standing_document, statement
from service.errors import Loading, NotFound, NotReady
from service.jobs import Desk, seconds_left
from service.pictures import png, read_picture, stem
from service.results import CONTROL, read_json
from service.store import DONE, Job

Document = dict[str, Any]


def prediction(desk: Desk, job: Job, now: float) -> Document:
    """The status of a job, and its answer once it is done."""
    here = f"/v1/predictions/{job.id}"
    answer = read_json(desk.folder(job.id) / "request.json") if job.state == DONE else None
    left = seconds_left(job, now)
    return {
        "id": job.id,
        "status": job.state,
        "evidence": answer["evidence"] if answer else None,
        "statement": answer["statement"] if answer else None,
        "jobs_ahead": desk.ahead_of(job.id) if job.state == "queued" else 0,
        "progress": {
            "done": job.done,
            "total": job.total,
            "fraction": 1.0 if job.state == DONE else round(job.done / job.total, 4) if job.total else 0.0,
            "stage": job.stage,
        },
        "seconds_left": None if left is None else round(left, 1),
        "request": job.request,
        "problem": job.problem,
        "molecules": [_molecule(desk, here, job.id, one) for one in answer["molecules"]] if answer else [],
        "links": {"self": here},
    }


def _molecule(desk: Desk, here: str, key: str, outcome: Document) -> Document:
    if not outcome["folder"]:
        return {**outcome, "predictions": None, "links": {}}
    root = f"{here}/molecules/{outcome['index']}"
    links = {name: f"{root}/{name}" for name in ("pictures", "profile", "effects", "predictions")}
    return {
        **outcome,
        "predictions": read_json(desk.folder(key) / outcome["folder"] / "predictions.json"),
        "links": links,
    }


def _finished(desk: Desk, key: str) -> Document:
    job = desk.get(key)
    if job.state != DONE:
        raise NotReady(f"prediction {key} is {job.state}: its results are there when it is done")
    document: Document = read_json(desk.folder(key) / "request.json")
    return document


def folder_of(desk: Desk, key: str, index: int) -> Path:
    """The result folder of one molecule. Raises `NotFound`, or `NotReady` before the job is done."""
    molecules = _finished(desk, key)["molecules"]
    if index >= len(molecules):
        raise NotFound(f"molecule {index} is not in this prediction: it has {len(molecules)}, numbered from 0")
    if not molecules[index]["folder"]:
        raise NotFound(f"molecule {index} has no results: its outcome is {molecules[index]['outcome']!r}")
    return desk.folder(key) / str(molecules[index]["folder"])


def result_file(desk: Desk, key: str, index: int, name: str) -> Path:
    """A file of a molecule's result folder."""
    return folder_of(desk, key, index) / name


def _pictures(desk: Desk, key: str, index: int, row: str) -> Path:
    folder = folder_of(desk, key, index)
    return (folder.parent / CONTROL if row == "control" else folder) / "pictures"


def tiff_file(desk: Desk, key: str, index: int, draw: int, row: str) -> Path:
    """The OME-TIFF of one draw."""
    file = _pictures(desk, key, index, row) / f"{stem(draw)}.ome.tiff"
    if not file.is_file():
        raise NotFound(f"draw {draw} has no picture in this result: draws are numbered from 0")
    return file


def png_bytes(desk: Desk, key: str, index: int, draw: int, row: str, channel: str, low: float, high: float) -> bytes:
    """PNG of one channel or of the composite."""
    picture, channels = read_picture(_pictures(desk, key, index, row), draw)
    return png(picture, channels, channel, low, high)


def draws(desk: Desk, key: str, index: int) -> Document:
    """Contexts of the draws and the addresses of their pictures, compound and control under the same noise."""
    folder = folder_of(desk, key, index)
    manifest = read_json(folder / "manifest.json")
    columns = [
        "Metadata_draw",
        "Metadata_source",
        "Metadata_batch",
        "Metadata_plate",
        "Metadata_plate_format",
        "Metadata_row",
        "Metadata_column",
        "Metadata_seed",
        "Metadata_Outcome",
    ]
    table = pd.read_parquet(folder / "profiles.parquet", columns=columns)
    table.columns = [name.removeprefix("Metadata_").lower() for name in table.columns]
    table["seed"] = table["seed"].astype(str)  # 64 bits do not fit a JavaScript number
    root = f"/v1/predictions/{key}/molecules/{index}/pictures"
    rows = [
        {**row, "compound": f"{root}/{row['draw']}?row=compound", "control": f"{root}/{row['draw']}?row=control"}
        for row in table.to_dict("records")
    ]
    return {"evidence": manifest["evidence"], "channels": manifest["channels"], "draws": rows}


def table_json(file: Path) -> Document:
    """A parquet table by columns; what is not a finite number is null."""
    table = pd.read_parquet(file)
    return {
        "columns": list(table.columns),
        "rows": len(table),
        "data": {name: _values(table[name]) for name in table.columns},
    }


def _values(column: pd.Series) -> list[Any]:
    if pd.api.types.is_float_dtype(column.dtype):
        return [float(value) if math.isfinite(value) else None for value in column]
    if column.dtype == "uint64":
        return [str(value) for value in column]
    return list(column.tolist())


def table_csv(file: Path) -> str:
    """A parquet table as CSV."""
    return str(pd.read_parquet(file).to_csv(index=False, lineterminator="\n"))


def molecule(desk: Desk, smiles: str) -> Document:
    """A molecule standardised and drawn; its standing once the model is loaded. Raises `InvalidSmiles`."""
    one = standardise_within(smiles)
    try:
        standing: Document | None = standing_document(desk.room().standing(one))
    except Loading:
        standing = None
    return {
        "smiles": one.smiles,
        "inchikey": one.inchikey,
        "changes": list(one.changes),
        "svg": depict(one),
        "standing": standing,
    }


def version(desk: Desk, code: str) -> Document:
    """Versions and hashes of what answers. Raises `Loading` while the model loads."""
    room = desk.room()
    card = room.card
    return {
        "dopaint": code,
        "model": card.name,
        "evidence": card.evidence,
        "statement": statement(card.evidence),
        "conditions": card.conditions,
        "channels": list(card.channels),
        "provenance": room.provenance.document(),
    }


def contexts(desk: Desk) -> Document:
    """The plates that the model knows."""
    table = desk.room().contexts.plates
    return {
        "evidence": desk.room().card.evidence,
        "sources": sorted(table["source"].unique().tolist()),
        "batches": sorted(table["batch"].unique().tolist()),
        "plates": table.to_dict("records"),
    }
