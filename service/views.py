"""From jobs and what the model knows to what the HTTP doors answer. Reads only."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from chem.bounded import standardise_within
from chem.depict import depict
from service.answer import standing_document, statement
from service.errors import Loading, ServiceError
from service.jobs import Desk, MoleculeState
from service.own_pictures import pixel_size_of
from service.reference import KINDS
from service.results import read_json
from service.rooms import Room
from service.store import DONE, QUEUED, Job

Document = dict[str, Any]
ASKED = ("smiles", "draws", "precision", "seed", "control", "allow_simulated", "abstain", "contexts", "engine", "model")
PENDING = "pending"
WHOLE = 100  # molecules whose answers stand in the status of a finished prediction; of more, each has its own address


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601, UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def progress(job: Job) -> Document:
    """How far a job is."""
    return {
        "done": job.done,
        "total": job.total,
        "fraction": 1.0 if job.state == DONE else min(1.0, round(job.done / job.total, 4)) if job.total else 0.0,
        "stage": job.stage,
    }


def _head(desk: Desk, job: Job, owner: str) -> Document:
    left = desk.seconds_left(job)
    return {
        "id": job.id,
        "status": job.state,
        "jobs_ahead": desk.ahead_of(job.id) if job.state == QUEUED else 0,
        "progress": progress(job),
        "seconds_left": None if left is None else round(max(0.0, left), 1),
        "created": iso(job.created),
        "finished": iso(job.finished),
        "expires": iso(job.expires),
        "request": job.request,
        "problem": job.problem,
        **evidence(desk),
    }


def evidence(desk: Desk) -> Document:
    try:
        evidence: str | None = desk.room().card.evidence
    except Exception:  # it still loads, or could not: the status of a job must not depend on it
        evidence = None
    return {"evidence": evidence, "statement": statement(evidence) if evidence else None}


def prediction(desk: Desk, job: Job, owner: str) -> Document:
    """Where a prediction stands, molecule by molecule; with its answer once it is done."""
    here = f"/v1/predictions/{job.id}"
    links = {name: f"{here}/{name}" for name in ("events", "cancel", "links")}
    answer = _finished(desk, job)
    document = _head(desk, job, owner)
    if answer is not None:
        document |= {"evidence": answer["evidence"], "statement": answer["statement"]}
    return document | {
        "molecules": molecules(desk, job, owner, answer),
        "links": {"self": here, **links, "zip": f"{here}/files.zip", "page": page_link(job.request)},
    }


def _finished(desk: Desk, job: Job) -> Document | None:
    file = desk.folder(job.id) / "request.json"
    if job.state != DONE or not file.is_file():
        return None
    document: Document = read_json(file)
    return document


def molecules(desk: Desk, job: Job, owner: str, answer: Document | None = None) -> list[Document]:
    """Every entry of the list; those that are not answered yet are pending."""
    here = f"/v1/predictions/{job.id}"
    if answer is not None:
        whole = len(answer["molecules"]) <= WHOLE
        folder = desk.folder(job.id) if whole else None
        return [_answered(here, one, folder) for one in answer["molecules"]]
    states = desk.molecules(job.id, owner)
    if states:
        return [molecule_state(job.id, one) for one in states]
    return [
        _entry(index, text, PENDING) | {"links": {}, "predictions": None}
        for index, text in enumerate(job.request["smiles"])
    ]


def _answered(here: str, outcome: Document, folder: Path | None) -> Document:
    if not outcome["folder"]:
        return {**outcome, "predictions": None, "links": {}}
    file = folder / outcome["folder"] / "predictions.json" if folder is not None else None
    found = read_json(file) if file is not None and file.is_file() else None
    return {**outcome, "predictions": found, "links": molecule_links(here, outcome["index"])}


def molecule_state(key: str, state: MoleculeState) -> Document:
    """One entry while its job runs."""
    words = {"reason": state.reason or "", "sentence": state.sentence or "", "position": state.position}
    names = {"smiles": state.smiles or "", "inchikey": state.inchikey or "", "folder": state.folder or ""}
    links = molecule_links(f"/v1/predictions/{key}", state.index) if state.folder else {}
    return {
        **_entry(state.index, state.input, state.outcome or PENDING),
        **words,
        **names,
        "predictions": None,
        "links": links,
    }


def _entry(index: int, text: str, outcome: str) -> Document:
    return {
        "index": index,
        "input": text,
        "outcome": outcome,
        "reason": "",
        "sentence": "",
        "position": None,
        "smiles": "",
        "inchikey": "",
        "changes": [],
        "folder": "",
    }


def molecule_links(here: str, index: int) -> dict[str, str]:
    """Addresses of what there is about one molecule."""
    root = f"{here}/molecules/{index}"
    names = ("pictures", "profile", "effects", "predictions", "grid", "settling", "heatmap")
    stores = {f"{row}_zarr": f"{root}/{row}.zarr" for row in ("compound", "control")}
    return {name: f"{root}/{name}" for name in names} | stores


def page_link(request: Mapping[str, Any]) -> str:
    """The page's address with the request in its fragment, which a browser sends nowhere; never a key."""
    asked = {name: request[name] for name in ASKED if request.get(name) not in (None, [], False)}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    return "/#request=" + base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def item(job: Job, root: str) -> Document:
    """One line of a list of jobs."""
    here = f"{root}/{job.id}"
    return {
        "id": job.id,
        "status": job.state,
        "created": iso(job.created),
        "finished": iso(job.finished),
        "expires": iso(job.expires),
        "request": job.request,
        "progress": progress(job),
        "links": {"self": here},
    }


