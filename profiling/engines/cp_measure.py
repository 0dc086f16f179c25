"""The engine `cp_measure`: the package of that name (Muñoz et al. 2025, arXiv:2507.01163), for comparison.

It has CellProfiler's measurements as functions, and no segmentation: objects are found by `profiling.segment` as the
same pipeline file says. Columns with CellProfiler's meaning have CellProfiler's names, others begin with "cp_measure_"
(`cp_measure_names`). Neighbours and image quality are not measured. It is not CellProfiler: RadialDistribution breaks
ties otherwise, RWC and Costes are other numbers.
"""

from __future__ import annotations

import hashlib
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

from profiling.engines import cp_measure_packages as packages
from profiling.engines import settings as pipelines
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures, check_masks, check_pictures, unusable
from profiling.engines.pipeline_steps import read_plan
from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
#: Raised by hand when a change moves a measurement: it is part of the engine's hash.
REVISION = 1
START_TIMEOUT_S = 300.0
ATTEMPTS = 2  # a picture whose worker died or hung is tried once more
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class CpMeasureEngine:
    """Measures pictures with cp_measure; a context manager, one process a worker, warm until the engine closes.

    settings: a name of `settings.SETTINGS`, or the path of a .cppipe file; families and their settings are the
    pipeline's. numba: cp_measure's own compiled kernels. masks: also return label images. objects: which of the
    pipeline's objects to report. timeout_s: longest time for one picture.

    Raises:
        InvalidSettings: no such pipeline, or a module that is not known here. CpMeasureMissing: not installed.
        ValueError: workers or timeout_s not positive.
    """

    def __init__(
        self,
        settings: str | Path = "sim128",
        workers: int = 2,
        timeout_s: float = 120.0,
        *,
        masks: bool = False,
        objects: Sequence[str] = OBJECTS,
        numba: bool = True,
        folder: Path | None = None,
    ) -> None:
        if workers < 1 or timeout_s <= 0:
            raise ValueError(f"workers and timeout_s must be positive, got {workers} and {timeout_s}")
        self._pipeline = pipelines.pipeline(settings)
        self._channels = read_plan(settings).channels
        self._config = {
            "pipeline": str(self._pipeline),
            "packages": str(packages.installed(folder)),
            "numba": numba,
        }
        self._masks, self._objects, self._timeout_s = masks, tuple(objects), timeout_s
        self._workers: list[WorkerProcess | None] = [None] * workers
        self._busy = threading.Lock()

    @property
    def hash(self) -> str:
        """sha256 of the pipeline file, the pinned packages, whether numba is on, and the engine's revision."""
        content = {
            "engine": "cp_measure",
            "revision": REVISION,
            "pipeline": hashlib.sha256(self._pipeline.read_bytes()).hexdigest(),
            "pins": packages.pins(),
            "numba": self._config["numba"],
            "objects": self._objects,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __enter__(self) -> CpMeasureEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in range(len(self._workers)):
            self._stop(place)

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """One FieldMeasurement a picture, in the pictures' order; a bad picture never stops the others.

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
        """As `measure`, on given objects: `labels` are label images by object name, 1 to n the objects.

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
        if missing := sorted(set(self._channels) - set(channels)):
            raise InvalidPictures(f"channels: the pipeline needs {', '.join(missing)} too, got {', '.join(channels)}")
        tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
        for i in range(len(pictures)):
            tasks.put(i)
        answers: queue.Queue[tuple[int, FieldMeasurement] | BaseException] = queue.Queue()

        def work(place: int) -> None:
            try:
                while True:
                    i = tasks.get_nowait()
                    given = {name: np.asarray(masks[i], np.int32) for name, masks in labels.items()}
                    answers.put((i, self._one(place, pictures[i], channels, given)))
            except queue.Empty:
                return
            except BaseException as error:
                answers.put(error)

        results: dict[int, FieldMeasurement] = {}
        with self._busy:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(min(len(self._workers), len(pictures)))]
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
                while not tasks.empty():
                    tasks.get_nowait()
                for thread in threads:
                    thread.join()
        return [results[i] for i in range(len(pictures))]

    def _one(
        self, place: int, picture: np.ndarray, channels: Sequence[str], given: Mapping[str, np.ndarray]
    ) -> FieldMeasurement:
        if reason := unusable(picture):
            return FieldMeasurement("failed", reason)
        header = {"channels": list(channels), "objects": list(self._objects)}
        for _ in range(ATTEMPTS):
            try:
                worker = self._worker(place)
                worker.send(header, {"picture": picture} | {f"given/{k}": v for k, v in given.items()}, self._timeout_s)
                told, arrays = worker.receive(self._timeout_s)
            except (WorkerDied, WorkerHung) as error:
                reason = str(error)
                self._stop(place)
                continue
            return FieldMeasurement("failed", str(told["error"])) if "error" in told else self._assemble(told, arrays)
        return FieldMeasurement("failed", f"{reason} ({ATTEMPTS} attempts)")

    def _assemble(
        self, told: Mapping[str, Mapping[str, list[str]]], arrays: Mapping[str, np.ndarray]
    ) -> FieldMeasurement:
        columns = told["columns"]
        tables = {name: ObjectTable(tuple(columns[name]), arrays[f"values/{name}"]) for name in self._objects}
        empty = [name for name, table in tables.items() if not len(table.values)]
        return FieldMeasurement(
            outcome="no_cells" if empty else "ok",
            reason=f"no {', '.join(empty)} found" if empty else "",
            objects=tables,
            image={f"Count_{name}": float(len(table.values)) for name, table in tables.items()},
            masks={name: arrays[f"mask/{name}"] for name in self._objects} if self._masks else {},
        )

    def _worker(self, place: int) -> WorkerProcess:
        worker = self._workers[place]
        if worker is None:
            command = [sys.executable, "-m", "profiling.engines.cp_measure_field", json.dumps(self._config)]
            path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
            variables = dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": path.rstrip(os.pathsep)}
            worker = WorkerProcess(command, dict(os.environ) | variables)
            self._workers[place] = worker
            try:
                worker.receive(START_TIMEOUT_S)
            except (WorkerDied, WorkerHung) as error:
                self._stop(place)
                raise packages.CpMeasureMissing(
                    f"cp_measure does not start: {error}; run `dopaint setup cpmeasure`"
                ) from error
        return worker

    def _stop(self, place: int) -> None:
        if (worker := self._workers[place]) is not None:
            worker.kill()
            self._workers[place] = None
