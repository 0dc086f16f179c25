"""What is known of a job's molecules and pictures while it is worked on, and after: from its ledger and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.job import CANCELLED, DONE, FAILED, Job
from service.job_files import REQUEST, JobFiles
from service.ledger import MOLECULE, PICTURE, PLANNED, ROW
from service.pictures import stem
from service.results import CONTROL, read_json
from service.store import Store

_ALL = 1_000_000


@dataclass(frozen=True)
class MoleculeState:
    """One entry of the list: its outcome (None while it is worked on), and how many of its pictures there are."""

    index: int
    input: str
    folder: str
    outcome: str | None
    reason: str
    sentence: str
    position: int | None
    smiles: str
    inchikey: str
    painted: int
    measured: int
    draws: int


@dataclass(frozen=True)
class PictureReady:
    """A finished picture and its preview."""

    folder: str
    draw: int
    file: Path
    preview: Path


def molecules_of(store: Store, files: JobFiles, job: Job) -> list[MoleculeState]:
    """Every entry of the list; none before the job was looked at."""
    if job.state == DONE and files.complete:
        document = read_json(files.results / REQUEST)
        draws = int(document["request"]["draws"])
        made = {one["folder"]: draws for one in document["molecules"]}
        if job.request.get("precision") is not None:  # fewer may have been enough
            made = {folder: len(files.draws_with_pictures(folder)) for folder in made if folder}
        numbers = [made.get(one["folder"], 0) for one in document["molecules"]]
        return [state_of(one, n, n, draws) for one, n in zip(document["molecules"], numbers, strict=True)]
    events = store.events(job.id, 0, _ALL, (PLANNED, MOLECULE))
    planned = next((event.data for event in events if event.kind == PLANNED), None)
    if planned is None:
        return []
    outcomes = {event.data["folder"]: event.data for event in events if event.kind == MOLECULE}
    counts = store.counts(job.id)
    found = []
    for one in planned["molecules"]:
        folder = one["folder"]
        facts = {**one, **{k: v for k, v in outcomes.get(folder, {}).items() if k in ("outcome", "reason", "sentence")}}
        painted, measured = counts.get((PICTURE, folder), 0), counts.get((ROW, folder), 0)
        found.append(state_of(facts, painted, measured, planned["draws"]))
    return found


def state_of(facts: dict[str, Any], painted: int, measured: int, draws: int) -> MoleculeState:
    """One entry from what was planned for it and what became of it."""
    folder = str(facts["folder"])
    return MoleculeState(
        index=int(facts["index"]),
        input=str(facts["input"]),
        folder=folder,
        outcome=facts["outcome"],
        reason=str(facts["reason"]),
        sentence=str(facts["sentence"]),
        position=facts["position"],
        smiles=str(facts["smiles"]),
        inchikey=str(facts["inchikey"]),
        painted=painted if folder else 0,
        measured=measured if folder else 0,
        draws=draws,
    )


def pictures_of(store: Store, files: JobFiles, job: Job) -> list[PictureReady]:
    """All pictures that are in place, the control's first, by draw."""
    if job.state == DONE or job.state in (CANCELLED, FAILED):
        folders = sorted(path.name for path in files.results.glob("*") if (path / "pictures").is_dir())
    else:
        events = store.events(job.id, 0, _ALL, (PLANNED,))
        folders = list(events[0].data["folders"]) if events else []
    folders.sort(key=lambda name: name != CONTROL)
    found = []
    for folder in folders:
        place = files.place_of(folder)
        if place is None:
            continue
        for draw in files.draws_with_pictures(folder):
            name = place / "pictures" / stem(draw)
            found.append(PictureReady(folder, draw, Path(f"{name}.ome.tiff"), Path(f"{name}.png")))
    return found
