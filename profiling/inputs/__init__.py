"""Reading pictures from where microscopes and other tools leave them: one format a file.

A reader lists fields of view without reading a pixel (`FieldSet`); `read_field` gives the pixels of one field in
[0, 1], or says by a named outcome why they cannot be used. `INPUTS` maps a format's name to its reader; `open_input`
chooses by what lies at the path where no format is named.
"""

from profiling.inputs.field import Field, FieldSet, InvalidInput, Plane
from profiling.inputs.formats import INPUTS, format_of, open_input
from profiling.inputs.pixels import RANGES, read_field

__all__ = [
    "INPUTS",
    "RANGES",
    "Field",
    "FieldSet",
    "InvalidInput",
    "Plane",
    "format_of",
    "open_input",
    "read_field",
]
