"""Conditional latent diffusion: named channels to latents and back, condition tokens, the U-Net, its noise schedule
and samplers, and the pipeline that paints pictures for rows of a design. This room knows compound vectors and
contexts, never a SMILES; pictures are in [-1, 1] inside it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ldm.intensity import IntensityScale
from ldm.schedule import Schedule

if TYPE_CHECKING:
    from ldm.condition import UnknownContext
    from ldm.folder import ModelFolderError, PipelineSettings, model_hash
    from ldm.pipeline import CellPaintingPipeline
    from ldm.sampler import SAMPLERS

__all__ = [
    "SAMPLERS",
    "CellPaintingPipeline",
    "IntensityScale",
    "ModelFolderError",
    "PipelineSettings",
    "Schedule",
    "UnknownContext",
    "model_hash",
]

_LAZY = {  # names whose modules load diffusers: seconds that only a painter should pay
    "SAMPLERS": "ldm.sampler",
    "CellPaintingPipeline": "ldm.pipeline",
    "ModelFolderError": "ldm.folder",
    "PipelineSettings": "ldm.folder",
    "UnknownContext": "ldm.condition",
    "model_hash": "ldm.folder",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ldm' has no attribute {name!r}")
