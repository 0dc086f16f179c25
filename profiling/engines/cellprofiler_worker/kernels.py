# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Puts our compiled kernels in the place of the functions that CellProfiler's modules call.

The modules stay CellProfiler's; what is replaced is listed in `install`, and each is tested against what it replaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from profiling.engines.cellprofiler_worker import haralick, reconstruction

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def install() -> None:
    """Replaces mahotas's Haralick features, and scikit-image's erosion and reconstruction with a cross."""
    import mahotas.features
    import skimage.morphology

    mahotas.features.haralick = haralick.haralick
    stock_reconstruction, stock_erosion = skimage.morphology.reconstruction, skimage.morphology.erosion

    def is_cross(element: Any) -> bool:
        return element is not None and np.array_equal(np.asarray(element, bool), CROSS)

    def reconstruct(seed: np.ndarray, mask: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        if seed.ndim == 2 and not args and set(kwargs) == {"selem"} and is_cross(kwargs["selem"]):
            return reconstruction.reconstruct(np.array(seed, float), np.asarray(mask, float))
        return stock_reconstruction(seed, mask, *args, **kwargs)

    def erode(picture: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        if (
            picture.ndim == 2
            and picture.dtype.kind == "f"
            and not args
            and set(kwargs) == {"selem"}
            and is_cross(kwargs["selem"])
        ):
            return reconstruction.erode_cross(picture, np.empty_like(picture))
        return stock_erosion(picture, *args, **kwargs)

    skimage.morphology.reconstruction, skimage.morphology.erosion = reconstruct, erode
