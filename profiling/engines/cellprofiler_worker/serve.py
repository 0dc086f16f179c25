"""The worker's loop: one picture in, its measurements out, until the pipe closes."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from profiling.engines.cellprofiler_worker import frames, processor, shim

#: Packages whose release can move a measurement; the client compares them with the pins.
PACKAGES = ("cellprofiler", "cellprofiler-core", "centrosome", "mahotas", "numpy", "scikit-image", "scipy")


class Field:
    """A pipeline that is loaded once and then run on one field after another."""

    def __init__(self, pipeline: Path, kernels: bool) -> None:
        shim.install()
        from cellprofiler_core.preferences import set_headless

        set_headless()
        from profiling.engines.cellprofiler_worker import given_masks
        from profiling.engines.cellprofiler_worker import pipeline as pipelines
        from profiling.engines.cellprofiler_worker.storage import DictMeasurements

        self._run, self._new, self._complete = pipelines.run, DictMeasurements, given_masks.complete
        self.pipeline = pipelines.load(pipeline)
        self.columns = pipelines.measured_columns(self.pipeline)
        self.images = pipelines.input_images(self.pipeline)
        if kernels:
            from profiling.engines.cellprofiler_worker import kernels as own

            own.install()

    def measure(
        self, planes: dict[str, np.ndarray], objects: list[str], masks: bool, given: dict[str, np.ndarray]
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Features of the whole picture, and arrays: `values/<object>` float64 [n, k], `mask/<object>` [h, w].

        `given`: label images that take the place of what the pipeline would find.
        """
        measurements = self._new()
        try:
            found = self._run(self.pipeline, planes, measurements, given, tuple(objects))
            if given:
                self._complete(found, measurements, self.columns, given)
            table = measurements.table
        finally:
            measurements.close()
        arrays: dict[str, np.ndarray] = {}
        for name in objects:
            labels = found.get_objects(name).segmented
            arrays[f"values/{name}"] = columns_to_matrix(table.get(name, {}), self.columns[name], int(labels.max()))
            if masks:
                arrays[f"mask/{name}"] = labels.astype(np.uint16)
        whole = {name: scalar(table.get("Image", {}).get(name)) for name in self.columns["Image"]}
        return whole, arrays


def columns_to_matrix(table: dict[str, Any], names: list[str], n: int) -> np.ndarray:
    """Columns in the declared order, float64 [n, k]; what a module declared and did not measure is NaN."""
    matrix = np.full((n, len(names)), np.nan)
    for k, name in enumerate(names):
        if name in table:
            column = np.asarray(table[name], float).ravel()[:n]
            matrix[: len(column), k] = column
    return matrix


def scalar(value: Any) -> float:
    """A measurement of the whole picture; NaN where it was not measured."""
    return float("nan") if value is None else float(np.asarray(value, float).ravel()[0])


def _read(pipe: BinaryIO, n: int) -> bytes | None:
    body = pipe.read(n)
    return body if len(body) == n else None


def main(config: dict[str, Any]) -> int:
    """Announces itself with versions and columns, then answers each picture until the client closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # modules print: that goes to the log
    sys.stdout = sys.stderr
    logging.disable(logging.ERROR)  # among others, that MySQL is absent, each time a module looks for it
    warnings.simplefilter("ignore")

    def send(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        answers.write(frames.encode(header, arrays))
        answers.flush()

    try:
        field = Field(Path(config["pipeline"]), config["kernels"])
    except ValueError as error:
        from profiling.engines.cellprofiler_worker.pipeline import Refused  # cannot load before the shim

        if not isinstance(error, Refused):
            raise
        send({"refused": str(error)})
        return 1
    processor.check()
    send(
        {
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
            "columns": field.columns,
            "images": field.images,
        }
    )
    processor.limit_memory(config["memory_mib"])
    while (prefix := _read(requests, frames.PREFIX.size)) is not None:
        body = _read(requests, frames.PREFIX.unpack(prefix)[0])
        if body is None:
            break
        header, arrays = frames.decode(body)
        planes = dict(zip(header["channels"], arrays.pop("picture"), strict=True))
        given = {name.removeprefix("given/"): labels for name, labels in arrays.items()}
        try:
            whole, out = field.measure(planes, header["objects"], header["masks"], given)
        except MemoryError:
            sys.stderr.write(f"out of memory: the picture needs more than the worker's {config['memory_mib']:g} MiB\n")
            return 1
        except Exception as error:
            send({"error": (str(error).splitlines() or [""])[0] or repr(error)})
            continue
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        send({"image_names": list(whole), "memory_mib": memory}, {"image": np.array(list(whole.values())), **out})
    return 0
