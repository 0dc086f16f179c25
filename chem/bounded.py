"""Standardising with a time limit that holds, on as many cores as wanted: worker processes that may be ended.

RDKit's C++ code cannot be interrupted from Python, so a molecule that might take long is given to a process of its own
(`chem.standardise_worker`). The limit is CPU time: a busy machine refuses nothing that an idle one would accept.
Answers come in the order of the questions and do not depend on the number of workers.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from chem.molecule import InvalidSmiles, Molecule, Reason, standardise

LIMIT_S = 2.0
SHORT = 300  # characters: no SMILES up to this length was found to take a tenth of the limit
CHUNK = 200  # molecules a request
_WAITING = 3  # requests in hand a worker


class Text(NamedTuple):
    """What is to be read: a SMILES, or a mol block."""

    text: str
    kind: str = "smiles"


class Answer(NamedTuple):
    """A molecule or its refusal, and the CPU seconds that it took."""

    result: Molecule | InvalidSmiles
    seconds: float


class Standardiser:
    """Worker processes for standardising; use with `with`. `workers` 0 takes every core this process may use.

    Raises ValueError for a limit or a number of workers that is not positive.
    """

    def __init__(self, workers: int = 0, limit_s: float = LIMIT_S) -> None:
        if workers < 0 or limit_s <= 0:
            raise ValueError(f"workers must be at least 0 and limit_s above 0; got {workers} and {limit_s}.")
        self.workers = workers or len(os.sched_getaffinity(0))
        self.limit_s = limit_s
        self._closed = False
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(limit_s) for _ in range(self.workers)]
        for worker in self._all:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="standardise")

    def __enter__(self) -> Standardiser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what is being asked is given up."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.end()

    def many(self, texts: Iterable[str | Text], chunk: int = CHUNK) -> Iterator[Answer]:
        """The answer to each text, in order, while the input is still being read; memory does not grow with it."""
        waiting: deque[Future[list[Answer]]] = deque()
        source = (one if isinstance(one, Text) else Text(one) for one in texts)
        while True:
            while len(waiting) < _WAITING * self.workers and (batch := list(islice(source, chunk))):
                waiting.append(self._threads.submit(self._ask, batch))
            if not waiting:
                return
            yield from waiting.popleft().result()

    def one(self, text: str | Text) -> Molecule:
        """The molecule of one text. Raises `InvalidSmiles`, with reason `timeout` when the limit was passed."""
        (answer,) = self.many([text])
        if isinstance(answer.result, InvalidSmiles):
            raise answer.result
        return answer.result

    def _ask(self, batch: list[Text]) -> list[Answer]:
        worker = self._free.get()
        try:
            done = worker.ask(batch)
            while len(done) < len(batch) and not self._closed:  # it died: what it had not told is asked one by one
                told = worker.ask(batch[len(done) : len(done) + 1])
                done += told or [Answer(_timeout(self.limit_s), self.limit_s)]
            return done
        finally:
            if self._closed:
                worker.end()
            self._free.put(worker)


class _Worker:
    """One process, started when first asked and again after its death."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, batch: list[Text]) -> list[Answer]:
        """The answers of a batch; fewer when the process died."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        lines = [json.dumps([one.kind, one.text]).encode() + b"\n" for one in batch]
        done: list[Answer] = []
        try:
            process.stdin.write(b"%d\n" % len(lines) + b"".join(lines))
            process.stdin.flush()
            while len(done) < len(batch) and (line := process.stdout.readline()).endswith(b"\n"):
                done.append(_read(json.loads(line)))
        except BrokenPipeError:
            pass  # it died while being asked, as if it had answered nothing
        if len(done) < len(batch):
            self.end()
        return done

    def end(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what was not read any more
                        pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chem.standardise_worker", str(self._limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for us alone; when we go, its stdin closes and it ends
        )
        return self._process


def _read(answer: list[Any]) -> Answer:
    *found, seconds = answer
    if isinstance(found[0], dict):
        refusal = found[0]
        return Answer(InvalidSmiles(Reason(refusal["reason"]), refusal["message"], refusal["position"]), seconds)
    smiles, inchikey, changes = found
    return Answer(Molecule(smiles, inchikey, tuple(changes)), seconds)


def _timeout(limit_s: float) -> InvalidSmiles:
    return InvalidSmiles(
        Reason.TIMEOUT,
        f"The molecule could not be put into standard form in {limit_s:g} seconds of computing; give a simpler one.",
    )


_SHARED_LOCK = threading.Lock()
_shared: Standardiser | None = None


def standardise_within(smiles: str) -> Molecule:
    """`chem.molecule.standardise` with the limit `LIMIT_S`: what is short is read here, the rest by a process that is
    started once and kept. Raises `InvalidSmiles`, with reason `timeout` when the limit was passed.
    """
    global _shared
    if len(smiles) <= SHORT:
        return standardise(smiles)
    with _SHARED_LOCK:
        if _shared is None:
            _shared = Standardiser(workers=1)
            atexit.register(_shared.close)
        return _shared.one(smiles)
