"""Label images that come with the picture, in the place of objects that a pipeline would find."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellprofiler_core.object import Objects
from cellprofiler_core.utilities.core.module.identify import (
    add_object_count_measurements,
    add_object_location_measurements,
)


def add(objects: Any, measurements: Any, masks: dict[str, np.ndarray]) -> None:
    """Puts the objects into the set, with the count, centres and numbers that an Identify module would have stored."""
    for name, labels in masks.items():
        one = Objects()
        one.segmented = labels.astype(np.int32)
        objects.add_objects(one, name)
        add_object_count_measurements(measurements, name, one.count)
        add_object_location_measurements(measurements, name, one.segmented, one.count)


def complete(objects: Any, measurements: Any, columns: dict[str, list[str]], masks: dict[str, np.ndarray]) -> None:
    """Fills what the skipped modules declared: Parent_ and Children_ by largest overlap, as they do; depth 0."""
    known = set(objects.object_names)
    for name in masks:
        if "Location_Center_Z" in columns.get(name, ()):
            measurements.add_measurement(name, "Location_Center_Z", np.zeros(objects.get_objects(name).count))
    for child in [name for name in columns if name in known]:
        for parent in [name for name in known if f"Parent_{name}" in columns[child]]:
            if not {child, parent} & set(masks) or f"Parent_{parent}" in measurements.table.get(child, {}):
                continue
            children, parents = objects.get_objects(parent).relate_children(objects.get_objects(child))
            measurements.add_measurement(child, f"Parent_{parent}", parents)
            measurements.add_measurement(parent, f"Children_{child}_Count", children)
