"""The engine `cellprofiler`: CellProfiler 4.2.8.1 unchanged, headless, in its own environment, one warm process a
core.

Pictures go over pipes as arrays, never over disk. A picture's numbers depend on the picture and the settings alone: not
on the number of workers, the order, or what was measured before.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32

from profiling.engines import environment
from profiling.engines import settings as pipelines
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
WORKER = Path(__file__).resolve().parent / "cellprofiler_worker" / "__main__.py"
#: Raised by hand when a change of the worker moves a measurement: it is part of the engine's hash.
REVISION = 1
START_TIMEOUT_S = 300.0  # the first start after an installation compiles the kernels
ATTEMPTS = 2  # a picture whose worker died or hung is tried once more


class InvalidPictures(ValueError):
    """The array or its channel names cannot be pictures of these settings."""


class CellProfilerEngine:
    """Measures pictures with CellProfiler; a context manager, whose processes live until it closes.

    settings: "sim128", "jump", or the path of a .cppipe file (its modules that read or write files are skipped; images
    are taken by name). workers: processes, one a core. timeout_s: longest time for one picture. kernels: our compiled
    Haralick, reconstruction and colocalization loops inside CellProfiler's modules (equal to 5e-8 relative) instead of
    the stock ones. masks: also return label images. objects: which of the pipeline's objects to report.
    memory_limit_mib: a worker that has grown beyond it is replaced before its next picture.

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
        objects: Sequence[str] = OBJECTS,
        memory_limit_mib: float = 2000.0,
        venv: Path | None = None,
    ) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers and timeout_s must be positive, got {workers} and {timeout_s}")
        self._pipeline = pipelines.pipeline(settings)
        self._python = environment.interpreter(venv)
        self._timeout_s, self._kernels, self._masks = timeout_s, kernels, masks
        self._objects, self._memory_limit_mib = tuple(objects), memory_limit_mib
        self._slots: list[_Slot] = [_Slot(self._launch) for _ in range(workers)]
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
        _check(pictures, channels)
        answers: queue.Queue[tuple[int, FieldMeasurement] | BaseException] = queue.Queue()
        tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(pictures)):
            tasks.put(i)
        stop = threading.Event()

        def work(slot: _Slot) -> None:
            while not stop.is_set():
                try:
                    i = tasks.get_nowait()
                except queue.Empty:
                    return
                try:
                    answers.put((i, self._measure_one(slot, pictures[i], channels)))
                except BaseException as error:
                    answers.put(error)
                    return

        results: dict[int, FieldMeasurement] = {}
        with self._busy:
            threads = [threading.Thread(target=work, args=(slot,)) for slot in self._slots[: len(pictures)]]
            for thread in threads:
                thread.start()
            try:
                while len(results) < len(pictures):
                    answer = answers.get()
                    if isinstance(answer, BaseException):
                        raise answer
                    results[answer[0]] = answer[1]
                    if progress is not None:
                        progress(len(results))
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
        return [results[i] for i in range(len(pictures))]

    def _measure_one(self, slot: _Slot, picture: np.ndarray, channels: Sequence[str]) -> FieldMeasurement:
        reason = _unusable(picture)
        if reason:
            return FieldMeasurement("failed", reason)
        header = {"channels": list(channels), "objects": list(self._objects), "masks": self._masks}
        for _ in range(ATTEMPTS):
            worker, hello = slot.ready()
            _check_hello(hello, channels, self._objects)
            try:
                worker.send(header, {"picture": picture}, self._timeout_s)
                answer, arrays = worker.receive(self._timeout_s)
            except (WorkerDied, WorkerHung) as error:
                reason = str(error)
                slot.stop()
                continue
            if answer.get("memory_mib", 0.0) > self._memory_limit_mib:
                slot.stop()
            if "error" in answer:
                return FieldMeasurement("failed", str(answer["error"]))
            return _assemble(hello["columns"], answer, arrays, self._objects)
        return FieldMeasurement("failed", f"{reason} ({ATTEMPTS} attempts)")

    def _launch(self) -> WorkerProcess:
        config = {"pipeline": str(self._pipeline), "kernels": self._kernels}
        return WorkerProcess(
            [str(self._python), "-P", "-s", str(WORKER), json.dumps(config)],
            environment.worker_environment(self._python),
        )


class _Slot:
    """A place for one worker: started when first needed, replaced when it was stopped."""

    def __init__(self, launch: Callable[[], WorkerProcess]) -> None:
        self._launch = launch
        self.worker: WorkerProcess | None = None
        self._hello: dict[str, Any] | None = None

    def start(self) -> WorkerProcess:
        if self.worker is None:
            self.worker, self._hello = self._launch(), None
        return self.worker

    def ready(self) -> tuple[WorkerProcess, dict[str, Any]]:
        """The worker and what it said of itself, once it is up."""
        worker = self.start()
        if self._hello is None:
            try:
                self._hello, _ = worker.receive(START_TIMEOUT_S)
            except (WorkerDied, WorkerHung) as error:
                self.stop()
                raise environment.CellProfilerMissing(
                    f"CellProfiler does not start: {error}; reinstall it with `dopaint setup cellprofiler`, and check "
                    "the pipeline file if it is your own"
                ) from error
        return worker, self._hello

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.kill()
            self.worker = self._hello = None


def _check(pictures: np.ndarray, channels: Sequence[str]) -> None:
    if pictures.ndim != 4 or pictures.dtype != np.float32:
        raise InvalidPictures(
            f"pictures: got {pictures.dtype} with {pictures.ndim} dimensions, expected float32 [n, channels, h, w] in "
            "[0, 1]"
        )
    if len(channels) != pictures.shape[1] or len(set(channels)) != len(channels) or not all(channels):
        raise InvalidPictures(
            f"channels: got {list(channels)} for {pictures.shape[1]} channels, expected one distinct name a channel"
        )


def _check_hello(hello: dict[str, Any], channels: Sequence[str], objects: Sequence[str]) -> None:
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


def _unusable(picture: np.ndarray) -> str:
    """Why a picture cannot be measured, or an empty string."""
    if not picture.size:
        return "picture has no pixels"
    low, high = float(picture.min()), float(picture.max())
    if not np.isfinite([low, high]).all():
        return "picture has values that are not finite"
    if low < 0.0 or high > 1.0:
        return f"picture has values from {low:g} to {high:g}, expected 0 to 1"
    return ""


def _assemble(
    columns: dict[str, list[str]], answer: dict[str, Any], arrays: dict[str, np.ndarray], objects: Sequence[str]
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
