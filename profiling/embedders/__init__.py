"""Embedders: learned engines, and controls for them, in one slot.

In go pictures float32 [n, channels, h, w] in [0, 1] with named channels; out comes one FieldMeasurement a picture whose
columns are `<embedder>_000`, `<embedder>_001`, .... `EMBEDDERS` maps a name to the function that loads it from the
folder of its weights. Every embedder is an engine of `dopaint profile --engine NAME`.
"""

from profiling.embedders import random_conv
from profiling.embedders.embedding import Embedder, InvalidEmbedder, Loader, cell_vectors, column_names, field_vector

EMBEDDERS: dict[str, Loader] = {"random_conv": random_conv.load}

__all__ = [
    "EMBEDDERS",
    "Embedder",
    "InvalidEmbedder",
    "Loader",
    "cell_vectors",
    "column_names",
    "field_vector",
]
