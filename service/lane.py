"""A lane for jobs that are one call each: one thread works them off, one at a time, oldest client first.

The measuring of uploaded pictures is such a job; so is a prediction where a `Work` is given in place of the engine
room, which is what packing is compared with.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from service.durable import size_of
from service.errors import Later, problem_of, sentence
from service.job import Job
from service.job_files import JobFiles
from service.leases import LeaseLost, Leases
from service.quota import Rules
from service.rooms import Room

LOG = logging.getLogger("dopaint.jobs")
_NOTE_EVERY_S = 0.5
_IDLE_S = 0.5

Report = Callable[[int, int, str], None]
Work = Callable[[Room, dict[str, Any], Path, Report], None]
"""Makes the result folder of one request and reports (done, total, stage) on the way."""


class Lane:
    """Works off the jobs of some kinds. `start` it once; `stop` lets the job at hand wait for the next start."""

    def __init__(
        self,
        room: Room,
        data: Path,
        leases: Leases,
        rules: Rules,
        works: Mapping[str, Work],
        changed: Callable[[str], None],
    ) -> None:
        """`works`: kind of job → what does it. `changed` is told the id of a job after each committed change."""
        self._room, self._data, self._leases, self._rules = room, data, leases, rules
        self._works, self._changed = dict(works), changed
        self._stop, self._wake = threading.Event(), threading.Event()
        self._dropped: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="dopaint-lane", daemon=True)
        self._beat = threading.Thread(target=self._heartbeat, name="dopaint-lane-heart", daemon=True)
        self.broken: BaseException | None = None

    def start(self) -> None:
        """Starts the threads."""
        self._thread.start()
        self._beat.start()

    def stop(self) -> None:
        """Ends them; the job at hand is given back."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._beat.join()

    def wake(self) -> None:
        """A job was added."""
        self._wake.set()

    def drop(self, key: str) -> None:
        """A job was cancelled or deleted."""
        self._dropped.add(key)

    def _heartbeat(self) -> None:
        while not self._stop.wait(self._rules.heartbeat_s):
            with suppress(Later):
                self._leases.heartbeat()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                job = self._leases.claim({}, tuple(self._works))
                if job is not None:
                    self._one(job)
                    continue
            except Later as error:
                LOG.warning("waiting: %s", sentence(error))
            except Exception as error:
                LOG.exception("the lane is broken")
                self.broken = error
                return
            self._wake.wait(_IDLE_S)

    def _one(self, job: Job) -> None:
        noted = 0.0

        def report(done: int, total: int, stage: str) -> None:
            nonlocal noted
            if self._stop.is_set():
                raise _Stopped
            if job.id in self._dropped:
                raise _Dropped
            now = time.monotonic()
            if now - noted >= _NOTE_EVERY_S:
                noted = now
                try:
                    self._leases.progress(job.id, done, total, stage)
                except LeaseLost as error:
                    raise _Dropped from error
                self._changed(job.id)

        files = JobFiles(self._data, job.id)
        try:
            self._works[job.kind](self._room, job.request, files.results, report)
            self._leases.finish(job.id, size_of(files.results), time.time() + self._rules.keep_s)
        except _Stopped:
            self._leases.release(job.id)
        except (_Dropped, LeaseLost):
            self._dropped.discard(job.id)
        except Exception as error:
            LOG.exception("job %s failed", job.id)
            problem = problem_of(error).document(f"/v1/predictions/{job.id}")
            self._leases.fail(job.id, problem, size_of(files.results), time.time() + self._rules.keep_s)
            files.end({"state": "failed", "problem": problem})
        self._changed(job.id)


class _Stopped(BaseException):
    """The service is stopping; the job waits for its next start."""


class _Dropped(BaseException):
    """The job was cancelled or deleted."""