def prediction_item(job: Job) -> Document:
    """One line of the list of predictions."""
    smiles = job.request["smiles"]
    line = item(job, "/v1/predictions")
    short = {**job.request, "smiles": smiles[:3]} if len(smiles) > 3 else job.request
    links = {**line["links"], "page": page_link(job.request)}
    return line | {
        "request": short,
        "smiles": smiles[:3],
        "n_molecules": len(smiles),
        "draws": job.request["draws"],
        "seed": job.request["seed"],
        "links": links,
    }


def own_pictures(desk: Desk, job: Job, owner: str) -> Document:
    """Where a job on own pictures stands, and its result once it is done."""
    here = f"/v1/profiles/{job.id}"
    links = {"self": here, "cancel": f"{here}/cancel"}
    answer = _finished(desk, job)
    if answer is not None:
        links |= {name: f"{here}/{name}" for name in ("profile", "effects")}
    return _head(desk, job, owner) | {"result": answer, "links": links}


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


# ----------------------------------------------------------------------------------------------------------------------
# What the model knows.


def version(desk: Desk, code: str, auth: bool) -> Document:
    """Versions and hashes of what answers; while the model loads only those of the code."""
    document: Document = {"dopaint": code, "auth": "required" if auth else "off"}
    try:
        room = desk.room()
    except ServiceError:
        return document | {"model": None, "evidence": None, "statement": None}
    return document | _model(room) | {"model": room.card.name}


def _model(room: Room) -> Document:
    card = room.card
    return {
        "name": card.name,
        "evidence": card.evidence,
        "statement": statement(card.evidence),
        "conditions": card.conditions,
        "channels": list(card.channels),
        "picture_size": card.picture_size,
        "pixel_size_um": pixel_size_of(card),
        "provenance": room.provenance.document(),
    }


def models(desk: Desk, engine: str, card: str) -> Document:
    """The models that answer here: one. `card` is its model card, Markdown. Raises `Loading`."""
    return {"models": [_model(desk.room()) | {"loaded": True, "engine": engine, "card": card}]}


def contexts(desk: Desk) -> Document:
    """The plates that the model knows. Raises `Loading`."""
    table = desk.room().contexts.plates
    return {
        "evidence": desk.room().card.evidence,
        "sources": sorted(table["source"].unique().tolist()),
        "batches": sorted(table["batch"].unique().tolist()),
        "plates": table.to_dict("records"),
    }


def reference(desk: Desk) -> Document:
    """The reference library: how it was made, its labels and compounds. Raises `Loading`, `MissingReference`."""
    room = desk.room()
    library = room.reference()
    keys = ("InChIKey", "Name", "SMILES", *KINDS)
    columns = [library.profiles.column(name).tolist() for name in keys]
    compounds = [
        {name.lower(): str(value) for name, value in zip(keys, row, strict=True)} for row in zip(*columns, strict=True)
    ]
    return {
        "evidence": room.card.evidence,
        "effect": library.manifest["effect"],
        "hashes": library.manifest["hashes"],
        "counts": library.manifest.get("counts", {}),
        "features": list(library.profiles.names),
        "labels": {
            kind: [{"label": label, "n": len(members)} for label, members in sorted(library.members(kind).items())]
            for kind in KINDS
        },
        "compounds": compounds,
    }
