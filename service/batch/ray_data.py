"""The executor on a Ray cluster: Ray Data moves compounds through pools of actors, this file only says which function
runs where.

chem on desks, paint on GPUs, profile on cores, as one streaming dataset: back-pressure, autoscaling of the pools and
the repetition of what a lost node held are Ray's own. The driver puts the measured pieces of a part together and has
them finished by a remote task; parts are committed as everywhere else, so a lost driver goes on too. Rows between
stages hold one message of bytes (the frames of the workers), never a Python object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from profiling.engines.cellprofiler_worker import frames
from service.batch.executor import CHEM, EFFECTS, GENERATE, PROFILE, Sink, Tell
from service.batch.plan import READY, Entry, Plan, entries_of, read_plan
from service.batch.room import DESK, PAINT, open_room, provenance_from
from service.batch.room import PROFILE as PROFILER
from service.batch.stages import CONTROL_ROW, SLAB, Item, Stages, bare, control_item, slabs
from service.batch.store import Store
from service.batch.timings import Timings
from service.errors import EngineFailure, InvalidRequest, ServiceError

MESSAGE = "message"
HARDLY = 0.05  # of a core: what reads entries
FINISHING = 8  # parts that may be finished at once: bounds the driver's memory
Config = dict[str, Any]


class RayMissing(ServiceError):
    """Ray is not installed."""


@dataclass(frozen=True)
class RayConfig:
    """address: of a cluster, None = one started on this machine. painters, profilers, desks: most actors of each pool;
    0 chooses: painters for all GPUs (one without), profilers for the cores that are left, a desk for every eight.

    painter_cpus, profiler_cpus, desk_cpus: cores reserved for one actor; less where the cluster has not as many, and
    with adaptive draws, which take two pools of each kind. pack: pieces painted in one call.
    """

    address: str | None = None
    painters: int = 0
    profilers: int = 0
    desks: int = 0
    painter_cpus: float = 1.0
    profiler_cpus: float = 1.0
    desk_cpus: float = 0.25
    pack: int = 4


class RayExecutor:
    """See the module. Use with `with`; a cluster that this started is shut down at the end.

    Raises:
        RayMissing: install the extra `cluster`.
    """

    name = "ray"

    def __init__(self, config: RayConfig | None = None) -> None:
        if find_spec("ray") is None:
            raise RayMissing("executor 'ray' needs Ray: pip install 'dopaint[cluster]'")
        self.config, self.timings = config or RayConfig(), Timings()
        self._started = False

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            import ray

            ray.shutdown()

    def begin(self, plan: Plan, store: Store) -> None:
        """Connects to the cluster, or starts one here. Raises `InvalidRequest` for a pilot longer than one piece."""
        import ray

        micro_batch = open_room(plan.request, roles=()).card.micro_batch
        piece = max(micro_batch, SLAB // micro_batch * micro_batch)
        if plan.request.adaptive and plan.request.pilot > piece:
            raise InvalidRequest(f"pilot is {plan.request.pilot}: on Ray at most {piece}, one piece")
        if not ray.is_initialized():
            ray.init(address=self.config.address, log_to_driver=False, include_dashboard=False)
            self._started = True
        ray.data.DataContext.get_current().enable_progress_bars = False
        self._plan, self._store = plan, store
        self._said: Config = {"url": store.url, "options": store.options}
        resources = ray.cluster_resources()
        self._sizes, self._cpus = pools(self.config, resources), float(resources.get("CPU", 1))

    def control(self, tell: Tell) -> list[Item]:
        """The control through the same stages."""
        import ray

        source = ray.data.from_items([{MESSAGE: message(control_item())}])
        found = list(self._stream(source, first=self._plan.request.draws, adaptive=False))
        for item in found:
            _count(item, tell)
        return found

    def run(self, parts: Iterable[int], sink: Sink, tell: Tell) -> None:
        """One streaming dataset over all parts."""
        import ray

        todo = list(parts)
        request, said = self._plan.request, self._said
        numbers = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=max(1, len(todo)))
        source = numbers.flat_map(lambda row: compounds_of(said, int(row["part"])), num_cpus=HARDLY)
        collector = Collector(self._store, request.draws)
        finish = ray.remote(num_cpus=0, max_retries=-1, scheduling_strategy="SPREAD")(finish_part)
        waiting: deque[tuple[int, Any]] = deque()
        writing: deque[Future[None]] = deque()

        def hand_over(most: int) -> None:
            while waiting and (len(waiting) > most or ray.wait([waiting[0][1]], timeout=0)[0]):
                part, reference = waiting.popleft()
                results = {one.header["row"]: one for one in map(item_of, ray.get(reference))}
                tell(EFFECTS, len(results))
                writing.append(writer.submit(sink, part, collector.entries.pop(part), results))
            while len(writing) > 1:
                writing.popleft().result()

        with ThreadPoolExecutor(1, thread_name_prefix="batch-writer") as writer:
            for item in self._stream(source, first=request.first, adaptive=request.adaptive):
                _count(item, tell)
                if (whole := collector.add(item)) is not None:
                    part, compounds = whole
                    packed = [[message(piece) for piece in pieces] for pieces in compounds]
                    waiting.append((part, finish.remote(said, packed)))
                hand_over(FINISHING)
            hand_over(0)
            for part in todo:
                if part not in collector.seen:  # no molecule in it
                    sink(part, entries_of(self._store, part), {})
            for one in writing:
                one.result()

    def _stream(self, source: Any, first: int, adaptive: bool) -> Iterable[Item]:
        """chem -> paint -> profile (-> decide -> paint -> profile) over a dataset of compounds, piece by piece."""
        import ray

        config, sizes = self.config, self._sizes
        share = 0.5 if adaptive else 1.0  # two pools of each kind then
        cpus = share * fitting(config, self._cpus)
        gpus = {"num_gpus": share} if sizes["gpus"] else {}

        def pool(most: int) -> Any:
            return ray.data.ActorPoolStrategy(min_size=1, max_size=most)

        def paint(dataset: Any) -> Any:
            painted = dataset.map_batches(
                Paint,
                fn_constructor_args=[self._said, bool(gpus)],
                batch_size=config.pack,
                batch_format="pyarrow",
                compute=pool(sizes["painters"]),
                num_cpus=cpus * config.painter_cpus,
                **gpus,
            )
            return painted.map_batches(
                Measure,
                fn_constructor_args=[self._said],
                batch_size=1,
                batch_format="pyarrow",
                compute=pool(sizes["profilers"]),
                num_cpus=cpus * config.profiler_cpus,
            )

        desk: Config = {"compute": pool(sizes["desks"]), "num_cpus": cpus * config.desk_cpus}
        found = paint(source.flat_map(Chem, fn_constructor_args=[self._said, first], **desk))
        if adaptive:
            found = paint(found.flat_map(Decide, fn_constructor_args=[self._said], **desk))
        for row in found.iter_rows():
            yield item_of(row[MESSAGE])


def pools(config: RayConfig, resources: Mapping[str, float]) -> dict[str, int]:
    """Most actors of each pool, from what the cluster has."""
    gpus, cpus = int(resources.get("GPU", 0)), float(resources.get("CPU", 1))
    painters = config.painters or max(1, gpus)
    left = cpus - painters * config.painter_cpus - config.desk_cpus - HARDLY
    profilers = config.profilers or max(1, int(left / config.profiler_cpus))
    return {"gpus": gpus, "painters": painters, "profilers": profilers, "desks": config.desks or max(1, profilers // 8)}


def fitting(config: RayConfig, cpus: float) -> float:
    """By how much reservations must shrink so that one actor of each pool fits beside the entries' tasks."""
    needed = config.painter_cpus + config.profiler_cpus + config.desk_cpus
    return min(1.0, (cpus - HARDLY) / needed)


