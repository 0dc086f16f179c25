"""The engine room: one thread owns the model, processes measure beside it, one thread keeps what is finished.

    FairQueue --take a full batch--> painter --pictures--> keeper (files, ledger)
                                        `----pictures--> measurer --rows--> keeper --complete compounds--> closer

Pictures of all jobs share batches; a picture is a function of its design row, so no answer depends on its neighbours.
Everything between two threads is bounded: the painter waits while too many pictures are not yet measured and kept. A
full disk stops the keeper until there is space; nothing is lost and the jobs say what they wait for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from service.batching import FairQueue, batches
from service.durable import size_of
from service.errors import Later, problem_of, sentence
from service.job import Job
from service.job_files import JobFiles
from service.job_run import Compound, RowsLost, Run, Task, start
from service.job_states import MoleculeState
from service.leases import LeaseLost, Leases
from service.ledger import PICTURE, Note, row_note, subject_of
from service.meter import Meter
from service.painting import measure, paint
from service.quota import Rules
from service.results import CONTROL
from service.rooms import Measured, Room

LOG = logging.getLogger("dopaint.engine")
LINGER_S = 0.02  # a batch that is not full waits so long for others to join
RETRY_S = 5.0  # while there is no space
_IDLE_S = 0.5

Answer = TypeVar("Answer")


class EngineRoom:
    """Works off the jobs of a store. `start` it once; `stop` gives unfinished jobs back."""

    def __init__(
        self,
        room: Room,
        data: Path,
        leases: Leases,
        rules: Rules,
        changed: Callable[[str], None],
        weight: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        """`changed` is told the id of a job after each committed change; `weight` is a client's share."""
        self._room, self._data, self._leases, self._rules = room, data, leases, rules
        self._changed, self._weight = changed, weight
        self._rows: FairQueue[Task] = FairQueue()
        self._runs: dict[str, Run] = {}
        self._lock = threading.RLock()
        self._stop, self._claim, self._warm = threading.Event(), threading.Event(), threading.Event()
        self._measure_at_once = 4 * room.workers
        self._unmeasured = threading.BoundedSemaphore(2 * room.card.micro_batch + 2 * self._measure_at_once)
        self._to_measure: queue.SimpleQueue[tuple[Task, np.ndarray] | None] = queue.SimpleQueue()
        self._to_keep: queue.SimpleQueue[tuple[Task, np.ndarray | Measured | Exception] | None] = queue.SimpleQueue()
        self._to_close: queue.SimpleQueue[tuple[Run, Compound | None] | None] = queue.SimpleQueue()
        self.meter = Meter()
        self.waiting: str = ""  # why nothing can be written now; empty when it can
        loops = {"painter": self._paint, "measurer": self._measure, "keeper": self._keep, "closer": self._close}
        self._threads = {
            name: threading.Thread(target=self._guarded, args=(loop,), name=f"dopaint-{name}", daemon=True)
            for name, loop in {**loops, "clerk": self._claim_jobs}.items()
        }
        self.broken: BaseException | None = None

    # ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the threads; comes back when the model is warm. Raises what made warming it fail."""
        for thread in self._threads.values():
            thread.start()
        self._warm.wait()
        if self.broken is not None:
            raise self.broken

    def stop(self) -> None:
        """Ends the threads in the order in which work flows, then gives unfinished jobs back to the store."""
        self._stop.set()
        self._claim.set()
        self._rows.close()
        pipes = {"measurer": self._to_measure, "keeper": self._to_keep, "closer": self._to_close}
        for name in ("clerk", "painter", *pipes):
            if name in pipes:
                cast(queue.SimpleQueue[None], pipes[name]).put(None)
            self._threads[name].join()
        for key in list(self._runs):
            with suppress(LeaseLost, Later):
                self._leases.release(key)
                self._changed(key)

    def wake(self) -> None:
        """A job was added."""
        self._claim.set()

    def drop(self, key: str) -> None:
        """A job was cancelled or deleted: nothing more is made or written for it."""
        with self._lock:
            run = self._runs.pop(key, None)
            if run is not None:
                run.dropped = True
                self._rows.drop(run.job.owner, key)
        self._claim.set()

    def states(self, key: str) -> list[MoleculeState] | None:
        """The molecules of a job that is worked on; None: it is not."""
        with self._lock:
            run = self._runs.get(key)
            return None if run is None else run.states()

    def left(self, key: str) -> tuple[int, int, int] | None:
        """Pictures left of a job, clients beside its own and itself, pictures left of all; None: it is not active."""
        with self._lock:
            run = self._runs.get(key)
            if run is None:
                return None
            owners = len({one.job.owner for one in self._runs.values()})
            return run.left(), owners, sum(one.left() for one in self._runs.values())

    def active(self) -> dict[str, str]:
        """Ids of the jobs that are worked on, and their owners."""
        with self._lock:
            return {key: run.job.owner for key, run in self._runs.items()}

    # ------------------------------------------------------------------------------------------------------------------
    # The five threads.

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except _Stopped:
            LOG.debug("%s gives up: the service stops", threading.current_thread().name)
        except BaseException as error:
            LOG.exception("the engine room is broken")
            self.broken = error
            self._stop.set()
            self._rows.close()
            self._warm.set()

    def _claim_jobs(self) -> None:
        beat = 0.0
        self._warm.wait()
        while not self._stop.is_set():
            self._claim.clear()
            if time.monotonic() >= beat:
                self._patiently(self._leases.heartbeat)
                beat = time.monotonic() + self._rules.heartbeat_s
            while len(self._runs) < self._rules.max_active_jobs and not self._stop.is_set():
                busy = Counter(self.active().values())
                job = self._patiently(partial(self._leases.claim, busy))
                if job is None:
                    break
                self._begin(job)
            self._claim.wait(_IDLE_S)

    def _begin(self, job: Job) -> None:
        files = JobFiles(self._data, job.id)
        try:
            run = self._patiently(lambda: start(job, self._room, files))
            notes = run.finished_rows()
            self._patiently(lambda: self._leases.plan(job.id, run.total, "painting", notes))
        except LeaseLost:
            self._lost(job.id)
            return
        except _Stopped:
            with suppress(LeaseLost, Later):
                self._leases.release(job.id)
            raise
        except Exception as error:
            LOG.exception("job %s cannot be planned", job.id)
            self._fail(job, files, error)
            return
        with self._lock:
            self._runs[job.id] = run
            if run.compounds:
                self._rows.put(job.owner, job.id, run.tasks(), self._weight(job.owner))
        self._changed(job.id)
        for compound in run.compounds.values():
            self._look(run, compound)
        if not run.compounds or all(one.closed for one in run.compounds.values()):
            self._to_close.put((run, None))

    def _paint(self) -> None:
        size = self._room.card.micro_batch
        self._room.warm()
        self._warm.set()
        while not self._stop.is_set():
            free = 0
            while free < size and not self._stop.is_set():
                free += self._unmeasured.acquire(timeout=_IDLE_S)
            tasks = self._rows.take(size, wait_s=_IDLE_S, linger_s=LINGER_S)
            for _ in range(free - len(tasks)):
                self._unmeasured.release()
            if not tasks:
                continue
            answers = paint(self._room, tasks)
            self.meter.count(batches=1, slots=size, rows_painted=len(tasks))
            for task, answer in zip(tasks, answers, strict=True):
                self._to_keep.put((task, answer))
                if not isinstance(answer, Exception):
                    self._to_measure.put((task, answer))

    def _measure(self) -> None:
        for some in batches(self._to_measure, self._measure_at_once):
            wanted = [(task, picture) for task, picture in some if not task.run.dropped]
            for _ in range(len(some) - len(wanted)):
                self._unmeasured.release()
            if wanted and not self._stop.is_set():
                answers = measure(self._room, [picture for _, picture in wanted])
                self.meter.count(rows_measured=len(wanted))
                for (task, _), answer in zip(wanted, answers, strict=True):
                    self._to_keep.put((task, answer))

    def _keep(self) -> None:
        for some in batches(self._to_keep, 256):
            notes: dict[str, list[Note]] = {}
            stages: dict[str, str] = {}
            rows = []
            for task, what in some:
                run, compound = task.run, task.compound
                if not run.dropped and compound.error is None:
                    note = self._saved(task, what)
                    if key := self._dropped(run):  # meanwhile: what was written last is no one's
                        self._lost(key)
                    elif note is not None:
                        notes.setdefault(run.job.id, []).append(note)
                        stages[run.job.id] = "measuring" if note.kind != PICTURE else "painting"
                if not isinstance(what, np.ndarray):
                    self._unmeasured.release()
                    rows.append((run, compound))
            if notes:
                for key in self._patiently(partial(self._leases.note, notes, stages)):
                    self._lost(key)
                for key in notes:
                    self._changed(key)
            self.meter.rows(len(rows))
            for run, compound in dict.fromkeys(rows):
                self._look(run, compound)

    def _saved(self, task: Task, what: np.ndarray | Measured | Exception) -> Note | None:
        """Puts a picture or a row in place; the note for the ledger."""
        run, compound, draw = task
        folder = compound.folder
        try:
            if isinstance(what, Exception):
                with self._lock:
                    compound.error = compound.error or what
                return None
            if isinstance(what, Measured):
                self._patiently(lambda: run.files.save_row(folder, draw, what), run)
                with self._lock:
                    compound.measured[draw] = 1
                return row_note(folder, draw, what.outcomes[0])
            if compound.closed:
                return None
            row = {str(k): v for k, v in run.rows(compound, [draw]).to_dict("records")[0].items()}
            self._patiently(lambda: run.files.save_picture(folder, draw, what, self._room.card, row), run)
            compound.painted[draw] = 1
            return Note(PICTURE, subject_of(folder, draw), {"folder": folder, "draw": draw})
        except _Dropped:
            return None
        except OSError as error:  # not for want of space: that is waited for
            LOG.exception("job %s failed", run.job.id)
            self.drop(run.job.id)
            self._fail(run.job, run.files, error)
            return None

    def _look(self, run: Run, compound: Compound) -> None:
        """Hands over every compound of a job that this one may have made ready."""
        with self._lock:
            some = run.compounds.values() if compound.folder == CONTROL else (compound, *run.compounds.values())[:2]
            ready = [one for one in some if run.ready(one)]
        for one in ready:
            self._to_close.put((run, one))

    def _close(self) -> None:
        for some in batches(self._to_close, 1):
            for run, compound in some if not self._stop.is_set() else ():
                try:
                    self._close_one(run, compound)
                except (LeaseLost, _Dropped):
                    self._lost(run.job.id)
                except RowsLost as lost:
                    self._again(run, lost)
                except _Stopped:
                    raise
                except Exception as error:
                    LOG.exception("job %s failed", run.job.id)
                    self.drop(run.job.id)
                    self._fail(run.job, run.files, error)
                self._changed(run.job.id)

    def _close_one(self, run: Run, compound: Compound | None) -> None:
        key = run.job.id
        if compound is not None:
            with self._lock:
                if not run.ready(compound):
                    return
            if compound.folder == CONTROL:
                self._patiently(run.close_control, run)
                outcome = run.files.decided(CONTROL)
            else:
                outcome = self._patiently(lambda: run.close(compound), run)
            if outcome is None:  # a wanted precision needs more draws
                with self._lock:
                    self._rows.put(run.job.owner, key, run.tasks(), self._weight(run.job.owner))
                return
            with self._lock:
                compound.closed = True
                if compound.folder != CONTROL:
                    run.outcomes[compound.folder] = outcome
            note = run.molecule_note(compound, outcome)
            if self._patiently(lambda: self._leases.note({key: [note]})):
                raise LeaseLost(key)
            if run.precision is not None:
                self._look(run, run.control)
        with self._lock:
            if run.dropped or not all(one.closed for one in run.compounds.values()):
                return
        self._patiently(run.close_job, run)
        size, expires = size_of(run.files.results), time.time() + self._rules.keep_s
        self._patiently(lambda: self._leases.finish(key, size, expires))
        self.drop(key)
        with suppress(OSError):
            run.files.remove_work()

    def _dropped(self, run: Run) -> str:
        with self._lock:
            return run.job.id if run.dropped else ""

    def _lost(self, key: str) -> None:
        """A job is no longer ours. If it was cancelled or deleted, what was under way goes."""
        self.drop(key)
        if not self._patiently(lambda: self._leases.wanted(key)):
            with suppress(OSError):
                JobFiles(self._data, key).remove_work()

    def _again(self, run: Run, lost: RowsLost) -> None:
        LOG.warning("job %s: %s; they are made again", run.job.id, lost)
        with self._lock:
            for draw in lost.draws:
                lost.compound.taken[draw] = lost.compound.measured[draw] = 0
            self._rows.put(run.job.owner, run.job.id, run.tasks(), self._weight(run.job.owner))

    def _fail(self, job: Job, files: JobFiles, error: Exception) -> None:
        problem = problem_of(error).document(f"/v1/predictions/{job.id}")
        expires = time.time() + self._rules.keep_s
        with suppress(LeaseLost):
            self._patiently(lambda: self._leases.fail(job.id, problem, size_of(files.results), expires))
            self._patiently(lambda: files.end({"state": "failed", "problem": problem}))
            with suppress(OSError):
                files.remove_work()
        self._changed(job.id)

    def _patiently(self, action: Callable[[], Answer], run: Run | None = None) -> Answer:
        """Does it, again and again while there is no space or the store is busy. Raises what else goes wrong."""
        while True:
            if run is not None and run.dropped:
                raise _Dropped
            try:
                answer = action()
            except Later as error:
                self.waiting = sentence(error)
                self.meter.count(retries=1)
                LOG.warning("waiting: %s", self.waiting)
                for key in self.active():
                    self._changed(key)
                if self._stop.wait(RETRY_S):
                    raise _Stopped from error
            except OSError:
                if run is not None and run.dropped:
                    raise _Dropped from None
                raise
            else:
                self.waiting = ""
                return answer


class _Stopped(BaseException):
    """The service is stopping."""


class _Dropped(Exception):
    """The job was cancelled or deleted meanwhile."""
