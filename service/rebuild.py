"""A job store that is damaged is set aside and made again from the files of its jobs.

Every accepted request lies in its own file before the store knows it, every finished row and molecule in its place
before the ledger says so: what a client was told is there, and unfinished jobs go on from their last finished row.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import ledger
from service.database import JOBS, Database
from service.errors import Damaged, sentence
from service.faults import point
from service.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, seal
from service.job_files import REQUEST, JobFiles
from service.ledger import MOLECULE, Note
from service.quota import Rules
from service.results import read_json
from service.store import Store

LOG = logging.getLogger("dopaint.jobs")
FILE = "jobs.sqlite"
FIRST_NUMBER = 1_000_000  # of an event in a rebuilt ledger: above all that readers have seen


def open_store(data: Path, url: str | None, rules: Rules, clock: Callable[[], float]) -> Store:
    """The store of a data folder, which the caller owns alone; a damaged SQLite file is rebuilt first.

    Raises `Damaged` for a PostgreSQL database that cannot be used, `InvalidRequest` for a URL.
    """
    place = _place(data, url)
    if url is not None and not url.startswith("sqlite"):
        store = Store(Database(url), place, rules, clock)
        trouble = store.database.check()
        if trouble:
            store.close()
            raise Damaged(f"the database cannot be used: {trouble}")
        return store
    file = data / FILE
    trouble = _trouble(file, data, place, rules, clock) if file.is_file() else None
    rebuilding = data / f"{FILE}.rebuilding"
    if trouble is None and file.is_file():
        _remove(rebuilding)
        return Store(Database.of_file(file), place, rules, clock)
    if trouble is not None:
        LOG.error("the job store is damaged (%s): it is set aside and rebuilt from the files of its jobs", trouble)
    _remove(rebuilding)
    store = Store(Database.of_file(rebuilding), place, rules, clock)
    n = rebuild(store, data)
    store.close()
    if trouble is not None:
        _set_aside(file)
        LOG.info("%d jobs are in the rebuilt store", n)
    for ending in ("-wal", "-shm"):  # of a damaged file whose setting aside was cut short
        Path(f"{file}{ending}").unlink(missing_ok=True)
    os.replace(rebuilding, file)
    point("rebuilt store: in place")
    return Store(Database.of_file(file), place, rules, clock)


def rebuild(store: Store, data: Path) -> int:
    """Adds every job that has files below `data`, in the order in which they were accepted; answers how many."""
    keys = {path.name.removesuffix(".json") for path in (data / "requests").glob("*.json")}
    keys = {key for key in keys if not key.endswith(".ended")}
    keys |= {path.parent.name for path in (data / "results").glob(f"*/{REQUEST}")}
    accepted = []
    for key in keys:
        with suppress(OSError, ValueError, KeyError, TypeError):
            accepted.append(_accepted(JobFiles(data, key)))
    accepted.sort(key=lambda one: (one["created"], one["id"]))
    for document in accepted:
        _add(store, JobFiles(data, document["id"]), document)
    return len(accepted)


def _accepted(files: JobFiles) -> dict[str, Any]:
    """What was accepted; of a job from before there were such files, what its results say."""
    if files.request.is_file():
        document = dict(read_json(files.request))
        return {name: document[name] for name in ("id", "owner", "kind", "request", "created", "rows", "size", "key")}
    file = files.results / REQUEST
    asked = dict(read_json(file)["request"])
    rows = (len(asked["smiles"]) + 1) * int(asked["draws"])
    facts = {"id": files.key, "owner": "local", "kind": "prediction", "request": asked, "key": None}
    return {**facts, "created": file.stat().st_mtime, "rows": rows, "size": 0}


def _add(store: Store, files: JobFiles, document: dict[str, Any]) -> None:
    ending = None
    with suppress(OSError, ValueError):
        ending = read_json(files.ending)
    state = DONE if files.complete else str(ending["state"]) if ending else QUEUED
    problem = ending.get("problem") if ending and state == FAILED else None
    now = store.clock()
    text = json.dumps(document["request"])
    ended = state in (DONE, FAILED, CANCELLED)
    with store.database.write("rebuild a job") as connection:
        connection.execute(
            JOBS.insert().values(
                id=document["id"],
                place=store.place,
                owner=document["owner"],
                kind=document["kind"],
                state=RUNNING,  # until its ledger is written
                request=text,
                seal=seal(document["id"], document["owner"], document["kind"], text, float(document["created"])),
                idempotency_key=document["key"],
                attempts=0,
                mark=0,
                created=float(document["created"]),
                finished=now if ended else None,
                expires=now + store.rules.keep_s if ended else None,
                rows=int(document["rows"]),
                done=0,
                total=2 * int(document["rows"]) if state == DONE else 0,
                stage=state,
                problem=json.dumps(problem) if problem else None,
                bytes=int(document["size"]),
                last_event=FIRST_NUMBER,
            )
        )
        notes = [Note(QUEUED, "")]
        if state == DONE and document["kind"] == "prediction":
            notes += _molecules(files)
        if ended:
            notes.append(Note(state, "", {"problem": problem} if problem else {}))
        ledger.append(connection, document["id"], notes, now)
        values = {"state": state, **({"done": JOBS.c.total} if state == DONE else {})}
        connection.execute(JOBS.update().where(JOBS.c.id == document["id"]).values(**values))


def _molecules(files: JobFiles) -> list[Note]:
    notes: dict[str, Note] = {}
    for one in read_json(files.results / REQUEST)["molecules"]:
        facts = {"outcome": one["outcome"], "reason": one["reason"], "sentence": one["sentence"]}
        if one["folder"]:
            earlier = notes[one["folder"]].data["indices"] if one["folder"] in notes else []
            data = {"folder": one["folder"], "indices": [*earlier, one["index"]], **facts}
            notes[one["folder"]] = Note(MOLECULE, one["folder"], data)
    return list(notes.values())


def _trouble(file: Path, data: Path, place: str, rules: Rules, clock: Callable[[], float]) -> str | None:
    """What is wrong with a SQLite file; None when it can be used."""
    try:
        store = Store(Database.of_file(file), place, rules, clock)
    except Damaged as error:
        return sentence(error)
    try:
        trouble = store.database.check()
        if trouble is None and not store.known() and any((data / "requests").glob("*.json")):
            trouble = "it knows no job, but there are requests"
    except Damaged as error:
        trouble = sentence(error)
    finally:
        store.close()
    return trouble


def _set_aside(file: Path) -> None:
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    os.replace(file, aside)
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(f"{file}{ending}", f"{aside}{ending}")
    point("damaged store: set aside")


def _remove(file: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)


def _place(data: Path, url: str | None) -> str:
    """Which jobs of the database are those of this folder: all of its own file, in a shared database by a name."""
    if url is None or url.startswith("sqlite"):
        return "here"
    file = data / "place"
    if not file.is_file():
        file.write_text(uuid.uuid4().hex, encoding="ascii")
    return file.read_text(encoding="ascii")[:32]
