"""A run from beginning to end: plan, control, parts, manifest; given again after a stop, it goes on where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.batch.ask import BatchRequest
from service.batch.executor import CHEM, EFFECTS, GENERATE, PROFILE, STAGES, Executor
from service.batch.manifest import FILE, write_manifest
from service.batch.output import DONE, commit, done_parts, marks_of
from service.batch.plan import FOLDER, Entry, Plan, make_plan, part_name
from service.batch.room import open_room
from service.batch.stages import Item, Stages
from service.batch.store import Store
from service.batch.tables import CONTROL
from service.reference import Reference
from service.request import FAILED

FOLDERS = (FOLDER, "control", "outcomes", "effects", "errors", "predictions", "profiles", DONE, "")
Report = Callable[[str, int, int], None]
"""Called with (stage, done, total): pictures for generate and profile, compounds for chem and effects."""


@dataclass(frozen=True)
class Summary:
    """What became of a run. `kept` parts were finished by an earlier one; `pictures` were painted now, in `seconds`."""

    manifest: dict[str, Any]
    kept: int
    pictures: int
    seconds: float
    by_stage: dict[str, int] = field(default_factory=dict)

    @property
    def outcomes(self) -> dict[str, int]:
        """Entries by outcome."""
        return dict(self.manifest["outcomes"])


def plan(
    source: Path,
    request: BatchRequest,
    store: Store,
    workers: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    room: Any = None,
) -> tuple[Plan, Any]:
    """The plan at the address, made if there is none, and the room (nothing heavy loaded) that it was made with."""
    for folder in FOLDERS:
        store.sweep(folder)
    room = room or open_room(request, roles=())
    return make_plan(source, request, store, room, workers, progress), room


def run(
    source: Path,
    request: BatchRequest,
    store: Store,
    executor: Executor,
    *,
    workers: int = 0,
    report: Report | None = None,
    retry: bool = False,
    shard: tuple[int, int] = (0, 1),
    room: Any = None,
) -> Summary:
    """Everything that is not done yet; the same command goes on where it was stopped.

    shard: (k, n) does parts k, k + n, ... only, for n drivers at one address; the last to end writes the manifest.
    retry: parts with failed compounds are done again. room: as `plan` gives it. Raises what the plan refuses,
    `StorageError`, and `EngineFailure` for the control.
    """
    began = time.monotonic()
    made, room = plan(source, request, store, workers, room=room)
    if retry:
        forget_failed(store)
    done = done_parts(store)
    todo = [part for part in range(shard[0], made.parts, shard[1]) if part not in done]
    counted = dict.fromkeys(STAGES, 0)
    if todo:
        _work(made, room, store, executor, todo, counted, report)
    manifest = json.loads(store.get(FILE)) if not todo and store.has(FILE) else None
    if manifest is None:
        reference: Reference = room.reference()
        manifest = write_manifest(store, made, reference.normalisation.names)
    return Summary(manifest, len(done), counted[GENERATE], time.monotonic() - began, counted)


def _work(
    made: Plan,
    room: Any,
    store: Store,
    executor: Executor,
    todo: Sequence[int],
    counted: dict[str, int],
    report: Report | None,
) -> None:
    request = made.request
    left = made.ready(todo)
    expected = request.draws * left
    control_needed = bool(made.compounds) and not store.has(CONTROL)
    pictures = expected + request.draws * control_needed
    totals = {CHEM: left, GENERATE: pictures, PROFILE: pictures, EFFECTS: left}

    def tell(stage: str, n: int) -> None:
        counted[stage] += n
        if report is not None:
            report(stage, counted[stage], totals[stage])

    if report is not None:
        for stage in STAGES:
            report(stage, 0, totals[stage])
    stages = Stages(room, made, store)
    evidence = str(made.document["evidence"])

    def sink(part: int, entries: Sequence[Entry], results: Mapping[int, Item]) -> None:
        mark = commit(store, part, entries, results, stages.names, request, evidence)
        saved = int(mark["draws_saved"]) + request.draws * int(mark["outcomes"].get(FAILED, 0))
        for stage in (GENERATE, PROFILE):  # what this part will not paint is no longer ahead
            totals[stage] -= saved
        tell(EFFECTS, 0)

    if left:
        executor.begin(made, store)
        if control_needed:
            store.put(CONTROL, stages.control_table(executor.control(tell)))
    else:
        executor = _Nothing(store)
    executor.run(todo, sink, tell)


class _Nothing:
    """Parts of refused entries and duplicates only need no machine room."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = "none"

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def begin(self, plan: Plan, store: Store) -> None:
        """Nothing to load."""

    def control(self, tell: Any) -> list[Item]:
        """No control."""
        return []

    def run(self, parts: Any, sink: Any, tell: Any) -> None:
        """Hands over parts without results."""
        from service.batch.plan import entries_of

        for part in parts:
            sink(part, entries_of(self._store, part), {})


def forget_failed(store: Store) -> list[int]:
    """Take away the marks of parts with failed compounds, and the manifest, so that they are done again."""
    marks = marks_of(store, sorted(done_parts(store)))
    parts = [int(one["part"]) for one in marks if one["outcomes"].get(FAILED)]
    if parts:
        store.remove(FILE)
    for part in parts:
        store.remove(part_name(part, DONE, "json"))
    return parts
