"""The local executor: worker processes on this machine, a painter for every GPU, one loop that hands out tasks.

The loop knows what is ready for which role and gives it to the first free worker, later stages first; compounds are let
in only while there is room. So memory is bounded whatever the number of compounds, and no stage waits for another part
of the stream than the one before it. A worker that dies or hangs is started again and its task tried once more, each
compound of it alone; then that compound has failed, and no other one.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from service.batch import worker
from service.batch.arena import Arena
from service.batch.executor import CHEM, EFFECTS, GENERATE, PROFILE, Sink, Tell
from service.batch.hands import Hand, Task, Told
from service.batch.machine import LocalConfig, resolved
from service.batch.packing import best_prefix
from service.batch.plan import Plan, entries_of
from service.batch.room import DESK, PAINT, open_room
from service.batch.room import PROFILE as PROFILER
from service.batch.stages import CONTROL_ROW, SLAB, Item, bare
from service.batch.store import Store
from service.batch.timings import Timings
from service.batch.tracker import Tracker
from service.errors import EngineFailure

ATTEMPTS = 2
ROLE_OF = {worker.CHEM: DESK, worker.FINISH: DESK, worker.PAINT: PAINT, worker.PROFILE: PROFILER}
#: Later stages first: what is done makes room.
ORDER = (worker.FINISH, worker.PROFILE, worker.PAINT, worker.CHEM)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
#: Torch's threads sleep where they wait, and leave their cores to the profilers.
_SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}


class LocalExecutor:
    """See the module. `lost` counts the workers that died or hung; `timings` is what the tasks took.

    `painting_since`: when (monotonic) the first pictures were begun, `start_s` seconds after `begin`.
    """

    name = "local"

    def __init__(self, config: LocalConfig | None = None) -> None:
        self.config = resolved(config or LocalConfig())
        self.lost, self.timings = 0, Timings()
        self.start_s, self.painting_since = 0.0, 0.0
        self._hands: list[Hand] = []
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._ready: dict[str, deque[Task]] = {name: deque() for name in ORDER}
        self._arena: Arena | None = None
        self._free: list[int] = []
        self._control: list[Item] | None = None

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands:
            hand.stop()
        for hand in self._hands:
            hand.close()
        if self._arena is not None:
            self._arena.close()

    @property
    def pids(self) -> dict[str, list[int]]:
        """Process ids by role."""
        found: dict[str, list[int]] = {}
        for hand in self._hands:
            if hand.pid is not None:
                found.setdefault(hand.role, []).append(hand.pid)
        return found

    def begin(self, plan: Plan, store: Store) -> None:
        """Makes the arena and starts the workers; they load side by side."""
        self._begun = time.monotonic()
        config, card = self.config, open_room(plan.request, roles=()).card
        self._tracker = Tracker(plan.request.first, plan.request.draws, card.micro_batch)
        self._store, self._micro_batch = store, card.micro_batch
        rows = min(max(card.micro_batch, SLAB // card.micro_batch * card.micro_batch), plan.request.draws)
        picture = 4 * len(card.channels) * card.picture_size**2
        slots = 2 * config.profilers + 2 * config.painters * max(1, config.pack // rows)
        self._arena = Arena.make(slots, rows * picture)
        self._free = list(range(slots))
        self._window = 2 * slots + 4
        shared = {
            "url": store.url,
            "options": store.options,
            "arena": self._arena.address,
            "slots": slots,
            "bytes_each": rows * picture,
        }
        for role, n in ((PAINT, config.painters), (PROFILER, config.profilers), (DESK, config.desks)):
            for i in range(n):
                device = config.devices[i % len(config.devices)] if role == PAINT else "cpu"
                told = {**shared, "role": role, "device": device, "trace": config.trace}
                environment = _SLEEPING if role == PAINT else _ONE_THREAD
                self._hands.append(Hand(role, told, environment, self._told, config.timeout_s))

    def control(self, tell: Tell) -> list[Item]:
        """The control through chem, paint and profile."""
        self._push(worker.CHEM, [self._tracker.admit_control()])
        while self._control is None:
            self._hand_out()
            self._next(tell)
        return self._control

    def run(self, parts: Iterable[int], sink: Sink, tell: Tell) -> None:
        """The loop. Parts are handed over by a thread of their own, one at a time; what it raises is raised here."""
        coming = iter(parts)
        open_parts: list[int] = []
        with ThreadPoolExecutor(1, thread_name_prefix="batch-writer") as writer:
            writing: deque[Future[None]] = deque()
            more = True
            while more or open_parts:
                while more and self._tracker.in_work < self._window:
                    more = self._admit(coming, open_parts)
                for part in list(open_parts):
                    if (whole := self._tracker.whole(part)) is not None:
                        open_parts.remove(part)
                        writing.append(writer.submit(sink, part, *whole))
                while len(writing) > 1 or (writing and writing[0].done()):
                    writing.popleft().result()
                if self._tracker.in_work:
                    self._hand_out()
                    self._next(tell)
            for one in writing:
                one.result()

    def _admit(self, coming: Iterator[int], open_parts: list[int]) -> bool:
        part = next(coming, None)
        if part is None:
            return False
        open_parts.append(part)
        for item in self._tracker.admit(part, entries_of(self._store, part)):
            self._push(worker.CHEM, [item])
        return True

    def _push(self, name: str, items: list[Item], attempt: int = 1) -> None:
        self._ready[name].append(Task(name, tuple(items), attempt))

    def _hand_out(self) -> None:
        """Give what is ready to workers that are free."""
        for name in ORDER:
            for hand in self._hands:
                if hand.ready and not hand.busy and hand.role == ROLE_OF[name] and self._ready[name]:
                    task = self._packed() if name == worker.PAINT else self._ready[name].popleft()
                    if task is not None:
                        self._note_start(name)
                        hand.give(task)

    def _note_start(self, name: str) -> None:
        if name == worker.PAINT and not self.painting_since:
            self.painting_since = time.monotonic()
            self.start_s = round(self.painting_since - self._begun, 3)

    def _packed(self) -> Task | None:
        """Pieces for one call of a painter, in whole micro-batches as far as possible; None to wait for more."""
        waiting = self._ready[worker.PAINT]
        if not self._free:
            return None
        if waiting[0].attempt > 1:
            return self._with_slots(waiting.popleft())
        first = [task for task in list(waiting)[: len(self._free)] if task.attempt == 1]
        sizes = [task.items[0].header["stop"] - task.items[0].header["start"] for task in first]
        n, full = best_prefix(sizes, self._micro_batch, self.config.pack)
        if not full and self._more_to_come():
            return None
        for task in first[:n]:
            waiting.remove(task)
        return self._with_slots(Task(worker.PAINT, tuple(task.items[0] for task in first[:n])))

    def _more_to_come(self) -> bool:
        """Whether something is under way that brings pieces or frees slots."""
        under_way = any(hand.busy and hand.role != PAINT for hand in self._hands)
        return under_way or any(self._ready[name] for name in ORDER if name != worker.PAINT)

    def _with_slots(self, task: Task) -> Task:
        items = tuple(Item({**one.header, "slot": self._free.pop()}, one.arrays) for one in task.items)
        return replace(task, items=items)

    def _next(self, tell: Tell) -> None:
        """Wait for one answer, and do what follows from it."""
        told = self._told.get()
        told.hand.busy = False
        if told.refused:
            raise EngineFailure(f"a worker for {told.hand.role} refused: {told.refused}")
        if told.lost:
            self._lost(told, tell)
            return
        told.hand.ready = True
        if told.task is not None:
            self.timings.add(told.task.name, told.cpu_s, told.wall_s, units(told.task))
            self._advance(told.task, list(told.answers), tell)

    def _advance(self, task: Task, answers: list[Item], tell: Tell) -> None:
        for item in answers:
            if task.name == worker.CHEM:
                tell(CHEM, int(item.header["row"] != CONTROL_ROW))
                self._paint_all(self._tracker.encoded(item))
                if "failed" in item.header:
                    self._complete(item)
            elif task.name == worker.PAINT:
                tell(GENERATE, item.header["stop"] - item.header["start"])
                if "failed" in item.header:
                    self._free.append(item.header.pop("slot"))
                    self._measured(item, tell)
                else:
                    self._push(worker.PROFILE, [item])
            elif task.name == worker.PROFILE:
                self._free.append(task.items[0].header["slot"])
                self._measured(item, tell)
            else:
                self._paint_all(self._tracker.finished(item))
                tell(EFFECTS, int("more" not in item.header))

    def _paint_all(self, pieces: list[Item]) -> None:
        for piece in pieces:
            self._push(worker.PAINT, [piece])

    def _measured(self, item: Item, tell: Tell) -> None:
        tell(PROFILE, item.header["stop"] - item.header["start"])
        if self._tracker.measured(item) is not None:
            self._complete(item)

    def _complete(self, item: Item) -> None:
        """All pieces of a compound are there."""
        pieces = self._tracker.pieces(item.header["row"])
        if item.header["row"] == CONTROL_ROW:
            self._control = pieces
            self._tracker.finished(pieces[0])
        else:
            self._push(worker.FINISH, list(pieces))

    def _lost(self, told: Told, tell: Tell) -> None:
        """A worker died: try its compounds again, one by one, then give up the one it dies of."""
        self.lost += 1
        task = told.task
        if task is None:
            raise EngineFailure(f"a worker for {told.hand.role} does not start: {told.lost}")
        if task.name == worker.PAINT:
            self._free += [one.header.pop("slot") for one in task.items]
        if task.attempt < ATTEMPTS:
            for items in [task.items] if task.name == worker.FINISH else [(one,) for one in task.items]:
                self._ready[task.name].appendleft(replace(task, items=items, attempt=task.attempt + 1))
            return
        first = task.items[0].header
        words = f"its worker ended {task.attempt} times while working on it, the last time because: {told.lost}"
        failed = Item({**bare(first), "failed": "worker_lost", "sentence": words}, {})
        if task.name in (worker.PAINT, worker.PROFILE):
            failed.header.update({"start": first["start"], "stop": first["stop"]})
        if task.name == worker.PAINT:
            self._measured(failed, tell)
        else:
            self._advance(task, [failed], tell)


def units(task: Task) -> int:
    """Pictures of a task that paints or measures, compounds of the others."""
    if task.name in (worker.PAINT, worker.PROFILE):
        return sum(one.header["stop"] - one.header["start"] for one in task.items)
    return 1
