"""What happened to a job, in order: numbered events, each of which can happen only once.

The ledger is also the count of finished pictures: a picture that was painted or measured has one event, guarded by a
unique constraint, and a job's progress moves only with new events. So nothing counts twice, however often a worker was
killed between a file and its event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from service.database import EVENTS, JOBS

PICTURE, ROW, MOLECULE, PLANNED = "picture", "row", "molecule", "planned"
UNITS = {PICTURE: 1, ROW: 1}
_AT_ONCE = 300  # subjects in one question: databases bound the number of parameters


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job. Numbers of a job rise; they never change."""

    number: int
    at: float
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Note:
    """An event to be. `subject` says what it happened to: the same kind of the same subject is noted once.

    `units`: progress that comes with it; None: as the kind has (`UNITS`).
    """

    kind: str
    subject: str
    data: dict[str, Any] = field(default_factory=dict)
    units: int | None = None

    @property
    def progress(self) -> int:
        """Units of progress."""
        return UNITS.get(self.kind, 0) if self.units is None else self.units


def append(connection: sa.Connection, job: str, notes: Sequence[Note], now: float) -> int:
    """Adds what is new among `notes` to a job's ledger, within the caller's transaction; answers how much was.

    The caller has locked the job's row.
    """
    seen = known(connection, job, [one.subject for one in notes])
    fresh = list({(one.kind, one.subject): one for one in notes if (one.kind, one.subject) not in seen}.values())
    if not fresh:
        return 0
    last = int(connection.scalar(sa.select(JOBS.c.last_event).where(JOBS.c.id == job)) or 0)
    rows = [
        {
            "job": job,
            "number": last + i,
            "at": now,
            "kind": one.kind,
            "subject": one.subject,
            "data": json.dumps(one.data),
        }
        for i, one in enumerate(fresh, 1)
    ]
    connection.execute(EVENTS.insert(), rows)
    done = sum(one.progress for one in fresh)
    connection.execute(
        JOBS.update().where(JOBS.c.id == job).values(last_event=last + len(fresh), done=JOBS.c.done + done)
    )
    return len(fresh)


def known(connection: sa.Connection, job: str, subjects: Sequence[str]) -> set[tuple[str, str]]:
    """Which (kind, subject) of these subjects the ledger has."""
    found: set[tuple[str, str]] = set()
    distinct = list(dict.fromkeys(subjects))
    for start in range(0, len(distinct), _AT_ONCE):
        some = distinct[start : start + _AT_ONCE]
        query = sa.select(EVENTS.c.kind, EVENTS.c.subject).where(EVENTS.c.job == job, EVENTS.c.subject.in_(some))
        found.update((str(kind), str(subject)) for kind, subject in connection.execute(query))
    return found


def read(connection: sa.Connection, job: str, after: int, limit: int, kinds: Sequence[str] = ()) -> list[Event]:
    """A job's events with numbers above `after`, oldest first."""
    query = sa.select(EVENTS).where(EVENTS.c.job == job, EVENTS.c.number > after)
    if kinds:
        query = query.where(EVENTS.c.kind.in_(kinds))
    rows = connection.execute(query.order_by(EVENTS.c.number).limit(limit)).mappings()
    return [Event(row["number"], row["at"], row["kind"], json.loads(row["data"])) for row in rows]


def count(connection: sa.Connection, job: str) -> dict[tuple[str, str], int]:
    """(kind, folder) → how many pictures were painted and rows measured; the subject begins with the folder."""
    folder = sa.func.substr(EVENTS.c.subject, 1, sa.func.length(EVENTS.c.subject) - 5)  # "<folder>/0003"
    rows = (
        sa.select(EVENTS.c.kind, folder.label("folder"))
        .where(EVENTS.c.job == job, EVENTS.c.kind.in_((PICTURE, ROW)))
        .subquery()
    )
    query = sa.select(rows.c.kind, rows.c.folder, sa.func.count()).group_by(rows.c.kind, rows.c.folder)
    return {(str(kind), str(name)): int(n) for kind, name, n in connection.execute(query)}


def subject_of(folder: str, draw: int) -> str:
    """What a picture's events are about."""
    return f"{folder}/{draw:04d}"


def row_note(folder: str, draw: int, outcome: str) -> Note:
    """The event that says that a picture was measured."""
    return Note(ROW, subject_of(folder, draw), {"folder": folder, "draw": draw, "outcome": outcome})
