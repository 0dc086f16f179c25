"""The engine `fast`: CellProfiler's columns and, to rounding, its values, measured by our own compiled kernels.

It reads the same pipeline files and answers as the engine `cellprofiler` does. One worker measures in this process,
more of them each in a process of its own, warm until the engine closes. A picture's numbers depend on the picture and
the settings alone. What the values agree with, and where not, is in docs/fast_parity.md.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float32, Integer

from profiling.engines import fast_field
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures, check_masks, check_pictures, unusable
from profiling.engines.pipeline_steps import Plan, read_plan
from profiling.engines.settings import InvalidSettings
from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
#: Raised by hand when a change moves a measurement: it is part of the engine's hash.
REVISION = 1
PACKAGES = ("numba", "numpy", "scipy")
START_TIMEOUT_S = 300.0  # the first start after an installation compiles the kernels
ATTEMPTS = 2  # a picture whose worker died or hung is tried once more
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class FastEngine:
    """Measures pictures; a context manager, whose processes live until it closes.

    settings: a name of `settings.SETTINGS`, or the path of a .cppipe file. workers: cores. masks: also return label
    images. objects: which of the pipeline's objects to report; None: all. stable: the well-defined value where
    CellProfiler's is an artefact (ties, rounding noise; docs/fast_parity.md lists them) instead of CellProfiler's.
    timeout_s: longest time for one picture, where there is more than one worker.

    Raises:
        InvalidSettings: no such pipeline, a module that this engine does not have, or unknown objects. ValueError:
        workers or timeout_s not positive.
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
        self._masks, self._stable, self._timeout_s = masks, stable, timeout_s
        self._workers: list[WorkerProcess | None] = [None] * (workers if workers > 1 else 0)
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
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers that run now."""
        return tuple(worker.pid for worker in self._workers if worker is not None)

    def __enter__(self) -> FastEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Waits until every worker is up; `measure` does so by itself."""
        for place in range(len(self._workers)):
            self._worker(place)

    def close(self) -> None:
        """Ends the workers; the engine starts new ones if it is asked again."""
        for place in range(len(self._workers)):
            self._stop(place)

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
        answers: queue.Queue[tuple[int, FieldMeasurement] | BaseException] = queue.Queue()
        tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(pictures)):
            tasks.put(i)
        stop = threading.Event()

        def work(place: int | None) -> None:
            while not stop.is_set():
                try:
                    i = tasks.get_nowait()
                except queue.Empty:
                    return
                try:
                    given = {name: masks[i] for name, masks in labels.items()}
                    answers.put((i, self._measure_one(place, pictures[i], channels, given)))
                except BaseException as error:
                    answers.put(error)
                    return

        places: list[int | None] = list(range(len(self._workers))) or [None]
        results: dict[int, FieldMeasurement] = {}
        with self._busy:
            threads = [threading.Thread(target=work, args=(place,)) for place in places[: len(pictures)]]
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

    def _measure_one(
        self, place: int | None, picture: np.ndarray, channels: Sequence[str], given: Mapping[str, np.ndarray]
    ) -> FieldMeasurement:
        reason = unusable(picture)
        if reason:
            return FieldMeasurement("failed", reason)
        if place is None:
            try:
                arrays = answer(self._plan, picture, channels, given, self._objects, self._stable)
            except Exception as error:
                return FieldMeasurement("failed", f"{type(error).__name__}: {error}")
            return self._assemble(arrays)
        header = {"channels": list(channels), "objects": list(self._objects), "stable": self._stable}
        for _ in range(ATTEMPTS):
            try:
                worker = self._worker(place)
                sent = {"picture": picture} | {f"given/{name}": labels for name, labels in given.items()}
                worker.send(header, sent, self._timeout_s)
                told, arrays = worker.receive(self._timeout_s)
            except (WorkerDied, WorkerHung) as error:
                reason = str(error)
                self._stop(place)
                continue
            return FieldMeasurement("failed", str(told["error"])) if "error" in told else self._assemble(arrays)
        return FieldMeasurement("failed", f"{reason} ({ATTEMPTS} attempts)")

    def _assemble(self, arrays: Mapping[str, np.ndarray]) -> FieldMeasurement:
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

    def _worker(self, place: int) -> WorkerProcess:
        worker = self._workers[place]
        if worker is None:
            config = {"pipeline": str(self._plan.path)}
            command = [sys.executable, "-m", "profiling.engines.fast_worker", json.dumps(config)]
            path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
            worker = WorkerProcess(
                command, dict(os.environ) | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": path.rstrip(os.pathsep)}
            )
            self._workers[place] = worker
            worker.receive(START_TIMEOUT_S)
        return worker

    def _stop(self, place: int) -> None:
        worker = self._workers[place]
        if worker is not None:
            worker.kill()
            self._workers[place] = None


def answer(
    plan: Plan,
    picture: np.ndarray,
    channels: Sequence[str],
    given: Mapping[str, np.ndarray],
    objects: Sequence[str],
    stable: bool,
) -> dict[str, np.ndarray]:
    """One picture's arrays: `values/<object>` float64 [n, k], `mask/<object>` uint16 [h, w], `image` float64 [k]."""
    planes = dict(zip(channels, picture, strict=True))
    found = fast_field.measure_field(plan, planes, given, objects, stable=stable)
    out = {f"values/{name}": found.tables[name] for name in objects}
    out |= {f"mask/{name}": found.objects[name].labels.astype(np.uint16) for name in objects}
    return out | {"image": np.array(list(found.image.values()))}