def message(item: Item) -> bytes:
    """An item as bytes."""
    return frames.encode(item.header, item.arrays)[frames.PREFIX.size :]


def item_of(content: bytes) -> Item:
    """The inverse of `message`."""
    return Item(*frames.decode(content))


def compounds_of(said: Config, part: int) -> list[dict[str, bytes]]:
    """The compounds of a part, as rows."""
    ready = [one for one in entries_of(Store(said["url"], said["options"]), part) if one.state == READY]
    heads = ({"row": one.row, "part": part, "smiles": one.smiles, "inchikey": one.inchikey} for one in ready)
    return [{MESSAGE: message(Item(head, {}))} for head in heads]


@lru_cache(maxsize=2)
def _stages(url: str, options: tuple[tuple[str, Any], ...], role: str, device: str) -> Stages:
    """The stage functions of this process, loaded once."""
    store = Store(url, dict(options))
    plan = read_plan(store)
    if plan is None:
        raise EngineFailure(f"{url} holds no plan")
    room = open_room(plan.request, (role,), provenance_from(plan.document["provenance"]), device)
    return Stages(room, plan, store)


def stages_of(said: Config, role: str, device: str = "cpu") -> Stages:
    """The stage functions of this process for a role."""
    return _stages(said["url"], tuple(sorted(said["options"].items())), role, device)


def rows_of(items: Iterable[Item]) -> pa.Table:
    """Items as a table of messages."""
    return pa.table({MESSAGE: pa.array([message(one) for one in items], pa.large_binary())})


