"""Where jobs live: a table of jobs and the ledger of what happened to them; an accepted job outlives the process.

This file is the clients' and the janitor's side; the workers' side is `service.leases`. Times are seconds since the
epoch and stay here: nothing of the clock reaches a result folder.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service import ledger
from service.database import EVENTS, JOBS, Database
from service.errors import IdempotencyConflict, NotFound
from service.job import CANCELLED, DONE, ENDED, EXPIRED, FAILED, QUEUED, RUNNING, STATES, Job, Page, job_of, seal
from service.ledger import Event, Note
from service.quota import OwnerRules, Rules, Used, admit

__all__ = ["CANCELLED", "DONE", "ENDED", "EXPIRED", "FAILED", "QUEUED", "RUNNING", "STATES", "Job", "Store"]

MAX_PAGE = 500


class Store:
    """Jobs of one data folder (`place`) in a database. Safe to call from several threads and processes."""

    def __init__(
        self,
        database: Database | Path,
        place: str = "here",
        rules: Rules | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = database if isinstance(database, Database) else Database.of_file(database)
        self.place, self.rules, self.clock = place, rules or Rules(), clock

    def close(self) -> None:
        """Closes every connection."""
        self.database.close()

    # ------------------------------------------------------------------------------------------------------------------
    # What clients do.

    def add(
        self,
        request: dict[str, Any],
        *,
        key: str | None = None,
        owner: str = "local",
        kind: str = "prediction",
        idempotency_key: str | None = None,
        rows: int = 1,
        size: int = 0,
        owner_rules: OwnerRules | None = None,
        retry_after_s: float = 10.0,
    ) -> tuple[Job, bool]:
        """Queues a request; the job, and whether it is a new one: an idempotency key that was used gives the first.

        Raises `QueueFull`, `QuotaExceeded`, `StorageFull`, `IdempotencyConflict`.
        """
        key, now = key or uuid.uuid4().hex, self.clock()
        text = json.dumps(request)
        with self.database.write("add a job") as connection:
            if idempotency_key is not None:
                if not self.database.is_sqlite:  # two requests with one key at once: the second waits for the first
                    words = f"{self.place}/{owner}/{idempotency_key}"
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(words))))
                first = self._first(connection, owner, idempotency_key)
                if first is not None:
                    if first.request != request or first.kind != kind:
                        raise IdempotencyConflict(
                            "the idempotency key was used for another request: use a new key for a new request"
                        )
                    return first, False
            everyone, mine = self._used(connection, None), self._used(connection, owner)
            admit(self.rules, owner_rules or OwnerRules(), everyone, mine, rows, size, retry_after_s)
            connection.execute(
                JOBS.insert().values(
                    id=key,
                    place=self.place,
                    owner=owner,
                    kind=kind,
                    state=QUEUED,
                    request=text,
                    seal=seal(key, owner, kind, text, now),
                    idempotency_key=idempotency_key,
                    attempts=0,
                    mark=0,
                    created=now,
                    rows=rows,
                    done=0,
                    total=0,
                    stage=QUEUED,
                    bytes=size,
                    last_event=0,
                )
            )
            ledger.append(connection, key, [Note(QUEUED, "")], now)
        return self.get(key), True

    def get(self, key: str, owner: str | None = None) -> Job:
        """One job. Raises `NotFound`, also for a job of another than `owner`."""
        with self.database.read() as connection:
            row = self.row(connection, key)
        if row is None or (owner is not None and row["owner"] != owner):
            raise NotFound(f"no prediction has the id {key[:40]!r}: take it from the Location header of the POST")
        return job_of(row)

    def find(self, owner: str, idempotency_key: str) -> Job | None:
        """The job of a client's idempotency key; None: it was not used."""
        with self.database.read() as connection:
            return self._first(connection, owner, idempotency_key)

    def page(
        self,
        owner: str | None = None,
        *,
        states: Sequence[str] = (),
        kind: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Jobs, newest first; `next` of a page is the cursor of the page after it, None on the last.

        Raises `NotFound` for a cursor that no page gave.
        """
        limit = max(1, min(limit, MAX_PAGE))
        query = sa.select(JOBS).where(JOBS.c.place == self.place)
        if owner is not None:
            query = query.where(JOBS.c.owner == owner)
        if states:
            query = query.where(JOBS.c.state.in_(list(states)))
        if kind is not None:
            query = query.where(JOBS.c.kind == kind)
        if cursor is not None:
            if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
                raise NotFound("cursor: expected the `next` of an earlier page")
            query = query.where(JOBS.c.number < int(cursor))
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(JOBS.c.number.desc()).limit(limit + 1)).mappings().all()
        more = len(rows) > limit
        return Page(tuple(job_of(row) for row in rows[:limit]), str(rows[limit - 1]["number"]) if more else None)

    def events(self, key: str, after: int = 0, limit: int = 1000, kinds: Sequence[str] = ()) -> list[Event]:
        """What happened to a job after event number `after`."""
        with self.database.read() as connection:
            return ledger.read(connection, key, after, limit, kinds)

    def counts(self, key: str) -> dict[tuple[str, str], int]:
        """(kind, folder) → how many pictures, and rows, of a job are finished."""
        with self.database.read() as connection:
            return ledger.count(connection, key)

    def ahead_of(self, key: str) -> int:
        """How many jobs that came before this one are not finished."""
        number = sa.select(JOBS.c.number).where(JOBS.c.id == key).scalar_subquery()
        query = sa.select(sa.func.count()).where(
            JOBS.c.place == self.place, JOBS.c.state.in_((QUEUED, RUNNING)), JOBS.c.number < number
        )
        with self.database.read() as connection:
            return int(connection.scalar(query) or 0)

    def used(self, owner: str | None = None) -> Used:
        """What a client has; None: all of them together."""
        with self.database.read() as connection:
            return self._used(connection, owner)

    def rows_waiting(self) -> float:
        """Pictures that are still to be made, of all jobs."""
        query = sa.select(sa.func.sum(_LEFT)).where(JOBS.c.place == self.place, JOBS.c.state.in_((QUEUED, RUNNING)))
        with self.database.read() as connection:
            return float(connection.scalar(query) or 0.0)

    def by_state(self) -> dict[str, int]:
        """How many jobs are in each state."""
        query = sa.select(JOBS.c.state, sa.func.count()).where(JOBS.c.place == self.place).group_by(JOBS.c.state)
        with self.database.read() as connection:
            return {**dict.fromkeys(STATES, 0), **{str(state): int(n) for state, n in connection.execute(query)}}

    def cancel(self, key: str, expires: float | None = None) -> Job:
        """Ends a job that waits or is worked on; one that has ended stays as it is. Raises `NotFound`."""
        with self.database.write("cancel a job") as connection:
            row = self.row(connection, key, lock=True)
            if row is not None and row["state"] in (QUEUED, RUNNING):
                self.end(connection, key, CANCELLED, Note(CANCELLED, ""), expires=expires)
        return self.get(key)

    def forget(self, key: str) -> None:
        """Drops a job and its ledger; its files must be gone by then, or be dropped after it by the sweeper."""
        with self.database.write("forget a job") as connection:
            connection.execute(EVENTS.delete().where(EVENTS.c.job == key))
            connection.execute(JOBS.delete().where(JOBS.c.id == key, JOBS.c.place == self.place))

    # ------------------------------------------------------------------------------------------------------------------
    # What restarts and the janitor do.

    def recover(self, problem: dict[str, Any], *, all_of_place: bool = False) -> int:
        """Running jobs whose lease ran out wait again; with `all_of_place` every running one: their worker is dead.

        A job during which the process died `max_attempts` times without any progress in between fails with `problem`.
        Answers how many wait again.
        """
        now = self.clock()
        with self.database.write("recover") as connection:
            lost = (JOBS.c.place == self.place) & (JOBS.c.state == RUNNING)
            if not all_of_place:
                lost &= JOBS.c.lease_until < now
            query = sa.select(JOBS.c.id, JOBS.c.attempts, JOBS.c.done, JOBS.c.mark, JOBS.c.last_event).where(lost)
            again = 0
            for key, attempts, done, mark, last in connection.execute(query.with_for_update()).all():
                if attempts >= self.rules.max_attempts and done <= mark:
                    note = Note(FAILED, "", {"problem": problem})
                    until = now + self.rules.keep_s
                    self.end(connection, key, FAILED, note, problem=json.dumps(problem), expires=until)
                    continue
                values = {"state": QUEUED, "stage": QUEUED, "attempts": 0 if done > mark else attempts, **FREE}
                connection.execute(JOBS.update().where(JOBS.c.id == key).values(**values))
                ledger.append(connection, key, [Note("recovered", f"after {last}")], now)
                again += 1
        return again

    def due(self, states: Sequence[str], before: float) -> list[str]:
        """Ids of the jobs in `states` whose time was over before `before`."""
        query = sa.select(JOBS.c.id).where(
            JOBS.c.place == self.place, JOBS.c.state.in_(list(states)), JOBS.c.expires < before
        )
        with self.database.read() as connection:
            return [str(key) for key in connection.scalars(query)]

    def expire(self, key: str) -> None:
        """The results of an ended job are about to go."""
        with self.database.write("expire a job") as connection:
            row = self.row(connection, key, lock=True)
            if row is not None and row["state"] in (DONE, FAILED, CANCELLED):
                ledger.append(connection, key, [Note(EXPIRED, "")], self.clock())
                values = {"state": EXPIRED, "stage": EXPIRED, "bytes": 0}
                connection.execute(JOBS.update().where(JOBS.c.id == key).values(**values))

    def known(self) -> dict[str, str]:
        """Every job of the place and its state. Raises `Damaged` for a record that is not what was written."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(JOBS).where(JOBS.c.place == self.place)).mappings()
            return {job.id: job.state for job in map(job_of, rows)}

    # ------------------------------------------------------------------------------------------------------------------

    def row(self, connection: sa.Connection, key: str, lock: bool = False) -> Any:
        """The record of a job within a transaction, locked against other writers if wanted; None: no such job."""
        query = sa.select(JOBS).where(JOBS.c.id == key, JOBS.c.place == self.place)
        return connection.execute(query.with_for_update() if lock else query).mappings().first()

    def _first(self, connection: sa.Connection, owner: str, idempotency_key: str) -> Job | None:
        query = sa.select(JOBS).where(
            JOBS.c.place == self.place, JOBS.c.owner == owner, JOBS.c.idempotency_key == idempotency_key
        )
        row = connection.execute(query).mappings().first()
        return None if row is None else job_of(row)

    def end(self, connection: sa.Connection, key: str, state: str, note: Note, **values: Any) -> None:
        """Ends a job within a transaction."""
        now = self.clock()
        ledger.append(connection, key, [note], now)
        ended = {"state": state, "stage": state, "finished": now, **FREE, **values}
        connection.execute(JOBS.update().where(JOBS.c.id == key).values(**ended))

    def _used(self, connection: sa.Connection, owner: str | None) -> Used:
        mine = JOBS.c.place == self.place
        if owner is not None:
            mine &= JOBS.c.owner == owner
        query = sa.select(JOBS.c.state, sa.func.count(), sa.func.sum(_LEFT), sa.func.sum(JOBS.c.bytes)).where(mine)
        found = {state: (n, rows, size) for state, n, rows, size in connection.execute(query.group_by(JOBS.c.state))}
        none = (0, 0, 0)
        waiting, running = found.get(QUEUED, none), found.get(RUNNING, none)
        size = sum(int(one[2]) for one in found.values())
        return Used(int(waiting[0]), int(running[0]), int(waiting[1]) + int(running[1]), size)


_LEFT = sa.case((JOBS.c.total > 0, (JOBS.c.total - JOBS.c.done) / 2), else_=JOBS.c.rows)
FREE: dict[str, Any] = {"worker": None, "lease_until": None}
