"""One field through the steps of a pipeline: objects found or given, every family measured, columns in the order of
CellProfiler.

Columns are those that the modules declare, module by module; a column that two modules declare keeps the first place
and the last value, as in CellProfiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Float32, Integer

from profiling import segment, threshold
from profiling.engines import pipeline_settings as settings
from profiling.engines.families import (
    areashape,
    colocalization,
    granularity,
    image_quality,
    intensity,
    location,
    neighbours,
    pixel_order,
    radial,
    texture,
)
from profiling.engines.families.regions import Regions, regions
from profiling.engines.pipeline_settings import Step
from profiling.engines.pipeline_steps import Plan

IMAGE = "Image"
Column = tuple[str, str]  # owner (objects or Image), feature


@lru_cache(maxsize=16)
def columns(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Owner (objects or "Image") → its features, in the order of CellProfiler."""
    out: dict[str, dict[str, None]] = {}
    for step in plan.steps:
        for owner, feature in _declared(step):
            out.setdefault(owner, {})[feature] = None
    return MappingProxyType({owner: tuple(names) for owner, names in out.items()})


def _declared(step: Step) -> list[Column]:
    if isinstance(step, segment.Primary):
        return [*_found(step.objects), *_thresholded(step.objects)]
    if isinstance(step, segment.Secondary):
        out = [*_found(step.objects), *_related(step.primary, step.objects)]
        if step.discard_edge and step.discard_primary:
            out += [*_found(step.new_primary), *_related(step.primary, step.new_primary)]
            out += _related(step.new_primary, step.objects)
        return out + (_thresholded(step.objects) if step.method != "Distance - N" else [])
    if isinstance(step, segment.Tertiary):
        out = [column for column in _found(step.objects) if column[1] != "Location_Center_Z"]
        return [*out, *_related(step.smaller, step.objects), *_related(step.larger, step.objects)]
    if isinstance(step, settings.Neighbours):
        return [(step.objects, name) for name in neighbours.names(step)]
    if isinstance(step, settings.ImageQuality):
        return [(IMAGE, name) for name in image_quality.image_names(step)]
    if isinstance(step, settings.Distribution):
        return [(owner, name) for owner, _, _ in step.centres for name in radial.names(step)]
    whole: tuple[str, ...] = ()
    if isinstance(step, settings.SizeShape):
        names = areashape.names(step)
    elif isinstance(step, settings.Colocalization):
        names, whole = colocalization.names(step), colocalization.image_names(step)
    elif isinstance(step, settings.Granularity):
        names, whole = granularity.names(step), granularity.image_names(step)
    elif isinstance(step, settings.Intensity):
        names = intensity.names(step)
    else:
        names, whole = texture.names(step), texture.image_names(step)
    return [(IMAGE, name) for name in whole] + [(owner, name) for owner in step.objects for name in names]


def _found(name: str) -> list[Column]:
    features = ("Location_Center_X", "Location_Center_Y", "Location_Center_Z", "Number_Object_Number")
    return [*((name, feature) for feature in features), (IMAGE, f"Count_{name}")]


def _related(parent: str, child: str) -> list[Column]:
    return [(parent, f"Children_{child}_Count"), (child, f"Parent_{parent}")]


def _thresholded(name: str) -> list[Column]:
    measures = ("FinalThreshold", "OrigThreshold", "WeightedVariance", "SumOfEntropies")
    return [(IMAGE, f"Threshold_{measure}_{name}") for measure in measures]


def owners_of(step: Step) -> tuple[str, ...]:
    """Names of the objects that a step measures."""
    if isinstance(step, settings.Distribution):
        return tuple(owner for owner, _, _ in step.centres)
    if isinstance(step, settings.Neighbours):
        return (step.objects,)
    if isinstance(step, settings.ImageQuality | segment.Primary | segment.Secondary | segment.Tertiary):
        return ()
    return step.objects


def made_by(step: Step) -> tuple[str, ...]:
    """Names of the objects that a step makes."""
    if isinstance(step, segment.Secondary):
        new = (step.new_primary,) if step.discard_edge and step.discard_primary else ()
        return (step.objects, *new)
    return (step.objects,) if isinstance(step, segment.Primary | segment.Tertiary) else ()