class Chem:
    """Compounds -> pieces with their vectors."""

    def __init__(self, said: Config, first: int) -> None:
        self._stages, self._first = stages_of(said, DESK), first

    def __call__(self, row: dict[str, bytes]) -> list[dict[str, bytes]]:
        """One row a piece; the compound itself where it failed."""
        item = self._stages.chem(item_of(row[MESSAGE]))
        if "failed" in item.header:
            return [{MESSAGE: message(item)}]
        item.header["total"] = self._first
        return [{MESSAGE: message(one)} for one in slabs(item, 0, self._first, self._stages.room.card.micro_batch)]


class Decide:
    """Measured pilots -> themselves, and the further pieces that their compounds need."""

    def __init__(self, said: Config) -> None:
        self._stages = stages_of(said, DESK)

    def __call__(self, row: dict[str, bytes]) -> list[dict[str, bytes]]:
        """One row a piece, measured or to be painted."""
        item = item_of(row[MESSAGE])
        if "failed" in item.header:
            return [row]
        answer = self._stages.finish([item]).header
        total = int(answer.get("more", item.header["stop"]))
        item.header["total"] = total
        again = self._stages.chem(Item({**bare(item.header), "total": total}, {}))
        more = slabs(again, int(item.header["stop"]), total, self._stages.room.card.micro_batch)
        return [{MESSAGE: message(one)} for one in (item, *more)]


class Paint:
    """Pieces -> pieces with pictures, on a GPU where there is one; measured and failed ones pass."""

    def __init__(self, said: Config, gpu: bool) -> None:
        self._stages = stages_of(said, PAINT, "cuda:0" if gpu else "cpu")

    def __call__(self, table: pa.Table) -> pa.Table:
        """A table of messages."""
        items = [item_of(one) for one in table[MESSAGE].to_pylist()]
        todo = [one for one in items if waits(one)]
        done = [_kept(one, made) for one, made in zip(todo, self._stages.paint(todo), strict=True)] if todo else []
        return rows_of([*(one for one in items if not waits(one)), *done])


class Measure:
    """Pieces with pictures -> measured pieces; others pass."""

    def __init__(self, said: Config) -> None:
        self._stages = stages_of(said, PROFILER)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A table of messages."""
        items = (item_of(one) for one in table[MESSAGE].to_pylist())
        return rows_of([_kept(one, self._stages.profile(one)) if "pictures" in one.arrays else one for one in items])


def waits(item: Item) -> bool:
    """Whether a piece is still to be painted."""
    return "failed" not in item.header and "outcomes" not in item.header


def _kept(before: Item, after: Item) -> Item:
    """A failed piece still says how many its compound has in all."""
    after.header.setdefault("total", before.header["total"])
    return after


def finish_part(said: Config, compounds: list[list[bytes]]) -> list[bytes]:
    """The results of the compounds of a part, from their measured pieces. A Ray task."""
    stages = stages_of(said, DESK)
    return [message(stages.finish([item_of(one) for one in pieces])) for pieces in compounds]


@dataclass
class _Open:
    pieces: dict[int, list[Item]] = field(default_factory=dict)
    left: int = 0


class Collector:
    """Puts measured pieces together, in whatever order they come; forgets a part when it is whole."""

    def __init__(self, store: Store, draws: int) -> None:
        self._store, self._draws = store, draws
        self._open: dict[int, _Open] = {}
        self.entries: dict[int, list[Entry]] = {}
        self.seen: set[int] = set()

    def add(self, item: Item) -> tuple[int, list[list[Item]]] | None:
        """The pieces of all compounds of a part when this was the last of them."""
        part, row = int(item.header["part"]), int(item.header["row"])
        if part not in self.seen:
            self.seen.add(part)
            entries = self.entries[part] = entries_of(self._store, part)
            self._open[part] = _Open(left=sum(one.state == READY for one in entries))
        found = self._open[part]
        pieces = found.pieces.setdefault(row, [])
        pieces.append(item)
        if "start" in item.header:
            drawn = sum(one.header["stop"] - one.header["start"] for one in pieces)
            if drawn < max(int(one.header.get("total", self._draws)) for one in pieces):
                return None
        found.left -= 1
        return None if found.left else (part, list(self._open.pop(part).pieces.values()))


def _count(item: Item, tell: Tell) -> None:
    """The driver sees pieces when they are measured: all stages before that are told then."""
    start, stop = int(item.header.get("start", 0)), int(item.header.get("stop", 0))
    if start == 0 and item.header["row"] != CONTROL_ROW:
        tell(CHEM, 1)
    tell(GENERATE, stop - start)
    tell(PROFILE, stop - start)
