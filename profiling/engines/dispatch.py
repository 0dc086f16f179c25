"""Pictures dealt out to workers and their answers gathered in order: what every engine with processes does alike.

A picture whose worker died or hung is tried once more by a new worker, then reported as failed with the reason; the
others go on. A worker that has grown beyond its memory is replaced before its next picture.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

import numpy as np

from profiling.engines.measurement import FieldMeasurement
from profiling.engines.worker_process import WorkerDied, WorkerHung
from profiling.engines.worker_slot import WorkerSlot

ATTEMPTS = 2  # a picture whose worker died or hung is tried once more
Place = TypeVar("Place")
Answer = TypeVar("Answer")


class Limits(NamedTuple):
    """timeout_s: longest time for one picture. memory_mib: a worker that says it is larger is replaced."""

    timeout_s: float
    memory_mib: float = float("inf")


def deal(
    n: int, places: Sequence[Place], one: Callable[[Place, int], Answer], ahead: int | None = None
) -> Generator[tuple[int, Answer]]:
    """Yields (i, one(place, i)) for i in 0 … n − 1 as they come; each place works on one i at a time, in a thread.

    ahead: at most so many answers wait to be taken (None: all may), so that whoever takes them slowly is not flooded.
    What `one` raises is raised here, after the other places have finished what they are at.
    """
    answers: queue.Queue[tuple[int, Answer] | BaseException] = queue.Queue()
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(n):
        tasks.put(i)
    room = threading.Semaphore(n if ahead is None else max(1, ahead))
    stop = threading.Event()

    def work(place: Place) -> None:
        while True:
            room.acquire()
            try:
                if stop.is_set():
                    return
                i = tasks.get_nowait()
                answers.put((i, one(place, i)))
            except queue.Empty:
                room.release()  # for the next place to see that there is nothing left
                return
            except BaseException as error:
                answers.put(error)
                return

    threads = [threading.Thread(target=work, args=(place,)) for place in places[:n]]
    for thread in threads:
        thread.start()
    try:
        for _ in range(n):
            answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            room.release()
            yield answer
    finally:
        stop.set()
        for _ in threads:
            room.release()
        for thread in threads:
            thread.join()


def gather(
    n: int, answers: Generator[tuple[int, FieldMeasurement]], progress: Callable[[int], None] | None
) -> list[FieldMeasurement]:
    """The answers in the pictures' order; `progress` is told how many there are."""
    found: dict[int, FieldMeasurement] = {}
    with closing(answers):
        for i, answer in answers:
            found[i] = answer
            if progress is not None:
                progress(len(found))
    return [found[i] for i in range(n)]


def ask(
    slot: WorkerSlot,
    header: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    arrays: Mapping[str, np.ndarray],
    read: Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, np.ndarray]], Answer],
    limits: Limits,
) -> Answer | str:
    """One picture through one worker: what `read` makes of (hello, answer, arrays), or why it failed.

    `header` is made from what the worker said of itself; it may refuse the request. Raises what the slot raises where a
    worker has never been up, unless that is WorkerDied; else a start that fails costs this picture alone.
    """
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            worker, hello = slot.ready()
        except slot.missing as error:
            if not (slot.has_been_up or slot.missing is WorkerDied):
                raise
            reason = str(error)
            continue
        message = header(hello)
        try:
            worker.send(message, arrays, limits.timeout_s)
            answer, values = worker.receive(limits.timeout_s)
        except (WorkerDied, WorkerHung) as error:
            reason = str(error)
            slot.stop()
            continue
        if answer.get("memory_mib", 0.0) > limits.memory_mib:
            slot.stop()
        return str(answer["error"]) if "error" in answer else read(hello, answer, values)
    return f"{reason} ({ATTEMPTS} attempts)"
