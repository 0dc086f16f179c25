"""What the engine `fast` does with a field before a batch of them goes to a device: objects, and what follows one pixel
after the other.

Objects are found (their labels are CellProfiler's pixel by pixel; growing and declumping are priority queues, which a
device would not repeat to the label), with their places, parents, neighbours, convex hulls and the choice among tied
maxima. Everything that reads all pixels of all channels is left to `families_torch`. No torch here: a process that
prepares stays small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer

from profiling.engines import fast_field
from profiling.engines import pipeline_settings as settings
from profiling.engines.families import areashape, colocalization, edge_distance, tie_order
from profiling.engines.families.regions import Regions, regions
from profiling.engines.pipeline_steps import Plan

#: Steps that are measured on the device.
ON_DEVICE = (
    settings.ImageQuality, settings.Colocalization, settings.Granularity, settings.Intensity, settings.Distribution,
    settings.SizeShape, settings.Texture,
)  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """One field before its batch.

    tables: by objects, [n, k] in the order of `fast_field.columns`, NaN where the device measures; image: likewise.
    labels: of every kind of object. extras: `hull/<objects>` [n, 6], `centre/<objects>` [n] and
    `brightest/<objects>/<channel>` [n] (places in the raveled field), `costes/<a>/<b>` [2].
    """

    tables: Mapping[str, Float[np.ndarray, "_ _"]]
    image: Float[np.ndarray, " _"]
    labels: Mapping[str, Int32[np.ndarray, "h w"]]
    extras: Mapping[str, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """As named arrays, for a message."""
        out = {f"table/{name}": table for name, table in self.tables.items()}
        out |= {f"labels/{name}": labels for name, labels in self.labels.items()}
        return out | {f"extra/{name}": extra for name, extra in self.extras.items()} | {"image": self.image}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Prepared:
        """From named arrays."""

        def under(start: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}

        return cls(under("table/"), arrays["image"], under("labels/"), under("extra/"))


def prepare(
    plan: Plan,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    given: Mapping[str, Integer[np.ndarray, "h w"]],
    wanted: Sequence[str],
    *,
    stable: bool,
) -> Prepared:
    """One field, its pictures by channel in [0, 1]; the other arguments as of `fast_field.measure_field`."""
    found = fast_field.measure_field(plan, pictures, given, wanted, stable=stable, skip=ON_DEVICE)
    image = dict(found.image)
    of = {name: regions(objects.labels) for name, objects in found.objects.items()}
    extras: dict[str, np.ndarray] = {}
    for step in plan.steps:
        owners = [name for name in fast_field.owners_of(step) if name in of]
        if isinstance(step, settings.Colocalization):
            names, values = colocalization.image_names(step), colocalization.measure_image(pictures, step)
            image.update(zip(names, values.tolist(), strict=True))
            for (a, b), limits in colocalization.thresholds(pictures, step).items():
                extras[f"costes/{a}/{b}"] = np.array(limits, np.float64)
        elif isinstance(step, settings.SizeShape | settings.Distribution):
            for owner in owners:
                extras[f"hull/{owner}"] = areashape.hull_parts(of[owner])
                if isinstance(step, settings.Distribution) and not stable:
                    extras[f"centre/{owner}"] = _centres(of[owner])
        elif isinstance(step, settings.Intensity) and not stable:
            for owner in owners:
                for channel in step.images:
                    extras[f"brightest/{owner}/{channel}"] = _brightest(of[owner], pictures[channel])
    labels = {name: objects.labels for name, objects in found.objects.items()}
    return Prepared(found.tables, np.array(list(image.values())), labels, extras)


def _centres(of: Regions) -> np.ndarray:
    squared = edge_distance.squared_to_edge(of)
    return tie_order.maximum_places(squared.ravel(), of.labels.ravel(), of.n)


def _brightest(of: Regions, picture: Float32[np.ndarray, "h w"]) -> np.ndarray:
    labels, flat = of.labels.ravel(), np.ascontiguousarray(picture).ravel()
    inside = np.flatnonzero(labels)
    places = tie_order.maximum_places(flat[inside], labels[inside], of.n)
    return np.where(places >= 0, inside[places], -1) if inside.size else places
