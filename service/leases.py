"""The workers' side of the job store: claim a job by a lease, renew it, write down what is finished, give it back.

Whatever a worker writes is fenced: once its lease ran out and went to another worker, or the job was cancelled or
deleted, that is `LeaseLost` and nothing changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from service import ledger
from service.database import JOBS
from service.job import DONE, FAILED, QUEUED, RUNNING, Job
from service.ledger import Note
from service.store import FREE, Store


class LeaseLost(Exception):
    """The job is no longer this worker's: it was cancelled, deleted, or its lease ran out and another has it."""


class Leases:
    """One worker at a store. Safe to call from several threads."""

    def __init__(self, store: Store, worker: str) -> None:
        """`worker`: a name that no other worker has, at any time."""
        self.worker = worker
        self._store, self._clock = store, store.clock

    def claim(self, busy: Mapping[str, int] | None = None, kinds: Sequence[str] = ("prediction",)) -> Job | None:
        """A waiting job, now leased to this worker; None when none waits for it.

        `busy`: how many jobs of each client are worked on: the client with the fewest comes first, then the oldest job;
        a client that has as many as it may is passed over.
        """
        busy = busy or {}
        while True:
            now = self._clock()
            with self._store.database.write("claim a job") as connection:
                query = (
                    sa.select(JOBS.c.owner, sa.func.min(JOBS.c.number).label("number"))
                    .where(JOBS.c.place == self._store.place, JOBS.c.state == QUEUED, JOBS.c.kind.in_(list(kinds)))
                    .group_by(JOBS.c.owner)
                )
                waiting = [(busy.get(str(owner), 0), int(number)) for owner, number in connection.execute(query)]
                waiting = [one for one in waiting if one[0] < self._store.rules.max_active_jobs_per_owner]
                if not waiting:
                    return None
                chosen = min(waiting)[1]
                taken = connection.execute(
                    JOBS.update()
                    .where(JOBS.c.number == chosen, JOBS.c.state == QUEUED)
                    .values(
                        state=RUNNING,
                        attempts=JOBS.c.attempts + 1,
                        mark=JOBS.c.done,
                        started=sa.func.coalesce(JOBS.c.started, now),
                        worker=self.worker,
                        lease_until=now + self._store.rules.lease_s,
                        stage="starting",
                    )
                ).rowcount
                if not taken:
                    continue  # another worker was quicker
                key = str(connection.scalar(sa.select(JOBS.c.id).where(JOBS.c.number == chosen)))
                row = self._store.row(connection, key)
                assert row is not None
                attempt = {"attempt": row["attempts"]}
                ledger.append(connection, key, [Note(RUNNING, f"after {row['last_event']}", attempt)], now)
            return self._store.get(key)

    def wanted(self, key: str) -> bool:
        """Whether a job waits or is worked on, by whomever."""
        with self._store.database.read() as connection:
            row = self._store.row(connection, key)
        return row is not None and row["state"] in (QUEUED, RUNNING)

    def heartbeat(self) -> int:
        """Renews every lease of the worker; answers how many it has."""
        until = self._clock() + self._store.rules.lease_s
        with self._store.database.write("heartbeat") as connection:
            mine = (JOBS.c.place == self._store.place) & (JOBS.c.worker == self.worker) & (JOBS.c.state == RUNNING)
            return int(connection.execute(JOBS.update().where(mine).values(lease_until=until)).rowcount)

    def note(self, notes: Mapping[str, Sequence[Note]], stages: Mapping[str, str] | None = None) -> set[str]:
        """Adds to the ledgers of several jobs in one transaction, and says what each is at.

        Answers the jobs that are no longer this worker's; nothing was noted for those.
        """
        lost: set[str] = set()
        with self._store.database.write("note") as connection:
            for key in sorted(notes):  # in one order, so that two workers never wait for each other
                if not self._holds(connection, key):
                    lost.add(key)
                    continue
                ledger.append(connection, key, notes[key], self._clock())
                if stages and key in stages:
                    connection.execute(JOBS.update().where(JOBS.c.id == key).values(stage=stages[key][:255]))
        return lost

    def plan(self, key: str, total: int, stage: str, notes: Sequence[Note]) -> None:
        """Says how many units a job has, and adds to its ledger. Raises `LeaseLost`."""
        with self._mine(key, "plan a job") as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == key).values(total=total, stage=stage))
            ledger.append(connection, key, notes, self._clock())

    def progress(self, key: str, done: int, total: int, stage: str) -> None:
        """Says where a job without a ledger of rows stands. Raises `LeaseLost`."""
        with self._mine(key, "progress") as connection:
            values = {"done": done, "total": total, "stage": stage[:255]}
            connection.execute(JOBS.update().where(JOBS.c.id == key).values(**values))

    def finish(self, key: str, size: int = 0, expires: float | None = None) -> None:
        """Marks a job as done; its results must be in place by then. Raises `LeaseLost`."""
        with self._mine(key, "finish a job") as connection:
            self._store.end(connection, key, DONE, Note(DONE, ""), done=JOBS.c.total, bytes=size, expires=expires)

    def fail(self, key: str, problem: dict[str, Any], size: int = 0, expires: float | None = None) -> None:
        """Marks a job as failed, with the problem document that the client will see. Raises `LeaseLost`."""
        with self._mine(key, "fail a job") as connection:
            note = Note(FAILED, "", {"problem": problem})
            self._store.end(connection, key, FAILED, note, problem=json.dumps(problem), bytes=size, expires=expires)

    def release(self, key: str) -> None:
        """Lets a running job wait again because the service stops; that attempt does not count. Raises `LeaseLost`."""
        with self._mine(key, "release a job") as connection:
            last = connection.scalar(sa.select(JOBS.c.last_event).where(JOBS.c.id == key))
            ledger.append(connection, key, [Note("released", f"after {last}")], self._clock())
            values = {"state": QUEUED, "stage": QUEUED, "attempts": JOBS.c.attempts - 1, **FREE}
            connection.execute(JOBS.update().where(JOBS.c.id == key).values(**values))

    @contextmanager
    def _mine(self, key: str, what: str) -> Iterator[sa.Connection]:
        """A write transaction on a job that this worker holds. Raises `LeaseLost` where it does not."""
        with self._store.database.write(what) as connection:
            if not self._holds(connection, key):
                raise LeaseLost(f"job {key} is not leased to {self.worker}")
            yield connection

    def _holds(self, connection: sa.Connection, key: str) -> bool:
        row = self._store.row(connection, key, lock=True)
        return row is not None and row["state"] == RUNNING and row["worker"] == self.worker
