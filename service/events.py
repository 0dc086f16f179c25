"""What happens to a job as server-sent events: a stream that a reader can leave and take up again at its last event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio

from service import views
from service.errors import ServiceError
from service.jobs import Desk
from service.ledger import Event
from service.results import CONTROL
from service.store import ENDED, Job

BEAT_S = 10.0  # a comment and a look at the store at least this often
SOON_S = 0.25  # changes closer than this go out together
RETRY_MS = 2000
_LAST = ("done", "failed", "cancelled", "expired")


async def stream(desk: Desk, key: str, owner: str, after: int) -> AsyncIterator[str]:
    """The events of a job after the number `after`, until its end; a comment where nothing happens."""
    changed, loop = anyio.Event(), asyncio.get_running_loop()

    def listener(which: str) -> None:
        if which == key:
            with suppress(RuntimeError):  # the server is gone
                loop.call_soon_threadsafe(lambda: changed.set())

    unsubscribe = desk.listen(listener)
    teller = Teller(desk, key, owner, after)
    try:
        yield f"retry: {RETRY_MS}\n\n"
        while True:
            changed = anyio.Event()
            try:
                texts = await anyio.to_thread.run_sync(teller.news)
            except ServiceError:  # deleted, or the store cannot be read: the reader asks again and is told
                yield _text("end", {"status": "gone"})
                return
            for text in texts:
                yield text
            if teller.over:
                return
            with anyio.move_on_after(BEAT_S) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                yield ": still here\n\n"
            else:
                await anyio.sleep(SOON_S)
    finally:
        unsubscribe()


@dataclass
class Teller:
    """Turns a job's ledger into the events that readers get; `after` is the number of the last one told."""

    desk: Desk
    key: str
    owner: str
    after: int
    over: bool = False
    _told: str = ""
    _folders: dict[str, list[int]] = field(default_factory=dict)

    def news(self) -> list[str]:
        """The texts of everything that is new."""
        out: list[str] = []
        while found := self.desk.events(self.key, self.after, owner=self.owner):
            for event in found:
                self.after = event.number
                out += self._texts(event)
                if event.kind in _LAST:
                    self.over = True
        job = self.desk.get(self.key, self.owner)
        if (line := self._progress(job)) != self._told:
            self._told = line
            out.insert(0, line) if self.over else out.append(line)
        if job.state in ENDED and not self.over:  # all of its events were told before
            self.over = True
            out.append(_text("end", {"status": job.state}))
        return out

    def _texts(self, event: Event) -> list[str]:
        data: dict[str, Any] = dict(event.data)
        if event.kind in _LAST:
            return [_text("end", {"status": event.kind}, event.number)]
        if event.kind == "picture":
            return [_text("picture", self._picture(str(data["folder"]), int(data["draw"])), event.number)]
        if event.kind == "molecule":
            states = self.desk.molecules(self.key, self.owner)
            indices = [int(i) for i in data.get("indices", ())]  # none: the control is in place
            told = [views.molecule_state(self.key, states[i]) for i in indices if i < len(states)]
            numbers = [None] * (len(told) - 1) + [event.number]  # who has the number has all of its texts
            return [_text("molecule", one, number) for one, number in zip(told, numbers, strict=False)]
        return []

    def _picture(self, folder: str, draw: int) -> dict[str, Any]:
        row = "control" if folder == CONTROL else "compound"
        indices = self._indices(folder)
        index = indices[0] if indices else None
        root = f"/v1/predictions/{self.key}/molecules/{index}/pictures/{draw}"
        address = None if index is None else f"{root}?row={row}"
        return {"folder": folder, "row": row, "molecule": index, "draw": draw, "picture": address}

    def _indices(self, folder: str) -> list[int]:
        """The molecules of a folder; of the control's, all that have pictures."""
        if folder not in self._folders:
            for state in self.desk.molecules(self.key, self.owner):
                if state.folder:
                    for name in (state.folder, CONTROL):
                        if state.index not in self._folders.setdefault(name, []):
                            self._folders[name].append(state.index)
        return self._folders.get(folder, [])

    def _progress(self, job: Job) -> str:
        left = self.desk.seconds_left(job)
        data = {
            "status": job.state,
            "progress": views.progress(job),
            "seconds_left": None if left is None else round(max(0.0, left), 1),
            "jobs_ahead": self.desk.ahead_of(job.id) if job.state == "queued" else 0,
        }
        return _text("progress", data)


def _text(kind: str, data: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data, allow_nan=False)}\n\n"
