"""What each family of the engine `fast` takes on one field, next to its floor, and the cost of a field against cells.

Floors are operations, not wishes: texture must raise five counters for each pixel pair (the cell, two single levels, a
sum, a difference), and a core stores once a cycle; granularity must read each pixel twice a step and write it once,
four cycles. They are turned into time at 3 GHz.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from profiling.engines import fast_field, pipeline_settings
from profiling.engines.families import (
    areashape,
    colocalization,
    granularity,
    image_quality,
    intensity,
    pixel_order,
    radial,
    texture,
)
from profiling.engines.families.regions import Regions, regions
from profiling.engines.pipeline_steps import read_plan
from service.painted_fields import CHANNELS, paint

_GHZ = 3.0
_DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1))


def _median_ms(task: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        task()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def families(picture: Float32[np.ndarray, "c h w"], settings: str, repeats: int) -> dict[str, Any]:
    """Milliseconds a field of each family, all objects and the picture together, and of the whole engine."""
    plan = read_plan(settings)
    planes = dict(zip(CHANNELS, picture, strict=True))
    field = fast_field.measure_field(plan, planes)
    found = {name: regions(objects.labels) for name, objects in field.objects.items()}
    orders = {name: pixel_order.rising(plane) for name, plane in planes.items()}
    out: dict[str, Any] = {
        "whole field": {"ms": _median_ms(lambda: fast_field.measure_field(plan, planes), repeats)},
        "sorting": {"ms": _median_ms(lambda: [pixel_order.rising(p) for p in planes.values()], repeats)},
    }
    for step in plan.steps:
        task = _task(step, found, planes, orders)
        if task is not None:
            name = type(step).__name__
            out[name] = {"ms": out.get(name, {"ms": 0.0})["ms"] + _median_ms(task, repeats)}
            if isinstance(step, pipeline_settings.Texture):
                _note(out[name], _pairs(step, found, picture.shape[-2:]) * len(step.images), 5 / _GHZ, "pixel pairs")
            if isinstance(step, pipeline_settings.Granularity):
                side = step.subsample if step.subsample < 1 else 1.0
                pixels = picture.shape[-1] * picture.shape[-2] * side * side * step.spectrum * len(step.images)
                _note(out[name], int(pixels), 4 / _GHZ, "pixels and steps")
    return out


def _note(row: dict[str, Any], count: int, floor_ns: float, what: str) -> None:
    row["count"], row["floor_ms"] = count, count * floor_ns / 1e6
    row["note"] = (
        f": {count / 1e6:.1f} million {what}, {1e6 * row['ms'] / count:.2f} ns each; floor {row['floor_ms']:.1f} ms"
    )


def _pairs(step: pipeline_settings.Texture, found: dict[str, Regions], shape: tuple[int, ...]) -> int:
    """Pixel pairs of one channel: inside objects, and of the picture."""
    total = 0
    for distance in step.scales:
        for dy, dx in _DIRECTIONS:
            y, x = dy * distance, dx * distance
            if step.where != "Objects":
                total += (shape[0] - y) * (shape[1] - abs(x))
            for name in step.objects if step.where != "Images" else ():
                labels = found[name].labels
                here = labels[: shape[0] - y, max(0, -x) : shape[1] - max(0, x)]
                there = labels[y:, max(0, x) : shape[1] - max(0, -x)]
                total += int(((here == there) & (here > 0)).sum())
    return total


def _task(
    step: object, found: dict[str, Regions], planes: dict[str, np.ndarray], orders: dict[str, np.ndarray]
) -> Callable[[], object] | None:
    """What the engine does for a step, or None for one that is not timed alone."""
    if isinstance(step, pipeline_settings.Texture):
        return lambda: [
            texture.measure_image(planes, step),
            *(texture.measure(found[n], planes, step) for n in step.objects),
        ]
    if isinstance(step, pipeline_settings.Granularity):
        return lambda: granularity.measure_all({n: found[n] for n in step.objects}, planes, step)
    if isinstance(step, pipeline_settings.Intensity):
        return lambda: [intensity.measure(found[n], planes, step, orders=orders) for n in step.objects]
    if isinstance(step, pipeline_settings.Colocalization):
        costes = colocalization.thresholds(planes, step)
        return lambda: [
            colocalization.measure(found[n], planes, step, orders=orders, costes=costes) for n in step.objects
        ]
    if isinstance(step, pipeline_settings.Distribution):
        return lambda: [radial.measure(found[n], planes, step) for n, _, _ in step.centres]
    if isinstance(step, pipeline_settings.ImageQuality):
        return lambda: image_quality.measure_image(planes, step, orders=orders)
    if isinstance(step, pipeline_settings.SizeShape):
        return lambda: [areashape.measure(found[n], step) for n in step.objects]
    return None


def curve(cells: Sequence[int], size: int, settings: str, repeats: int) -> dict[str, Any]:
    """Seconds of a field of size² pixels against the cells found in it, and the line through the points."""
    plan = read_plan(settings)
    points = []
    for wanted in cells:
        planes = dict(zip(CHANNELS, paint(1, wanted, size, scale=1.5)[0], strict=True))
        count = fast_field.measure_field(plan, planes).objects["Cells"].count
        ms = _median_ms(lambda planes=planes: fast_field.measure_field(plan, planes), repeats)  # type: ignore[misc]
        points.append({"cells": count, "s_per_field": ms / 1e3})
    x, y = (np.array([point[key] for point in points]) for key in ("cells", "s_per_field"))
    if len(points) < 2:
        return {"points": points} | dict.fromkeys(("ms_per_cell", "fixed_ms", "r2", "residual"), float("nan"))
    slope, fixed = np.polyfit(x, y, 1)
    rest = y - (slope * x + fixed)
    r2 = 1 - float((rest**2).sum() / ((y - y.mean()) ** 2).sum())
    return {
        "points": points,
        "ms_per_cell": 1e3 * float(slope),
        "fixed_ms": 1e3 * float(fixed),
        "r2": r2,
        "residual": float((np.abs(rest) / y).max()),  # of the farthest point, as a share of its time
    }
