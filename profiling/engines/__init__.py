"""Engines that turn pictures into measurements of every nucleus, cell and cytoplasm.

In go pictures float32 [n, channels, h, w] in [0, 1] with named channels; out comes one FieldMeasurement a picture, in
the same order. `ENGINES` maps a name to its engine: `cellprofiler` is the real CellProfiler, headless, in its own
environment; `fast` gives its columns and values from our own compiled kernels.
"""

from profiling.engines.cellprofiler import CellProfilerEngine
from profiling.engines.environment import CellProfilerMissing
from profiling.engines.fast import FastEngine
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures
from profiling.engines.settings import InvalidSettings

ENGINES = {"cellprofiler": CellProfilerEngine, "fast": FastEngine}

__all__ = [
    "ENGINES",
    "CellProfilerEngine",
    "CellProfilerMissing",
    "FastEngine",
    "FieldMeasurement",
    "InvalidPictures",
    "InvalidSettings",
    "ObjectTable",
]
