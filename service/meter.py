"""What the engine room has done, and how fast: for the metrics, for the time left, and for when to come back."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

_RATE_S = 120.0


@dataclass(frozen=True)
class Counts:
    """What the engine room has done since it started."""

    batches: int
    rows_painted: int
    rows_measured: int
    slots: int  # places in those batches
    retries: int  # times that something waited for space or for the store


class Meter:
    """Counts. Safe to call from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = Counter[str]()
        self._finished: deque[tuple[float, int]] = deque()

    def count(self, **more: int) -> None:
        """Adds to counts of `Counts`."""
        with self._lock:
            self._counts.update(more)

    def rows(self, n: int) -> None:
        """n rows were finished now."""
        with self._lock:
            now = self._clock()
            self._finished.append((now, n))
            while now - self._finished[0][0] > _RATE_S:
                self._finished.popleft()

    def rate(self) -> float | None:
        """Rows finished in a second, over the last two minutes; None before there are any."""
        with self._lock:
            n = sum(n for _, n in self._finished)
            if not n:
                return None
            return n / max(self._clock() - self._finished[0][0], 1.0)

    def counts(self) -> Counts:
        """The counts now."""
        with self._lock:
            names = ("batches", "rows_painted", "rows_measured", "slots", "retries")
            return Counts(*(self._counts[name] for name in names))
