"""The engine `cp_measure`: the package of that name (Muñoz et al. 2025, arXiv:2507.01163), for comparison.

It has CellProfiler's measurements as functions, and no segmentation: objects are found by `profiling.segment` as the
same pipeline file says. Columns with CellProfiler's meaning have CellProfiler's names, others begin with "cp_measure_"
(`cp_measure_names`). Neighbours and image quality are not measured. It is not CellProfiler: RadialDistribution breaks
ties otherwise, RWC and Costes are other numbers.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float32, Integer

from profiling.engines import cp_measure_packages as packages
from profiling.engines import dispatch
from profiling.engines import settings as pipelines
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures, check_masks, check_pictures, unusable
from profiling.engines.pipeline_steps import read_plan
from profiling.engines.worker_slot import WorkerSlot, module

OBJECTS = ("Nuclei", "Cells", "Cytoplasm")
#: Raised by hand when a change moves a measurement: it is part of the engine's hash.
REVISION = 1


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
        self._masks, self._objects, self._limits = masks, tuple(objects), dispatch.Limits(timeout_s)
        self._slots = [
            WorkerSlot(
                partial(module, "profiling.engines.cp_measure_field", self._config),
                self._pipeline.name,
                packages.CpMeasureMissing,
                "cp_measure",
                "run `dopaint setup cpmeasure`",
            )
            for _ in range(workers)
        ]
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
        for slot in self._slots:
            slot.stop()

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
        given = {f"given/{name}": np.asarray(masks, np.int32) for name, masks in labels.items()}
        header = {"channels": list(channels), "objects": list(self._objects)}

        def one(slot: WorkerSlot, i: int) -> FieldMeasurement:
            if reason := unusable(pictures[i]):
                return FieldMeasurement("failed", reason)
            arrays = {"picture": pictures[i]} | {name: masks[i] for name, masks in given.items()}
            found = dispatch.ask(slot, lambda _: header, arrays, self._assemble, self._limits)
            return FieldMeasurement("failed", found) if isinstance(found, str) else found

        with self._busy:
            return dispatch.gather(len(pictures), dispatch.deal(len(pictures), self._slots, one), progress)

    def _assemble(
        self, _: Mapping[str, Any], told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
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
