"""The engine `cellprofiler`: CellProfiler 4.2.8.1 unchanged, headless, in its own environment, one warm process a
core.

Pictures go over pipes as arrays, never over disk. A picture's numbers depend on the picture and the settings alone: not
on the number of workers, the order, or what was measured before.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, Integer

from profiling.engines import dispatch, environment
from profiling.engines import settings as pipelines
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures, check_masks, check_pictures, unusable
from profiling.engines.worker_process import WorkerProcess
from profiling.engines.worker_slot import WorkerSlot

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
WORKER = Path(__file__).resolve().parent / "cellprofiler_worker" / "__main__.py"
#: Raised by hand when a change of the worker moves a measurement: it is part of the engine's hash.
REVISION = 1
MEMORY_CEILING = 2.0  # times memory_limit_mib: more than that, and the worker ends in the middle of a picture


class CellProfilerEngine:
    """Measures pictures with CellProfiler; a context manager, whose processes live until it closes.

    settings: a name of `settings.SETTINGS`, or the path of a .cppipe file (its modules that read or write files are
    skipped; images are taken by name). workers: processes, one a core. timeout_s: longest time for one picture.
    kernels: our compiled Haralick, reconstruction and colocalization loops inside CellProfiler's modules (equal to 5e-8
    relative) instead of the stock ones. masks: also return label images. objects: which of the pipeline's objects to
    report; None: all. memory_limit_mib: a worker that has grown beyond it is replaced before its next picture; at twice
    that it ends in the middle of one, which then counts as a crash.

    A picture whose worker crashed or hung is tried once more by a new worker, then reported as "failed" with the
    reason; the others go on.

    Raises:
        InvalidSettings: no such pipeline. CellProfilerMissing: not installed. ValueError: workers or timeout_s not
        positive.
    """

    def __init__(
        self,
        settings: str | Path = "sim128",
        workers: int = 2,
        timeout_s: float = 60.0,
        *,
        kernels: bool = True,
        masks: bool = False,
        objects: Sequence[str] | None = OBJECTS,
        memory_limit_mib: float = 2000.0,
        venv: Path | None = None,
    ) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers and timeout_s must be positive, got {workers} and {timeout_s}")
        self._pipeline = pipelines.pipeline(settings)
        self._python = environment.interpreter(venv)
        self._limits = dispatch.Limits(timeout_s, memory_limit_mib)
        self._kernels, self._masks = kernels, masks
        self._objects = None if objects is None else tuple(objects)
        remedy = "reinstall it with `dopaint setup cellprofiler`"
        self._slots = [
            WorkerSlot(self._launch, self._pipeline.name, environment.CellProfilerMissing, "CellProfiler", remedy)
            for _ in range(workers)
        ]
        self._busy = threading.Lock()

    @property
    def hash(self) -> str:
        """sha256 of the pipeline file, the pinned packages, whether our kernels are on, and the worker's revision."""
        content = {
            "engine": "cellprofiler",
            "revision": REVISION,
            "pipeline": hashlib.sha256(self._pipeline.read_bytes()).hexdigest(),
            "pins": environment.pins(),
            "kernels": self._kernels,
            "objects": self._objects,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(slot.worker.pid for slot in self._slots if slot.worker is not None)

    def __enter__(self) -> CellProfilerEngine:
        for slot in self._slots:
            slot.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Waits until every worker is up; `measure` does so by itself. Raises CellProfilerMissing."""
        for slot in self._slots:
            slot.start()
        for slot in self._slots:
            slot.ready()

    def columns(self) -> dict[str, tuple[str, ...]]:
        """Object (and "Image") → the features that the pipeline measures, in the tables' order; starts a worker."""
        _, hello = self._slots[0].ready()
        return {name: tuple(names) for name, names in hello["columns"].items()}

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
            InvalidPictures: wrong number of dimensions, dtype or channel names. CellProfilerMissing: workers do not
            start.
        """
        check_pictures(pictures, channels)
        return self._measure(pictures, channels, {}, progress)

    def measure_masks(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        labels: Mapping[str, Integer[np.ndarray, "_ _ _"]],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """As `measure`, on given objects: `labels` are label images [n, h, w] by name: 0 background, 1 to n objects.

        Modules that would find those objects are skipped; objects that are not given are found or derived as the
        pipeline says (cytoplasm from cells and nuclei, for example). Features of a skipped module that say how it found
        the objects (thresholds) are NaN.

        Raises:
            InvalidPictures: also labels that do not fit the pictures, or leave numbers out. CellProfilerMissing.
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
        def one(slot: WorkerSlot, i: int) -> FieldMeasurement:
            given = {f"given/{name}": masks[i] for name, masks in labels.items()}
            return self._measure_one(slot, pictures[i], channels, given)

        with self._busy:
            return dispatch.gather(len(pictures), dispatch.deal(len(pictures), self._slots, one), progress)

    def _measure_one(
        self, slot: WorkerSlot, picture: np.ndarray, channels: Sequence[str], given: Mapping[str, np.ndarray]
    ) -> FieldMeasurement:
        reason = unusable(picture)
        if reason:
            return FieldMeasurement("failed", reason)

        def header(hello: Mapping[str, Any]) -> dict[str, Any]:
            objects = self._reported(hello)
            _check_hello(hello, channels, objects)
            return {"channels": list(channels), "objects": list(objects), "masks": self._masks}

        def read(
            hello: Mapping[str, Any], answer: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
        ) -> FieldMeasurement:
            return _assemble(hello["columns"], answer, arrays, self._reported(hello))

        found = dispatch.ask(slot, header, {"picture": picture, **given}, read, self._limits)
        return FieldMeasurement("failed", found) if isinstance(found, str) else found

    def _reported(self, hello: Mapping[str, Any]) -> tuple[str, ...]:
        return self._objects or tuple(name for name in hello["columns"] if name != "Image")

    def _launch(self) -> WorkerProcess:
        config = {
            "pipeline": str(self._pipeline),
            "kernels": self._kernels,
            "memory_mib": MEMORY_CEILING * self._limits.memory_mib,
        }
        return WorkerProcess(
            [str(self._python), "-P", "-s", str(WORKER), json.dumps(config)],
            environment.worker_environment(self._python),
        )


def _check_hello(hello: Mapping[str, Any], channels: Sequence[str], objects: Sequence[str]) -> None:
    missing = sorted(set(hello["images"]) - set(channels))
    if missing:
        raise InvalidPictures(f"channels: the pipeline needs {', '.join(missing)} too, got {', '.join(channels)}")
    unknown = sorted(set(objects) - set(hello["columns"]))
    if unknown:
        known = sorted(set(hello["columns"]) - {"Image"})
        raise pipelines.InvalidSettings(
            f"objects: the pipeline makes no {', '.join(unknown)}; it makes {', '.join(known)}"
        )
    pins = environment.pins()
    wrong = {name: version for name, version in hello["versions"].items() if pins.get(name) != version}
    if wrong:
        found = ", ".join(f"{name} {version} (expected {pins.get(name)})" for name, version in sorted(wrong.items()))
        raise environment.CellProfilerMissing(
            f"CellProfiler's environment has {found}: run `dopaint setup cellprofiler`"
        )


def _assemble(
    columns: Mapping[str, list[str]],
    answer: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    objects: Sequence[str],
) -> FieldMeasurement:
    tables = {name: ObjectTable(tuple(columns[name]), arrays[f"values/{name}"]) for name in objects}
    empty = [name for name, table in tables.items() if not len(table.values)]
    return FieldMeasurement(
        outcome="no_cells" if empty else "ok",
        reason=f"no {', '.join(empty)} found" if empty else "",
        objects=tables,
        image=dict(zip(answer["image_names"], arrays["image"].tolist(), strict=True)),
        masks={name.removeprefix("mask/"): array for name, array in arrays.items() if name.startswith("mask/")},
    )
