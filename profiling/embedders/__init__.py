"""Embedders: learned engines, and controls for them, in one slot.

In go pictures float32 [n, channels, h, w] in [0, 1] with named channels; out comes one FieldMeasurement a picture whose
columns are `<embedder>_000`, `<embedder>_001`, .... `EMBEDDERS` maps a name to the function that loads it from the
folder of its weights. Every embedder is an engine of `dopaint profile --engine NAME`; all but the control are trained
by `dopaint train configs/embedders/X.toml`.
"""

from profiling.embedders import random_conv
from profiling.embedders.embedding import Embedder, InvalidEmbedder, Loader, cell_vectors, column_names, field_vector
from profiling.embedders.slot import loader, trex_loader

#: Engines that are trained here: CHAMMI-75's models, the brightfield paper's, PhenoProfiler and its baselines.
TRAINED = (
    "dino_boc",
    "simclr_boc",
    "mae_boc",
    "supcon_boc",
    "dino_mca",
    "simclr_mca",
    "mae_mca",
    "supcon_mca",
    "cha_mae",
    "brightfield_dino",
    "phenoprofiler",
    "resnet50",
    "vit_b32",
    "efficientnet_b0",
)
_BASES: dict[str, Loader] = {"random_conv": random_conv.load, **{name: loader(name) for name in TRAINED}}
EMBEDDERS: dict[str, Loader] = {**_BASES, "trex": trex_loader(_BASES)}

__all__ = [
    "EMBEDDERS",
    "TRAINED",
    "Embedder",
    "InvalidEmbedder",
    "Loader",
    "cell_vectors",
    "column_names",
    "field_vector",
]
