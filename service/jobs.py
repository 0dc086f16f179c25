"""The queue's worker: one thread that owns the model and works off waiting jobs, oldest first.

A job is marked done only when its result folder is in place under its own name, so a kill at any moment leaves either
a finished answer or a job that waits again.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from service.errors import EngineFailure, Loading, ServiceError, problem_of, sentence
from service.rooms import Room
from service.store import RUNNING, Job, Store

LOG = logging.getLogger("dopaint.jobs")
_NOTE_EVERY_S = 0.5

Report = Callable[[int, int, str], None]
Work = Callable[[Room, dict[str, Any], Path, Report], None]
"""Makes the result folder of one request and reports (done, total, stage) on the way."""


Load = Callable[[], AbstractContextManager[Room]]
"""Loads the room (seconds to a minute); what it holds is let go when the desk closes."""


class Owner:
    """A lock on the data folder: one process at a time works in it, so that one process owns the model."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / "owner.lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ServiceError(
                f"data folder {folder.name!r} is in use by another dopaint service: stop it or choose another --data"
            ) from error

    def release(self) -> None:
        """Lets another process have the folder."""
        self._file.close()


class Desk:
    """Accepts requests, works them off in a thread of its own, and knows where each stands."""

    def __init__(self, data: Path, load: Load, work: Work, *, limit: int = 100) -> None:
        """`load` is called in the worker's thread; `work` makes one result folder."""
        self._owner = Owner(data)
        self._results = data / "results"
        self._results.mkdir(exist_ok=True)
        self._store = Store(data / "jobs.sqlite")
        self._load, self._work, self._limit = load, work, limit
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._room: Room | None = None
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="dopaint-desk", daemon=True)
        lost = EngineFailure(
            "the service stopped unexpectedly each time it worked on this request: ask for fewer draws"
        )
        again = self._store.recover(problem_of(lost).document("recovered"))
        if again:
            LOG.info("%d unfinished jobs wait again", again)

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._wake()
        self._thread.join()
        self._store.close()
        self._owner.release()

    def room(self) -> Room:
        """The loaded room. Raises `Loading` while it loads, or the reason why it could not be loaded."""
        if self._broken is not None:
            raise self._broken
        if self._room is None:
            raise Loading("the model is still loading: ask again in a few seconds")
        return self._room

    def add(self, request: dict[str, Any]) -> Job:
        """Queues a request. Raises `QueueFull`, or the reason why the model could not be loaded."""
        if self._broken is not None:
            raise self._broken
        job = self._store.add(request, limit=self._limit)
        self._wake()
        return job

    def get(self, key: str) -> Job:
        """One job. Raises `NotFound`."""
        return self._store.get(key)

    def ahead_of(self, key: str) -> int:
        """How many jobs are to be finished before this one."""
        return self._store.ahead_of(key)

    def folder(self, key: str) -> Path:
        """The result folder of a finished job."""
        return self._results / key

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        with ExitStack() as held:
            try:
                room = held.enter_context(self._load())
                room.reference()
                self._room = room
            except Exception as error:
                LOG.exception("the model could not be loaded")
                self._broken = error
                return
            while not self._stop.is_set():
                job = self._store.claim()
                if job is None:
                    with self._changed:
                        self._changed.wait(0.5)
                else:
                    self._one(room, job)

    def _one(self, room: Room, job: Job) -> None:
        noted = 0.0

        def report(done: int, total: int, stage: str) -> None:
            nonlocal noted
            if self._stop.is_set():
                raise _Stopped
            now = time.monotonic()
            if now - noted >= _NOTE_EVERY_S:
                noted = now
                self._store.progress(job.id, done, total, stage)

        try:
            self._work(room, job.request, self.folder(job.id), report)
        except _Stopped:
            self._store.release(job.id)
        except Exception as error:
            LOG.exception("job %s failed", job.id)
            self._store.fail(job.id, problem_of(error).document(f"/v1/predictions/{job.id}"))
        else:
            self._store.finish(job.id)


class _Stopped(BaseException):
    """The service is stopping; the job waits for its next start."""


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
    return None
