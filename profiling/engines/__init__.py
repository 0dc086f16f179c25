"""Engines that turn pictures into measurements of every nucleus, cell and cytoplasm.

In go pictures float32 [n, channels, h, w] in [0, 1] with named channels; out comes one FieldMeasurement a picture, in
the same order. `ENGINES` maps a name to its engine: `cellprofiler` is the real CellProfiler, headless, in its own
environment; `fast` gives its columns and values from our own compiled kernels; `cp_measure` is the package of
that name, for comparison. Learned engines stand in `profiling.embedders`.
"""

from profiling.engines.cellprofiler import CellProfilerEngine
from profiling.engines.cp_measure import CpMeasureEngine
from profiling.engines.environment import CellProfilerMissing
from profiling.engines.fast import FastEngine
from profiling.engines.measurement import FieldMeasurement, ObjectTable
from profiling.engines.pictures import InvalidPictures
from profiling.engines.settings import InvalidSettings

ENGINES = {"cellprofiler": CellProfilerEngine, "fast": FastEngine, "cp_measure": CpMeasureEngine}

__all__ = [
    "ENGINES",
    "CellProfilerEngine",
    "CellProfilerMissing",
    "CpMeasureEngine",
    "FastEngine",
    "FieldMeasurement",
    "InvalidPictures",
    "InvalidSettings",
    "ObjectTable",
]
