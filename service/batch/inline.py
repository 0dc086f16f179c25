"""The plainest executor: one part after the other, stage after stage, in this process. What the others must equal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from service.batch.executor import CHEM, EFFECTS, GENERATE, PROFILE, Sink, Tell
from service.batch.plan import Plan, entries_of
from service.batch.room import open_room, provenance_from
from service.batch.stages import Item, Stages
from service.batch.store import Store
from service.batch.timings import Timings
from service.batch.tracker import Tracker

T = TypeVar("T")

PICTURES_AT_ONCE = 64


class InlineExecutor:
    """See the module. `room`: a loaded one to use; else it is opened. `device`: of the network."""

    name = "inline"

    def __init__(self, room: Any = None, device: str = "cpu") -> None:
        self._room, self._device, self.timings = room, device, Timings()

    def __enter__(self) -> InlineExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._room is not None:
            self._room.__exit__(None, None, None)

    def begin(self, plan: Plan, store: Store) -> None:
        """Loads the room."""
        if self._room is None:
            given = provenance_from(plan.document["provenance"])
            self._room = open_room(plan.request, provenance=given, device=self._device)
        self._stages = Stages(self._room, plan, store)
        self._tracker = Tracker(plan.request.first, plan.request.draws, self._room.card.micro_batch)
        self._store = store

    def control(self, tell: Tell) -> list[Item]:
        """The control, stage after stage."""
        item = self._stages.chem(self._tracker.admit_control())
        pieces = self._tracker.encoded(item)
        if not pieces:
            return [item]
        self._measure(pieces, tell)
        return self._tracker.pieces(0)

    def run(self, parts: Iterable[int], sink: Sink, tell: Tell) -> None:
        """Each part stage after stage."""
        for part in parts:
            entries = entries_of(self._store, part)
            with self._timed(CHEM, self._tracker.admit(part, entries)) as admitted:
                encoded = [self._stages.chem(one) for one in admitted]
            tell(CHEM, len(encoded))
            waiting = [piece for one in encoded for piece in self._tracker.encoded(one)]
            rows = [one.header["row"] for one in encoded]
            while rows:
                self._measure(waiting, tell)
                with self._timed("finish", rows):
                    results = [self._stages.finish(self._tracker.pieces(row)) for row in rows]
                waiting = [piece for one in results for piece in self._tracker.finished(one)]
                rows = [one.header["row"] for one in results if "more" in one.header]
                tell(EFFECTS, len(results) - len(rows))
            whole = self._tracker.whole(part)
            assert whole is not None
            sink(part, *whole)

    def _measure(self, pieces: list[Item], tell: Tell) -> None:
        source = iter(pieces)
        size = max(1, PICTURES_AT_ONCE // max((p.header["stop"] - p.header["start"] for p in pieces), default=1))
        while some := list(islice(source, size)):
            draws = [one for piece in some for one in range(piece.header["start"], piece.header["stop"])]
            with self._timed("paint", draws):
                pictures = self._stages.paint(some, lambda n: tell(GENERATE, n))
            with self._timed(PROFILE, draws):
                profiled = [self._stages.profile(one) for one in pictures]
            for one in profiled:
                self._tracker.measured(one)
            tell(PROFILE, len(draws))

    @contextmanager
    def _timed(self, task: str, units: Sequence[T]) -> Iterator[Sequence[T]]:
        cpu, wall = time.process_time(), time.monotonic()
        yield units
        self.timings.add(task, time.process_time() - cpu, time.monotonic() - wall, len(units))
