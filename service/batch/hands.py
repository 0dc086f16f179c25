"""One worker process and the thread that waits for it, so that a single loop can serve many of them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess
from service.batch.stages import Item
from service.batch.worker import packed, unpacked

START_TIMEOUT_S = 600.0  # the first start after an installation compiles kernels
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class Task:
    """What a hand is asked: the name of the task, and its items. `attempt` counts from 1."""

    name: str
    items: tuple[Item, ...]
    attempt: int = 1


@dataclass(frozen=True)
class Told:
    """What came back: answers, or why not. `lost`: the process died or hung; the hand can be asked again."""

    hand: Hand
    task: Task | None
    answers: tuple[Item, ...] = ()
    lost: str = ""
    refused: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0


class Hand:
    """A worker of one role; tells what it did by `told`. `give` may be called when nothing is in hand."""

    def __init__(
        self,
        role: str,
        config: Mapping[str, Any],
        environment: Mapping[str, str],
        told: queue.SimpleQueue[Told],
        timeout_s: float,
    ) -> None:
        self.role, self.busy, self.ready = role, False, False
        self._config, self._environment, self._told, self._timeout_s = dict(config), environment, told, timeout_s
        self._process: WorkerProcess | None = None
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True, name=f"batch-{role}")
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id, when it runs."""
        return None if self._process is None else self._process.pid

    def give(self, task: Task) -> None:
        """Ask for a task."""
        self.busy = True
        self._tasks.put(task)

    def stop(self) -> None:
        """End the process now; `close` waits for that."""
        self._closed = True
        self._tasks.put(None)
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and wait for the thread, which frees its pipes."""
        self.stop()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        """Starts the process at once, so that all of them load side by side, then does one task after the other."""
        self._ask(None)
        while (task := self._tasks.get()) is not None and not self._closed:
            self._ask(task)
        self._end()

    def _ask(self, task: Task | None) -> None:
        try:
            process = self._process or self._start()
            if task is None:
                self._told.put(Told(self, None))
                return
            process.send(*packed(list(task.items), task=task.name), timeout_s=self._timeout_s)
            header, arrays = process.receive(self._timeout_s)
        except (WorkerDied, WorkerHung) as error:
            self._end()
            self._told.put(Told(self, task, lost=str(error)))
            return
        except _Refused as error:
            self._told.put(Told(self, task, refused=str(error)))
            return
        if "error" in header:
            self._told.put(Told(self, task, refused=str(header["error"])))
        else:
            cpu_s, wall_s = float(header["cpu_s"]), float(header["wall_s"])
            self._told.put(Told(self, task, tuple(unpacked(header, arrays)), cpu_s=cpu_s, wall_s=wall_s))

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _start(self) -> WorkerProcess:
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "service.batch.worker", json.dumps(self._config)]
        self._process = WorkerProcess(command, {**os.environ, **self._environment, "PYTHONPATH": path})
        hello, _ = self._process.receive(START_TIMEOUT_S)
        if "error" in hello:
            raise _Refused(str(hello["error"]))
        return self._process


class _Refused(Exception):
    """The worker cannot be made: a model is missing, say. Trying again would not help."""
