"""Figures of profiles and scores, drawn with matplotlib without a display.

What comes in are tables and arrays that are already computed; what goes out is a `Figure`, which `save` writes as
PNG, SVG or PDF, the same bytes for the same input and version. No figure computes a statistic: what it shows can be
read in the table that it was drawn from.
"""

from profiling.plots.bars import Bar, bars
from profiling.plots.heat import confusion_map, overlap_map, subprofile_map
from profiling.plots.scatter import Panel, panels
from profiling.plots.style import InvalidFigure, save

__all__ = [
    "Bar",
    "InvalidFigure",
    "Panel",
    "bars",
    "confusion_map",
    "overlap_map",
    "panels",
    "save",
    "subprofile_map",
]
