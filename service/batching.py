"""Which pictures are painted next: full batches from all jobs, every client its share.

Deficit round robin (Shreedhar and Varghese 1996, "Efficient fair queueing using deficit round robin") with pictures of
cost 1: at its turn a client's credit grows by its weight and it takes as many pictures as its credit allows. The turn
goes on where the last batch ended. While m clients wait, one of weight w therefore waits for at most the sum of the
others' weights between two of its turns, whoever asked first and however much anybody asked for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass
class _Client(Generic[Item]):
    """One client's jobs, oldest first; each is an iterator that makes its items when they are wanted."""

    weight: float = 1.0
    credit: float = 0.0
    jobs: OrderedDict[str, Iterator[Item]] = field(default_factory=OrderedDict)


class FairQueue(Generic[Item]):
    """Items of many jobs of many clients, taken in batches. Safe to call from several threads.

    A job's items are made one by one as they are taken, so a queue of a million pictures costs no memory.
    """

    def __init__(self) -> None:
        self._clients: OrderedDict[str, _Client[Item]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, client: str, job: str, items: Iterable[Item], weight: float = 1.0) -> None:
        """Adds a job behind the client's others. Raises ValueError for a weight that is not positive."""
        if not weight > 0:
            raise ValueError(f"weight is {weight}: expected a positive number")
        with self._changed:
            one = self._clients.setdefault(client, _Client())
            one.weight = weight
            one.jobs[job] = iter(items)
            self._changed.notify_all()

    def drop(self, client: str, job: str) -> None:
        """Takes a job out; what was taken of it before is not called back."""
        with self._changed:
            one = self._clients.get(client)
            if one is not None:
                one.jobs.pop(job, None)
                if not one.jobs:
                    del self._clients[client]

    def close(self) -> None:
        """Wakes whoever waits; from now on nothing is given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def clients(self) -> int:
        """How many clients have something to be painted."""
        with self._changed:
            return len(self._clients)

    def take(self, n: int, wait_s: float = 0.0, linger_s: float = 0.0) -> list[Item]:
        """Up to n items: fewer when fewer are there, none after `wait_s` without any or once it is closed.

        A batch that is not full waits `linger_s` for others to join it. Items whose job raises while it makes them end
        that job's queue; the error is the caller's.
        """
        until = time.monotonic() + wait_s
        with self._changed:
            taken: list[Item] = []
            while not self._closed:
                self._fill(taken, n)
                now = time.monotonic()
                if taken and linger_s > 0:
                    until, linger_s = now + linger_s, 0.0
                if len(taken) >= n or now >= until:
                    break
                self._changed.wait(until - now)
            return taken

    def _fill(self, taken: list[Item], n: int) -> None:
        """Round after round over the clients, until the batch is full or nobody has anything left."""
        while len(taken) < n and self._clients:
            name, client = next(iter(self._clients.items()))
            if client.credit < 1.0:
                client.credit += client.weight
            while client.credit >= 1.0 and len(taken) < n and client.jobs:
                item = self._next(client)
                if item is not None:
                    taken.append(item)
                    client.credit -= 1.0
            if not client.jobs:
                del self._clients[name]  # an idle client keeps no credit
            elif client.credit < 1.0:
                self._clients.move_to_end(name)  # its turn is over

    def _next(self, client: _Client[Item]) -> Item | None:
        """An item of the oldest job that has one; jobs that have none left go."""
        job, items = next(iter(client.jobs.items()))
        try:
            return next(items)
        except BaseException as error:
            del client.jobs[job]
            if isinstance(error, StopIteration):
                return None
            raise


def batches(pipe: queue.SimpleQueue[Item | None], most: int) -> Iterator[list[Item]]:
    """What lies in a pipe, up to `most` at once, until a None comes out of it."""
    while True:
        item = pipe.get()
        some: list[Item] = []
        while item is not None:
            some.append(item)
            if len(some) == most:
                break
            try:
                item = pipe.get_nowait()
            except queue.Empty:
                break
        if some:
            yield some
        if item is None:
            return
