"""The engine `fast`: CellProfiler's columns and, to rounding, its values, measured by our own compiled kernels.

It reads the same pipeline files and answers as the engine `cellprofiler` does. One worker measures in this process,
more of them each in a process of its own, warm until the engine closes. With a device, workers only find the objects,
and torch measures batches of fields (`fast_batches`). A picture's numbers depend on the picture and
the settings alone. What the values agree with, and where not, is in docs/fast_parity.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Integer

from profiling.engines import dispatch, fast_field
from profiling.engines.fast_prepare import Prepared, prepare
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures, check_masks, check_pictures, unusable
from profiling.engines.pipeline_steps import Plan, read_plan
from profiling.engines.settings import InvalidSettings
from profiling.engines.worker_process import WorkerDied
from profiling.engines.worker_slot import WorkerSlot, module

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
#: Raised by hand when a change moves a measurement: it is part of the engine's hash.
REVISION = 2
PACKAGES = ("numba", "numpy", "scipy")
Answer = TypeVar("Answer")


class FastEngine:
    """Measures pictures; a context manager, whose processes live until it closes.

    settings: a name of `settings.SETTINGS`, or the path of a .cppipe file. workers: cores. masks: also return label
    images. objects: which of the pipeline's objects to report; None: all. stable: the well-defined value where
    CellProfiler's is an artefact (ties, rounding noise; docs/fast_parity.md lists them) instead of CellProfiler's.
    timeout_s: longest time for one picture, where there is more than one worker. device: "cuda" or "cpu": objects are
    found by the workers, and measured `batch` fields at a time by torch on that device; None: each field on a core.

    Raises:
        InvalidSettings: no such pipeline, a module that this engine does not have, or unknown objects. InvalidDevice:
        no such device here. ValueError: workers, batch or timeout_s not positive.
    """

    def __init__(
        self,
        settings: str | Path = "sim128",
        workers: int = 2,
        timeout_s: float = 60.0,
        *,
        masks: bool = False,
        objects: Sequence[str] | None = OBJECTS,
        stable: bool = False,
        device: str | None = None,
        batch: int = 32,
    ) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers and timeout_s must be positive, got {workers} and {timeout_s}")
        self._plan = read_plan(settings)
        self._columns = fast_field.columns(self._plan)
        made = tuple(name for name in self._columns if name != fast_field.IMAGE)
        self._objects = made if objects is None else tuple(objects)
        unknown = sorted(set(self._objects) - set(made))
        if unknown:
            raise InvalidSettings(
                f"objects: the pipeline makes no {', '.join(unknown)}; it makes {', '.join(sorted(made))}"
            )
        self._masks, self._stable, self._limits = masks, stable, dispatch.Limits(timeout_s)
        self._batches = None
        if device is not None:
            from profiling.engines.fast_batches import Batches  # torch: a second to import, and not needed without

            self._batches = Batches(self._plan, device, batch, stable)
        launch = partial(module, "profiling.engines.fast_worker", {"pipeline": str(self._plan.path)})
        self._slots = [
            WorkerSlot(launch, self._plan.path.name, WorkerDied, "the worker", "see above")
            for _ in range(workers if workers > 1 else 0)
        ]
        self._busy = threading.Lock()

    @property
    def hash(self) -> str:
        """sha256 of the pipeline file, the engine's revision, the libraries, and what is asked of it."""
        content = {
            "engine": "fast",
            "revision": REVISION,
            "pipeline": hashlib.sha256(self._plan.path.read_bytes()).hexdigest(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "objects": self._objects,
            "stable": self._stable,
        }
        if self._batches is not None:  # equal to rounding, not to the bit
            content |= {"device": self._batches.device.type, "torch": importlib.metadata.version("torch")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(slot.worker.pid for slot in self._slots if slot.worker is not None)

    def __enter__(self) -> FastEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Waits until every worker is up; `measure` does so by itself."""
        for slot in self._slots:
            slot.start()
        for slot in self._slots:
            slot.ready()

    def close(self) -> None:
        """Ends the workers; the engine starts new ones if it is asked again."""
        for slot in self._slots:
            slot.stop()

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """One FieldMeasurement a picture, in the pictures' order; a bad picture never stops the others.

        `pictures`: [0, 1] camera units, 1 = 65535 counts. `channels` names them, and must hold the names that the
        pipeline asks for. `progress` is told how many pictures are done.

        Raises:
            InvalidPictures: wrong number of dimensions, dtype or channel names.
        """
        check_pictures(pictures, channels)
        return self._measure(pictures, channels, {}, progress)

    def measure_masks(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        labels: Mapping[str, Integer[np.ndarray, "n h w"]],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """As `measure`, on given objects: `labels` are label images by object name, 0 background, 1 to n the objects.

        Steps that would find those objects are left out; objects that are not given are found or derived as the
        pipeline says. Features that say how an object was found (thresholds) are NaN then.

        Raises:
            InvalidPictures: also labels that do not fit the pictures, or leave numbers out.
        """
        check_pictures(pictures, channels)
        check_masks(pictures, labels)
        return self._measure(pictures, channels, labels, progress)

    def _measure(
        self,
        pictures: np.ndarray,
        channels: Sequence[str],
        labels: Mapping[str, np.ndarray],
        progress: Callable[[int], None] | None,
    ) -> list[FieldMeasurement]:
        missing = sorted(set(self._plan.channels) - set(channels))
        if missing:
            raise InvalidPictures(f"channels: the pipeline needs {', '.join(missing)} too, got {', '.join(channels)}")
        n = len(pictures)
        places: list[WorkerSlot | None] = [*self._slots] or [None]

        def one(
            of: Callable[..., FieldMeasurement | Answer], slot: WorkerSlot | None, i: int
        ) -> FieldMeasurement | Answer:
            if reason := unusable(pictures[i]):
                return FieldMeasurement("failed", reason)
            return of(slot, pictures[i], channels, {name: masks[i] for name, masks in labels.items()})

        with self._busy:
            if self._batches is None:
                return dispatch.gather(n, dispatch.deal(n, places, partial(one, self._field)), progress)
            prepared = dispatch.deal(n, places, partial(one, self._prepared), ahead=2 * self._batches.size)
            found = self._batches.measured(prepared, pictures, channels, self._assemble)
            return dispatch.gather(n, found, progress)

    def _field(
        self, slot: WorkerSlot | None, picture: np.ndarray, channels: Sequence[str], given: Mapping[str, np.ndarray]
    ) -> FieldMeasurement:
        """One field, measured by a worker or in this process."""
        header = {"channels": list(channels), "objects": list(self._objects), "stable": self._stable}
        found = self._asked(slot, picture, given, header, self._assemble)
        return FieldMeasurement("failed", found) if isinstance(found, str) else found

    def _prepared(
        self, slot: WorkerSlot | None, picture: np.ndarray, channels: Sequence[str], given: Mapping[str, np.ndarray]
    ) -> FieldMeasurement | Prepared:
        """One field, prepared for its batch."""
        header = {"channels": list(channels), "objects": list(self._objects), "stable": self._stable, "prepare": True}
        found = self._asked(slot, picture, given, header, Prepared.of)
        return FieldMeasurement("failed", found) if isinstance(found, str) else found

    def _asked(
        self,
        slot: WorkerSlot | None,
        picture: np.ndarray,
        given: Mapping[str, np.ndarray],
        header: Mapping[str, Any],
        read: Callable[[Mapping[str, np.ndarray]], Answer],
    ) -> Answer | str:
        if slot is None:
            try:
                return read(answer(self._plan, picture, given, header))
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        arrays = {"picture": picture} | {f"given/{name}": labels for name, labels in given.items()}
        return dispatch.ask(slot, lambda _: header, arrays, lambda _, __, values: read(values), self._limits)

    def _assemble(self, arrays: Mapping[str, np.ndarray]) -> FieldMeasurement:
        """From `answer`'s arrays; those of other objects are left aside."""
        tables = {name: ObjectTable(self._columns[name], arrays[f"values/{name}"]) for name in self._objects}
        empty = [name for name, table in tables.items() if not len(table.values)]
        masks = {name: arrays[f"mask/{name}"] for name in self._objects}
        return FieldMeasurement(
            outcome="no_cells" if empty else "ok",
            reason=f"no {', '.join(empty)} found" if empty else "",
            objects=tables,
            image=dict(zip(self._columns[fast_field.IMAGE], arrays["image"].tolist(), strict=True)),
            masks=masks if self._masks else {},
        )


def answer(
    plan: Plan, picture: np.ndarray, given: Mapping[str, np.ndarray], asked: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """One picture's arrays: `values/<object>` float64 [n, k], `mask/<object>` uint16 [h, w], `image` float64 [k].

    asked: `channels` of the picture, `objects` to report, `stable`; with `prepare` the arrays of `Prepared` instead.
    """
    planes = dict(zip(asked["channels"], picture, strict=True))
    objects, stable = asked["objects"], asked["stable"]
    if asked.get("prepare"):
        return prepare(plan, planes, given, objects, stable=stable).arrays()
    found = fast_field.measure_field(plan, planes, given, objects, stable=stable)
    out = {f"values/{name}": found.tables[name] for name in objects}
    out |= {f"mask/{name}": found.objects[name].labels.astype(np.uint16) for name in objects}
    return out | {"image": np.array(list(found.image.values()))}
