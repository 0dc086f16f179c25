"""Measurements kept in a dict: CellProfiler's own class writes one small HDF5 dataset a feature, 40 % of all time.

Storage only: the numbers are the modules' own. Image sets, providers and the rest are inherited.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cellprofiler_core.measurement import Measurements


class DictMeasurements(Measurements):
    """One image set's measurements in `self.table[object][feature]`."""

    def __init__(self) -> None:
        super().__init__(mode="memory")
        self.table: dict[str, dict[str, Any]] = {}

    def add_measurement(
        self,
        object_name: str,
        feature_name: str,
        data: Any,
        can_overwrite: bool = False,
        image_set_number: int | None = None,
        data_type: str | None = None,
    ) -> None:
        kept = data if isinstance(data, str) or np.isscalar(data) else np.asarray(data)
        self.table.setdefault(object_name, {})[feature_name] = kept

    def get_measurement(self, object_name: str, feature_name: str, image_set_number: Any = None) -> Any:
        value = self.table[object_name][feature_name]
        return value.flat[0] if object_name == "Image" and isinstance(value, np.ndarray) and value.size == 1 else value

    def has_feature(self, object_name: str, feature_name: str) -> bool:
        return feature_name in self.table.get(object_name, ())

    def has_current_measurements(self, object_name: str, feature_name: str) -> bool:
        return self.has_feature(object_name, feature_name)

    def get_object_names(self) -> list[str]:
        return list(self.table)

    def get_feature_names(self, object_name: str) -> list[str]:
        return list(self.table.get(object_name, ()))

    def add_relate_measurement(self, *_: Any, **__: Any) -> None:
        """Relationships stay in the Parent_ and Children_ columns; the HDF5 table of pairs is not kept."""
