"""From an id, a molecule and a draw to files: every path is made of checked numbers and of names of our own.

Pictures are found while a job still runs; tables of a molecule are there when that molecule is answered.
"""

from __future__ import annotations

from pathlib import Path

from service.errors import Gone, NotFound, NotReady
from service.jobs import Desk, MoleculeState
from service.pictures import stem
from service.results import CONTROL
from service.store import EXPIRED, Job

COMPOUND_ROW, CONTROL_ROW = "compound", "control"


def molecule_of(desk: Desk, key: str, index: int, owner: str) -> tuple[Job, MoleculeState]:
    """A job and what is known of one of its molecules.

    Raises `NotFound`; `Gone` when the results have expired; `NotReady` before the job was looked at.
    """
    job = desk.get(key, owner)
    if job.state == EXPIRED:
        raise Gone(f"the results of prediction {key} have expired: ask for them again, they will be the same")
    n = len(job.request["smiles"])
    if index >= n:
        raise NotFound(f"molecule {index} is not in this prediction: it has {n}, numbered from 0")
    states = desk.molecules(key, owner)
    if not states:
        raise NotReady(f"prediction {key} is {job.state}: its results are there when it has been worked on")
    return job, states[index]


def folder_of(desk: Desk, key: str, index: int, owner: str) -> Path:
    """The result folder of an answered molecule. Raises `NotFound`, or `NotReady` before it is answered."""
    job, state = molecule_of(desk, key, index, owner)
    if state.outcome is None:
        if job.state in ("failed", "cancelled"):
            raise NotFound(f"molecule {index} has no results: the prediction was {job.state} before")
        raise NotReady(f"molecule {index} is still worked on: its results are there when it is answered")
    place = desk.place(key, state.folder) if state.folder else None
    if place is None or state.outcome in ("invalid", "failed"):
        raise NotFound(f"molecule {index} has no results: its outcome is {state.outcome!r}")
    return place


def control_of(desk: Desk, key: str) -> Path:
    """The folder of the control. Raises `NotFound` before there is one."""
    place = desk.place(key, CONTROL)
    if place is None:
        raise NotFound(f"prediction {key} has no pictures of the control yet")
    return place


def result_file(desk: Desk, key: str, index: int, name: str, owner: str) -> Path:
    """A file of an answered molecule."""
    return folder_of(desk, key, index, owner) / name


def picture_file(desk: Desk, key: str, index: int, draw: int, row: str, owner: str) -> Path:
    """The OME-TIFF of one draw, also while the job runs. Raises `NotFound` while it is not there."""
    found = picture_or_none(desk, key, index, draw, row, owner)
    if found is None:
        raise NotFound(f"draw {draw} has no picture: draws are numbered from 0, and appear as they are painted")
    return found


def picture_or_none(desk: Desk, key: str, index: int, draw: int, row: str, owner: str) -> Path | None:
    """The OME-TIFF of one draw; None while it is not there. Raises `NotFound` for a molecule without pictures."""
    _, state = molecule_of(desk, key, index, owner)
    if not state.folder:
        raise NotFound(f"molecule {index} has no pictures: its outcome is {state.outcome!r}")
    place = desk.place(key, CONTROL if row == CONTROL_ROW else state.folder)
    file = place / "pictures" / f"{stem(draw)}.ome.tiff" if place is not None else None
    return file if file is not None and file.is_file() else None
