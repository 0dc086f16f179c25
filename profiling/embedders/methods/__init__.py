"""Ways to train an encoder, one a file: what a step samples, what it minimises, what follows it. `METHODS` maps the
`kind` of a recipe's `[objective]` to its config and its method.
"""

from profiling.embedders.methods.contrast import ContrastConfig, ContrastMethod
from profiling.embedders.methods.distillation import DinoConfig, DinoMethod
from profiling.embedders.methods.masking import MaskingConfig, MaskingMethod
from profiling.embedders.methods.method import Method, Sources
from profiling.embedders.methods.phenotyping import PhenoMethod, PhenoObjective

METHODS: dict[str, tuple[type, type[Method]]] = {
    "dino": (DinoConfig, DinoMethod),
    "simclr": (ContrastConfig, ContrastMethod),
    "supcon": (ContrastConfig, ContrastMethod),
    "mae": (MaskingConfig, MaskingMethod),
    "cha_mae": (MaskingConfig, MaskingMethod),
    "phenoprofiler": (PhenoObjective, PhenoMethod),
}

__all__ = ["METHODS", "Method", "Sources"]
