"""One field through cp_measure, and the loop of its worker process.

Objects are those of the pipeline file, found by `profiling.segment`, because cp_measure has no segmentation; families
and their settings are the pipeline's too. Started by `profiling.engines.cp_measure` as
`python -m profiling.engines.cp_measure_field '{"pipeline": …, "packages": …}'`.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer

from profiling import segment
from profiling.engines import cp_measure_names as names
from profiling.engines import pipeline_settings as settings
from profiling.engines.cellprofiler_worker import frames
from profiling.engines.families import location
from profiling.engines.pipeline_steps import Plan, read_plan

Values = Mapping[str, np.ndarray]
_NOT_MEASURED = (settings.ImageQuality, settings.Neighbours, segment.Primary, segment.Secondary, segment.Tertiary)


def find_objects(
    plan: Plan, planes: Mapping[str, Float32[np.ndarray, "h w"]], given: Mapping[str, Integer[np.ndarray, "h w"]]
) -> dict[str, Int32[np.ndarray, "h w"]]:
    """Label images of all objects that the plan makes; `given` ones take the place of what it would find."""
    found = {name: segment.Objects.of(labels) for name, labels in given.items()}
    for step in plan.steps:
        if isinstance(step, segment.Primary) and step.objects not in found:
            found[step.objects] = segment.identify_primary(planes[step.image], step)[0]
        elif isinstance(step, segment.Secondary) and step.objects not in found:
            cells, left, _ = segment.identify_secondary(planes[step.image], found[step.primary], step)
            found[step.objects] = cells
            if left is not None:
                found.setdefault(step.new_primary, left)
        elif isinstance(step, segment.Tertiary) and step.objects not in found:
            found[step.objects] = segment.identify_tertiary(found[step.larger], found[step.smaller], step)
    return {name: objects.labels for name, objects in found.items()}


class CpMeasure:
    """cp_measure's functions, from its own folder of packages."""

    def __init__(self, packages: Path, *, numba: bool = True) -> None:
        if str(packages) not in sys.path:
            sys.path.append(str(packages))  # last: numpy, scipy and scikit-image stay ours
        importlib.import_module("cp_measure").set_accelerator("numba" if numba else None)
        # The convention of CellProfiler for quartiles; labels are numbered 1 to n here.
        bulk: ModuleType = importlib.import_module("cp_measure.bulk")
        self.core = bulk.get_core_measurements(legacy=True, sanitize=False)
        self.pairs: ModuleType = importlib.import_module("cp_measure.core.measurecolocalization")

    def measure(
        self,
        plan: Plan,
        planes: Mapping[str, Float32[np.ndarray, "h w"]],
        labels: Int32[np.ndarray, "h w"],
        objects: str,
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """Columns of one kind of object whose labels are 1 to n, n > 0."""
        out: dict[str, np.ndarray] = {}
        for step in plan.steps:
            if isinstance(step, settings.Distribution):
                of = {name for name, _, _ in step.centres}
            elif isinstance(step, _NOT_MEASURED):
                continue
            else:
                of = set(step.objects)
            if objects in of:
                for name, values in self._step(step, planes, labels):
                    out[name] = np.asarray(values, np.float64)
        return out

    def _step(
        self, step: settings.Step, planes: Mapping[str, np.ndarray], labels: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        core = self.core
        if isinstance(step, settings.SizeShape):
            shapes = core["sizeshape"](labels, None, calculate_advanced=step.advanced) | core["feret"](labels, None)
            shapes |= core["zernike"](labels, None) if step.zernikes else {}
            yield from ((names.shape(name), values) for name, values in shapes.items())
        elif isinstance(step, settings.Colocalization):
            yield from self._colocalization(step, planes, labels)
        elif not isinstance(step, settings.Intensity | settings.Distribution | settings.Granularity | settings.Texture):
            return
        else:
            for channel in step.images:
                yield from self._channel(step, channel, planes[channel], labels)

    def _channel(
        self,
        step: settings.Intensity | settings.Distribution | settings.Granularity | settings.Texture,
        channel: str,
        plane: np.ndarray,
        labels: np.ndarray,
    ) -> Iterator[tuple[str, np.ndarray]]:
        core = self.core
        if isinstance(step, settings.Intensity):
            yield from ((names.intensity(k, channel), v) for k, v in core["intensity"](labels, plane).items())
        elif isinstance(step, settings.Granularity):
            spectrum = core["granularity"](
                labels,
                plane,
                subsample_size=step.subsample,
                image_sample_size=step.background,
                element_size=step.radius,
                granular_spectrum_length=step.spectrum,
            )
            yield from ((names.granularity(k, channel), v) for k, v in spectrum.items())
        elif isinstance(step, settings.Texture):
            for scale in step.scales if step.where != "Images" else ():
                found = core["texture"](labels, plane, scale=scale, gray_levels=step.levels)
                yield from ((names.texture(k, channel), v) for k, v in found.items())
        else:
            for bins in step.bins:
                rings = core["radial_distribution"](
                    labels, plane, scaled=bins.scaled, bin_count=bins.count, maximum_radius=bins.radius
                )
                yield from ((names.radial(k, channel), v) for k, v in rings.items())
            if step.zernikes != "None":
                moments = core["radial_zernikes"](labels, plane, zernike_degree=step.degree)
                for name, values in moments.items():
                    if step.zernikes != "Magnitudes only" or "Phase" not in name:
                        yield names.radial_zernike(name, channel), values

    def _colocalization(
        self, step: settings.Colocalization, planes: Mapping[str, np.ndarray], labels: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        pairs: Any = self.pairs
        share = {"thr": round(100 * step.share)}  # per cent of the maximum
        chosen: list[tuple[bool, Any, dict[str, int]]] = [
            (step.correlation, pairs.get_correlation_pearson, {}),
            (step.manders, pairs.get_correlation_manders_fold, share),
            (step.rwc, pairs.get_correlation_rwc, share),
            (step.overlap, pairs.get_correlation_overlap, share),
            (step.costes, pairs.get_correlation_costes, share | {"scale_max": 65535}),
        ]
        for first, second in itertools.combinations(step.images, 2):
            for wanted, function, more in chosen:
                if wanted:
                    found = function(planes[first], planes[second], labels, **more)
                    yield from ((names.colocalization(k, first, second), v) for k, v in found.items())


class Field:
    """A plan and cp_measure, run on one field after another."""

    def __init__(self, pipeline: Path, packages: Path, numba: bool) -> None:
        self.plan = read_plan(pipeline)
        self._cp_measure = CpMeasure(packages, numba=numba)
        self._columns: dict[str, dict[str, list[str]]] = {}

    def columns(self, channels: Sequence[str], objects: Sequence[str]) -> dict[str, list[str]]:
        """Columns of each kind of object, also for a field without any: measured on one square."""
        key = ",".join([*channels, "|", *objects])
        if key not in self._columns:
            plane = np.random.default_rng(0).random((64, 64), dtype=np.float32)
            planes = dict.fromkeys(channels, plane)
            square = np.zeros((64, 64), np.int32)
            square[16:48, 16:48] = 1
            of = {name: list(self._cp_measure.measure(self.plan, planes, square, name)) for name in objects}
            self._columns[key] = {
                name: [*columns, *(f"Parent_{o}" for o in self._parents(name, objects))] for name, columns in of.items()
            }
        return self._columns[key]

    def _parents(self, name: str, objects: Sequence[str]) -> list[str]:
        order = [o for o in ("Nuclei", "Cells", "Cytoplasm") if o in objects]
        return order[: order.index(name)] if name in order else []

    def measure(
        self, picture: np.ndarray, channels: Sequence[str], given: Values, objects: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """`values/<object>` float64 [n, k] and `mask/<object>` uint16 [h, w]."""
        planes = {name: np.ascontiguousarray(plane) for name, plane in zip(channels, picture, strict=True)}
        found = find_objects(self.plan, planes, given)
        columns = self.columns(channels, objects)
        out: dict[str, np.ndarray] = {}
        for name in objects:
            labels = found[name]
            table = np.full((int(labels.max(initial=0)), len(columns[name])), np.nan)
            present = np.unique(labels[labels > 0])  # a cytoplasm may have no pixel: its row stays empty
            if len(present):
                numbered = np.searchsorted(present, labels).astype(np.int32) + 1
                values = self._cp_measure.measure(self.plan, planes, np.where(labels > 0, numbered, 0), name)
                for k, column in enumerate(columns[name]):
                    if column in values:
                        table[present - 1, k] = values[column]
            for parent in self._parents(name, objects):
                of, _ = location.parents(found[parent], labels, int(found[parent].max(initial=0)), len(table))
                table[:, columns[name].index(f"Parent_{parent}")] = of
            out[f"values/{name}"] = table
            out[f"mask/{name}"] = labels.astype(np.uint16)
        return out


def main(config: dict[str, Any]) -> int:
    """Says hello, then answers each picture until the client closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints goes to the log
    warnings.simplefilter("ignore")
    field = Field(Path(config["pipeline"]), Path(config["packages"]), config["numba"])

    def send(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        answers.write(frames.encode(header, arrays))
        answers.flush()

    send({"hello": "cp_measure"})
    while len(prefix := requests.read(frames.PREFIX.size)) == frames.PREFIX.size:
        (length,) = frames.PREFIX.unpack(prefix)
        body = requests.read(length)
        if len(body) < length:
            break
        header, arrays = frames.decode(body)
        given = {name.removeprefix("given/"): a for name, a in arrays.items() if name.startswith("given/")}
        try:
            out = field.measure(arrays["picture"], header["channels"], given, header["objects"])
            columns = field.columns(header["channels"], header["objects"])
        except Exception as error:
            send({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else repr(error)}"})
            continue
        send({"columns": columns}, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
