"""The desk: accepts requests as jobs, has them worked off, and knows where each stands.

A job is marked done only when its results are in place under their own names, and a row only when its file is, so a
kill at any moment leaves finished rows, and a job that goes on from the last of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from service.engine_room import EngineRoom
from service.errors import EngineFailure, Loading, NotFound, StorageFull, problem_of, sentence
from service.faults import point
from service.janitor import mark_endings, sweep, tidy
from service.job import QUEUED, RUNNING, Job, Page, Submitted
from service.job_files import JobFiles
from service.job_states import MoleculeState, PictureReady, molecules_of, pictures_of
from service.lane import Lane, Report, Work
from service.leases import Leases
from service.ledger import Event
from service.owner_lock import OwnerLock
from service.priority import yield_to_the_doors
from service.quota import OwnerRules, Rules, Used, admit, estimated_bytes
from service.rebuild import open_store
from service.rooms import Room

__all__ = ["Desk", "Job", "Load", "MoleculeState", "PictureReady", "Report", "Work", "seconds_left", "why_not"]

LOG = logging.getLogger("dopaint.jobs")
PREDICTION = "prediction"
_TIDY_EVERY_S = 60.0
_WAIT_STEP_S = 1.0

Load = Callable[[], AbstractContextManager[Room]]
"""Loads the room (seconds to a minute); what it holds is let go when the desk closes."""


class Desk:
    """Accepts requests, has them worked off, and knows where each stands. Safe to call from several threads."""

    def __init__(
        self,
        data: Path,
        load: Load,
        work: Work | None = None,
        *,
        limit: int | None = None,
        rules: Rules | None = None,
        handlers: Mapping[str, Work] | None = None,
        url: str | None = None,
        rules_for: Callable[[str], OwnerRules] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`load` is called in a thread of the desk. `work` does predictions one at a time; without it the engine room
        does. `handlers`: other kinds of jobs. `url`: of a database; none: SQLite in the data folder. `limit`: see
        `Rules.max_waiting_jobs`. `rules_for`: what a client may have.

        Raises `ServiceError` when another process works in the folder, `Damaged`, `InvalidRequest` for the URL.
        """
        self.rules = (rules or Rules()) if limit is None else replace(rules or Rules(), max_waiting_jobs=limit)
        self.rules_for = rules_for
        self._data, self._load, self._work, self._clock = data, load, work, clock
        self._handlers = dict(handlers or {}) | ({PREDICTION: work} if work is not None else {})
        self._owner = OwnerLock(data)
        try:
            self._store = open_store(data, url, self.rules, clock)
            lost = EngineFailure(
                "the service stopped unexpectedly each time it worked on this request: ask for fewer draws"
            )
            again = self._store.recover(problem_of(lost).document("recovered"), all_of_place=True)
            mark_endings(self._store, data)
            sweep(self._store, data, 0.0)
        except BaseException:
            self._owner.release()
            raise
        if again:
            LOG.info("%d unfinished jobs go on", again)
        self._changed = threading.Condition()
        self._turn = 0  # rises with every change
        self._listeners: list[Callable[[str], None]] = []
        self._stop = threading.Event()
        self._room: Room | None = None
        self._broken: BaseException | None = None
        self._engine: EngineRoom | None = None
        self._lane: Lane | None = None
        self._threads = [
            threading.Thread(target=loop, name=f"dopaint-{name}", daemon=True)
            for name, loop in (("desk", self._run), ("janitor", self._tidy))
        ]

    def __enter__(self) -> Desk:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._tell("")
        self._store.close()
        self._owner.release()

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._data

    def room(self) -> Room:
        """The loaded room. Raises `Loading` while it loads, or the reason why it could not be loaded."""
        if self._broken is not None:
            raise self._broken
        if self._room is None:
            raise Loading("the model is still loading: ask again in a few seconds")
        return self._room

    def add(self, request: dict[str, Any]) -> Job:
        """Queues a prediction of the local client. Raises as `submit`."""
        return self.submit(request).job

    def submit(
        self,
        request: dict[str, Any],
        *,
        owner: str = "local",
        kind: str = PREDICTION,
        idempotency_key: str | None = None,
    ) -> Submitted:
        """Queues a request; it is kept when this comes back.

        Raises `QueueFull`, `QuotaExceeded`, `StorageFull`, `IdempotencyConflict`, or the reason why the model could not
        be loaded.
        """
        if self._broken is not None:
            raise self._broken
        rows = (len(request["smiles"]) + 1) * int(request["draws"]) if kind == PREDICTION else 1
        card = self._room.card if self._room is not None else None
        size = estimated_bytes(rows, len(card.channels), card.picture_size) if card is not None else 0
        owner_rules = self.rules_for(owner) if self.rules_for is not None else OwnerRules()
        files = JobFiles(self._data, uuid.uuid4().hex)
        wait_s = self._retry_after()
        if idempotency_key is None or self._store.find(owner, idempotency_key) is None:
            if shutil.disk_usage(self._data).free < self.rules.min_free_bytes:
                raise StorageFull("the disk of the results is nearly full: delete predictions, or ask later", wait_s)
            everyone, mine = self._store.used(), self._store.used(owner)
            admit(self.rules, owner_rules, everyone, mine, rows, size, wait_s)
            facts = {"id": files.key, "owner": owner, "kind": kind, "key": idempotency_key, "rows": rows, "size": size}
            files.accept({**facts, "request": request, "created": self._clock()})
        try:
            job, created = self._store.add(
                request,
                key=files.key,
                owner=owner,
                kind=kind,
                idempotency_key=idempotency_key,
                rows=rows,
                size=size,
                owner_rules=owner_rules,
                retry_after_s=wait_s,
            )
        except BaseException:
            files.remove_request()
            raise
        if not created:
            files.remove_request()
        self._tell(job.id)
        for one in self._workers():
            one.wake()
        return Submitted(job, created)

    def get(self, key: str, owner: str | None = None) -> Job:
        """One job; `owner`: only if it is this client's. Raises `NotFound`."""
        return self._told(self._store.get(key, owner))

    def page(
        self,
        owner: str | None = None,
        *,
        states: Sequence[str] = (),
        kind: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Jobs, newest first; see `Store.page`."""
        found = self._store.page(owner, states=states, kind=kind, limit=limit, cursor=cursor)
        return Page(tuple(self._told(job) for job in found.jobs), found.next)

    def cancel(self, key: str, owner: str | None = None) -> Job:
        """Ends a job that waits or is worked on; molecules that are finished stay. Raises `NotFound`."""
        job = self._store.get(key, owner)
        if job.ended:
            return job
        job = self._store.cancel(key, self._clock() + self.rules.keep_s)
        for one in self._workers():
            one.drop(key)
        if job.state == "cancelled":
            files = JobFiles(self._data, key)
            files.end({"state": job.state})
            with suppress(OSError):
                files.remove_work()
        self._tell(key)
        return self._store.get(key)

    def delete(self, key: str, owner: str | None = None) -> None:
        """Ends a job if need be and takes its results and its record away. Raises `NotFound`."""
        self.cancel(key, owner)
        self._store.forget(key)
        point("deleted job: forgotten")
        files = JobFiles(self._data, key)
        files.remove_request()
        with suppress(OSError):  # what is left is swept later
            files.remove_results()
        self._tell(key)

    def events(
        self, key: str, after: int = 0, *, wait_s: float = 0.0, limit: int = 1000, owner: str | None = None
    ) -> list[Event]:
        """What happened to a job after event number `after`; with `wait_s` waits for something. Raises `NotFound`."""
        self._store.get(key, owner)
        until = time.monotonic() + wait_s
        while True:
            turn = self._turn
            found = self._store.events(key, after, limit)
            left = until - time.monotonic()
            if found or left <= 0 or self._stop.is_set():
                return found
            with self._changed:
                if turn == self._turn:
                    self._changed.wait(min(left, _WAIT_STEP_S))

    def listen(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """`listener` is called with the id of a job after each change, in a thread of the desk; the answer ends it."""
        with self._changed:
            self._listeners = [*self._listeners, listener]

        def unsubscribe() -> None:
            with self._changed:
                self._listeners = [one for one in self._listeners if one is not listener]

        return unsubscribe

    def molecules(self, key: str, owner: str | None = None) -> list[MoleculeState]:
        """Every entry of a job's list and where it stands; none before it was looked at. Raises `NotFound`."""
        job = self._store.get(key, owner)
        live = self._engine.states(key) if self._engine is not None else None
        return live if live is not None else molecules_of(self._store, JobFiles(self._data, key), job)

    def pictures(self, key: str, owner: str | None = None) -> list[PictureReady]:
        """All pictures of a job that are in place, also while it is worked on. Raises `NotFound`."""
        return pictures_of(self._store, JobFiles(self._data, key), self._store.get(key, owner))

    def place(self, key: str, folder: str) -> Path | None:
        """Where the files of a molecule (or "control") of a job are now; None: nowhere."""
        if not folder or folder != Path(folder).name or folder.startswith("."):
            raise NotFound(f"no molecule has the folder {folder[:60]!r}")
        return JobFiles(self._data, key).place_of(folder)

    def folder(self, key: str) -> Path:
        """The result folder of a job."""
        return JobFiles(self._data, key).results

    def ahead_of(self, key: str) -> int:
        """How many jobs that came before this one are not finished."""
        return self._store.ahead_of(key)

    def used(self, owner: str | None = None) -> Used:
        """What a client has; None: all of them."""
        return self._store.used(owner)

    def seconds_left(self, job: Job) -> float | None:
        """Time to the end of a job at the speed of the last minutes and the client's share of it; None: not known."""
        rate = self._engine.meter.rate() if self._engine is not None else None
        if job.state not in (QUEUED, RUNNING):
            return None
        if self._engine is None or rate is None:
            return seconds_left(job, self._clock())
        if job.state == QUEUED:
            return self._store.rows_waiting() / rate
        left = self._engine.left(job.id)
        if left is None:
            return None
        mine, owners, everyone = left
        return min(mine * owners, everyone) / rate

    def counters(self) -> dict[str, float]:
        """Numbers for the metrics; counts are since the start."""
        used, states = self._store.used(), self._store.by_state()
        found = {f"jobs_{state}": float(n) for state, n in states.items()}
        found |= {"rows_waiting": float(used.rows_waiting), "disk_bytes": float(used.bytes)}
        if self._engine is not None:
            counts = self._engine.meter.counts()
            found |= {
                "batches": float(counts.batches),
                "rows_painted": float(counts.rows_painted),
                "rows_measured": float(counts.rows_measured),
                "batch_fill": counts.rows_painted / counts.slots if counts.slots else 0.0,
                "retries": float(counts.retries),
            }
        return found

    def trouble(self) -> BaseException | str | None:
        """What keeps jobs from being worked on though the model is loaded."""
        for one in self._workers():
            if one.broken is not None:
                return one.broken
        return self._engine.waiting or None if self._engine is not None else None

    # ------------------------------------------------------------------------------------------------------------------

    def _told(self, job: Job) -> Job:
        """A job that waits for space says so, even where that cannot be written down."""
        waiting = self._engine.waiting if self._engine is not None else ""
        return replace(job, stage=f"waiting: {waiting}"[:255]) if waiting and job.state == RUNNING else job

    def _retry_after(self) -> float:
        rate = self._engine.meter.rate() if self._engine is not None else None
        return min(3600.0, max(1.0, self._store.rows_waiting() / rate / 4)) if rate else 10.0

    def _workers(self) -> list[EngineRoom | Lane]:
        return [one for one in (self._engine, self._lane) if one is not None]

    def _tell(self, key: str) -> None:
        with self._changed:
            self._turn += 1
            self._changed.notify_all()
            listeners = self._listeners
        for listener in listeners:
            try:
                listener(key)
            except Exception:
                LOG.exception("a listener failed")

    def _weight(self, owner: str) -> float:
        return self.rules_for(owner).weight if self.rules_for is not None else 1.0

    def _run(self) -> None:
        yield_to_the_doors()
        with ExitStack() as held:
            try:
                room = held.enter_context(self._load())
                room.reference()
                worker = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
                if self._work is None:
                    leases = Leases(self._store, f"engine-{worker}")
                    engine = EngineRoom(room, self._data, leases, self.rules, self._tell, self._weight)
                    held.callback(engine.stop)
                    engine.start()
                    self._engine = engine
                if self._handlers:
                    leases = Leases(self._store, f"lane-{worker}")
                    self._lane = Lane(room, self._data, leases, self.rules, self._handlers, self._tell)
                    held.callback(self._lane.stop)
                    self._lane.start()
                self._room = room
            except Exception as error:
                LOG.exception("the model could not be loaded")
                self._broken = error
                return
            self._stop.wait()

    def _tidy(self) -> None:
        while not self._stop.wait(_TIDY_EVERY_S):
            try:
                for key in tidy(self._store, self._data, self.rules, self._clock()):
                    self._tell(key)
            except Exception:
                LOG.exception("clearing away failed; it is tried again")


def seconds_left(job: Job, now: float) -> float | None:
    """Time to the end at the speed so far, in seconds; None before there is any speed."""
    if job.state != RUNNING or job.started is None or job.done <= 0 or job.total <= 0:
        return None
    return max(0.0, (now - job.started) / job.done * (job.total - job.done))


def why_not(desk: Desk) -> str | None:
    """One sentence why no job can be worked on now; None when the service is ready."""
    try:
        desk.room()
    except Exception as error:
        return sentence(error)
    trouble = desk.trouble()
    return sentence(trouble) if isinstance(trouble, BaseException) else trouble
