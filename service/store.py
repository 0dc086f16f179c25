"""Where jobs live: one table, in SQLite with a write-ahead log, so that a job that was accepted outlives the process.

Times are seconds since the epoch and stay here: nothing of the clock reaches a result folder.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.errors import NotFound, QueueFull

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
STATES = (QUEUED, RUNNING, DONE, FAILED)
MAX_ATTEMPTS = 3

_META = sa.MetaData()
_JOBS = sa.Table(
    "jobs",
    _META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), unique=True, nullable=False),
    sa.Column("state", sa.String(8), nullable=False, index=True),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("started", sa.Float),
    sa.Column("finished", sa.Float),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("stage", sa.String(64), nullable=False),
    sa.Column("problem", sa.Text),
)


@dataclass(frozen=True)
class Job:
    """One accepted request and where it stands. `problem` is a problem document when `state` is "failed"."""

    id: str
    state: str
    request: dict[str, Any]
    attempts: int
    created: float
    started: float | None
    finished: float | None
    done: int
    total: int
    stage: str
    problem: dict[str, Any] | None


class Store:
    """Jobs in a database file. Safe to call from several threads of one process."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})
        sa.event.listen(self._engine, "connect", _configure)
        _META.create_all(self._engine)

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def add(self, request: dict[str, Any], *, limit: int) -> Job:
        """Queues a request. Raises `QueueFull` when `limit` jobs wait already."""
        key = uuid.uuid4().hex
        with self._engine.begin() as connection:
            waiting = connection.scalar(sa.select(sa.func.count()).where(_JOBS.c.state == QUEUED)) or 0
            if waiting >= limit:
                raise QueueFull(f"{waiting} jobs are waiting, at most {limit} may: try again later")
            connection.execute(
                _JOBS.insert().values(
                    id=key,
                    state=QUEUED,
                    request=json.dumps(request),
                    attempts=0,
                    created=self._clock(),
                    done=0,
                    total=0,
                    stage=QUEUED,
                )
            )
        return self.get(key)

    def get(self, key: str) -> Job:
        """One job. Raises `NotFound`."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_JOBS).where(_JOBS.c.id == key)).mappings().first()
        if row is None:
            raise NotFound(f"no prediction has the id {key[:40]!r}: take it from the Location header of the POST")
        return _job(row)

    def ahead_of(self, key: str) -> int:
        """How many jobs are to be finished before this one starts."""
        number = sa.select(_JOBS.c.number).where(_JOBS.c.id == key).scalar_subquery()
        query = sa.select(sa.func.count()).where(_JOBS.c.state.in_((QUEUED, RUNNING)), _JOBS.c.number < number)
        with self._engine.connect() as connection:
            return int(connection.scalar(query) or 0)

    def claim(self) -> Job | None:
        """The oldest waiting job, now marked as running; None when none waits."""
        with self._engine.begin() as connection:
            query = sa.select(_JOBS.c.id).where(_JOBS.c.state == QUEUED).order_by(_JOBS.c.number).limit(1)
            key = connection.scalar(query)
            if key is None:
                return None
            connection.execute(
                _JOBS.update()
                .where(_JOBS.c.id == key)
                .values(state=RUNNING, attempts=_JOBS.c.attempts + 1, started=self._clock(), done=0, stage="starting")
            )
        return self.get(str(key))

    def progress(self, key: str, done: int, total: int, stage: str) -> None:
        """Notes how many of `total` units are done."""
        self._set(key, done=done, total=total, stage=stage)

    def finish(self, key: str) -> None:
        """Marks a job as done; its results must be in place by then."""
        self._set(key, state=DONE, finished=self._clock(), stage=DONE, done=_JOBS.c.total)

    def fail(self, key: str, problem: dict[str, Any]) -> None:
        """Marks a job as failed, with the problem document the client will see."""
        self._set(key, state=FAILED, finished=self._clock(), stage=FAILED, problem=json.dumps(problem))

    def release(self, key: str) -> None:
        """Lets a running job wait again because the service stops; that attempt does not count."""
        self._set(key, state=QUEUED, stage=QUEUED, done=0, attempts=_JOBS.c.attempts - 1)

    def recover(self, problem: dict[str, Any]) -> int:
        """After a restart: what was running waits again, unless it took the process down `MAX_ATTEMPTS` times.

        Returns how many jobs wait again; the others fail with `problem`.
        """
        with self._engine.begin() as connection:
            broken = (_JOBS.c.state == RUNNING) & (_JOBS.c.attempts >= MAX_ATTEMPTS)
            values = {"state": FAILED, "finished": self._clock(), "stage": FAILED, "problem": json.dumps(problem)}
            connection.execute(_JOBS.update().where(broken).values(**values))
            again = _JOBS.update().where(_JOBS.c.state == RUNNING).values(state=QUEUED, stage=QUEUED, done=0)
            return int(connection.execute(again).rowcount)

    def _set(self, key: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(_JOBS.update().where(_JOBS.c.id == key).values(**values))


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _job(row: Any) -> Job:
    values = {name: row[name] for name in Job.__dataclass_fields__}
    values["request"] = json.loads(values["request"])
    values["problem"] = json.loads(values["problem"]) if values["problem"] else None
    return Job(**values)