@dataclass
class _Record:
    """What one field has so far: values by owner and feature, and its objects."""

    pictures: Mapping[str, Float32[np.ndarray, "h w"]]
    stable: bool
    values: dict[str, dict[str, Float[np.ndarray, " n"]]] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)
    objects: dict[str, segment.Objects] = field(default_factory=dict)
    _regions: dict[str, Regions] = field(default_factory=dict)
    _orders: dict[str, np.ndarray] = field(default_factory=dict)

    def regions(self, name: str) -> Regions:
        if name not in self._regions:
            self._regions[name] = regions(self.objects[name].labels)
        return self._regions[name]

    def orders(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The pixels of each channel by rising value, sorted once for all families."""
        for name in names:
            if name not in self._orders:
                self._orders[name] = pixel_order.rising(self.pictures[name])
        return self._orders

    def add(self, owner: str, names: Sequence[str], table: Float[np.ndarray, "n k"]) -> None:
        self.values.setdefault(owner, {}).update(zip(names, table.T, strict=True))

    def image(self, names: Sequence[str], values: Sequence[float] | Float[np.ndarray, " k"]) -> None:
        self.whole.update(zip(names, np.asarray(values, float).tolist(), strict=True))

    def found(self, name: str, objects: segment.Objects) -> None:
        """Enters new objects with their place and number."""
        self.objects[name] = objects
        n = objects.count
        places = location.centres(self.regions(name))
        table = np.column_stack([places, np.zeros(n), np.arange(1, n + 1)])
        self.add(name, [feature for owner, feature in _found(name) if owner == name], table)
        self.image([f"Count_{name}"], [float(n)])

    def related(self, parent: str, child: str) -> None:
        a, b = self.objects[parent], self.objects[child]
        of, count = location.parents(a.labels, b.labels, a.count, b.count)
        self.add(child, [f"Parent_{parent}"], of[:, None].astype(float))
        self.add(parent, [f"Children_{child}_Count"], count[:, None].astype(float))

    def thresholded(self, name: str, image: str, fore: threshold.Foreground) -> None:
        picture = self.pictures[image]
        variance, entropies = (
            threshold.weighted_variance(picture, fore.mask),
            threshold.sum_of_entropies(picture, fore.mask),
        )
        self.image([feature for _, feature in _thresholded(name)], [fore.final, fore.found, variance, entropies])


@dataclass(frozen=True)
class Field:
    """Everything measured on one field, by owner; `objects` are its label images."""

    tables: dict[str, Float[np.ndarray, "n k"]]
    image: dict[str, float]
    objects: dict[str, segment.Objects]


def measure_field(
    plan: Plan,
    pictures: Mapping[str, Float32[np.ndarray, "h w"]],
    given: Mapping[str, Integer[np.ndarray, "h w"]] | None = None,
    wanted: Sequence[str] = (),
    *,
    stable: bool = False,
    skip: tuple[type[Step], ...] = (),
) -> Field:
    """All columns of one field, NaN where a step did not measure; `pictures` by channel, in [0, 1].

    Steps of the kinds in `skip` are left out: another device measures them.

    `given` label images take the place of what the plan would find: steps that make those objects are left out, and
    where they cover all `wanted` objects, every step that makes objects is.
    """
    given = given or {}
    record = _Record({name: np.ascontiguousarray(plane) for name, plane in pictures.items()}, stable)
    for name, labels in given.items():
        record.found(name, segment.Objects.of(labels))
    all_given = bool(given) and set(wanted) <= set(given)
    for step in plan.steps:
        made = made_by(step)
        if not (set(made) & set(given) or (made and all_given) or isinstance(step, skip)):
            _run(step, record)
    declared = columns(plan)
    if given:
        _complete(record, declared, given)
    tables = {}
    for owner, names in declared.items():
        if owner != IMAGE and owner in record.objects:
            n = record.objects[owner].count
            of = record.values.get(owner, {})
            missing = np.full(n, np.nan)
            tables[owner] = np.stack([of.get(name, missing) for name in names], axis=1)
    image = {name: record.whole.get(name, np.nan) for name in declared.get(IMAGE, ())}
    return Field(tables, image, record.objects)


def _complete(record: _Record, declared: Mapping[str, tuple[str, ...]], given: Mapping[str, object]) -> None:
    """The relations that steps left out would have noted."""
    for child, names in declared.items():
        for parent in list(record.objects):
            told = f"Parent_{parent}" in record.values.get(child, {})
            if f"Parent_{parent}" in names and child in record.objects and {child, parent} & set(given) and not told:
                record.related(parent, child)


def _run(step: Step, record: _Record) -> None:
    if isinstance(step, segment.Primary | segment.Secondary | segment.Tertiary):
        _identify(step, record)
        return
    pictures, stable = record.pictures, record.stable
    # Kinds of objects that nobody made, as all that are wanted were given, are not measured.
    owners = [name for name in owners_of(step) if name in record.objects]
    if isinstance(step, settings.Neighbours):
        if not owners or step.neighbours not in record.objects:
            return
        table = neighbours.measure(record.objects[step.objects], record.objects[step.neighbours], step)
        record.add(step.objects, neighbours.names(step), table)
    elif isinstance(step, settings.ImageQuality):
        orders = record.orders([image for group in step.groups for image in group.images])
        record.image(image_quality.image_names(step), image_quality.measure_image(pictures, step, orders=orders))
    elif isinstance(step, settings.Distribution):
        for owner in owners:
            record.add(owner, radial.names(step), radial.measure(record.regions(owner), pictures, step, stable=stable))
    elif isinstance(step, settings.SizeShape):
        for owner in owners:
            record.add(owner, areashape.names(step), areashape.measure(record.regions(owner), step, stable=stable))
    elif isinstance(step, settings.Colocalization):
        orders, costes = record.orders(step.images), colocalization.thresholds(pictures, step)
        record.image(colocalization.image_names(step), colocalization.measure_image(pictures, step))
        for owner in owners:
            of = record.regions(owner)
            table = colocalization.measure(of, pictures, step, orders=orders, costes=costes, stable=stable)
            record.add(owner, colocalization.names(step), table)
    elif isinstance(step, settings.Granularity):
        found = {owner: record.regions(owner) for owner in owners}
        tables, whole = granularity.measure_all(found, pictures, step)
        record.image(granularity.image_names(step), whole)
        for owner in owners:
            record.add(owner, granularity.names(step), tables[owner])
    elif isinstance(step, settings.Intensity):
        orders = record.orders(step.images)
        for owner in owners:
            table = intensity.measure(record.regions(owner), pictures, step, orders=orders, stable=stable)
            record.add(owner, intensity.names(step), table)
    else:
        record.image(texture.image_names(step), texture.measure_image(pictures, step))
        for owner in owners:
            record.add(owner, texture.names(step), texture.measure(record.regions(owner), pictures, step))


def _identify(step: segment.Primary | segment.Secondary | segment.Tertiary, record: _Record) -> None:
    if isinstance(step, segment.Primary):
        objects, fore = segment.identify_primary(record.pictures[step.image], step)
        record.found(step.objects, objects)
        record.thresholded(step.objects, step.image, fore)
    elif isinstance(step, segment.Secondary):
        cells, left, mask = segment.identify_secondary(record.pictures[step.image], record.objects[step.primary], step)
        record.found(step.objects, cells)
        record.related(step.primary, step.objects)
        if left is not None:
            record.found(step.new_primary, left)
            record.related(step.primary, step.new_primary)
            record.related(step.new_primary, step.objects)
        if mask is not None:
            record.thresholded(step.objects, step.image, mask)
    else:
        larger, smaller = record.objects[step.larger], record.objects[step.smaller]
        record.found(step.objects, segment.identify_tertiary(larger, smaller, step))
        record.related(step.smaller, step.objects)
        record.related(step.larger, step.objects)
