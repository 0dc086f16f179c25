"""One warm worker process: start it, ask it, know when it has died or hangs."""

from __future__ import annotations

import collections
import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from profiling.engines.cellprofiler_worker import frames

_CHUNK = 1 << 16


class WorkerDied(RuntimeError):
    """The process ended before it answered."""


class WorkerHung(RuntimeError):
    """The process did not answer in time."""


class WorkerProcess:
    """A process that answers frames on stdout to frames on stdin; the end of what it writes to stderr is kept."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # Ctrl-C in the terminal is for us alone; when we go, its stdin closes and it ends
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._requests.fileno(), False)
        self._log: collections.deque[str] = collections.deque(maxlen=20)
        self._drain = threading.Thread(target=self._read_log, daemon=True)
        self._drain.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(
        self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, timeout_s: float = 60.0
    ) -> None:
        """Sends one message. Raises WorkerDied, WorkerHung."""
        deadline = time.monotonic() + timeout_s
        left = memoryview(frames.encode(header, arrays))
        while left:
            self._wait(self._requests.fileno(), select.POLLOUT, deadline, timeout_s)
            try:
                left = left[os.write(self._requests.fileno(), left[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._died() from None

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Waits for one message. Raises WorkerDied, WorkerHung."""
        deadline = time.monotonic() + timeout_s
        (length,) = frames.PREFIX.unpack(self._read(frames.PREFIX.size, deadline, timeout_s))
        return frames.decode(self._read(length, deadline, timeout_s))

    def kill(self) -> None:
        """Ends the process now, and frees its pipes."""
        self._process.kill()
        self._process.wait()
        self._drain.join(timeout=5)
        for pipe in (self._requests, self._answers, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self, n: int, deadline: float, timeout_s: float) -> bytes:
        body = bytearray()
        while len(body) < n:
            self._wait(self._answers.fileno(), select.POLLIN, deadline, timeout_s)
            chunk = os.read(self._answers.fileno(), min(n - len(body), _CHUNK))
            if not chunk:
                raise self._died()
            body += chunk
        return bytes(body)

    @staticmethod
    def _wait(pipe: int, event: int, deadline: float, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise WorkerHung(f"no answer within {timeout_s:g} s")

    def _died(self) -> WorkerDied:
        try:
            code: int | str = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = "unknown"
        self._drain.join(timeout=5)
        said = " | ".join(list(self._log)[-3:])
        return WorkerDied(f"worker process ended with exit code {code}" + (f": {said}" if said else ""))

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            if text:
                self._log.append(text)
