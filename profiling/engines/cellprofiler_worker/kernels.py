# mypy: disable-error-code="no-untyped-call"
"""Puts our compiled kernels in the place of the functions that CellProfiler's modules call.

The modules stay CellProfiler's; what is replaced is listed in `install`, and is tested against what it replaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from profiling.engines.cellprofiler_worker import colocalization, granularity, haralick, morphology


def install() -> None:
    """Replaces, in this process:

    * mahotas's Haralick features, and the table for a window that MeasureTexture formats of them;
    * MeasureGranularity's spectrum of a plain 2-D picture;
    * MeasureColocalization's pairs inside objects, where all but Costes is asked for.
    """
    import mahotas.features
    from cellprofiler.modules.measurecolocalization import MeasureColocalization
    from cellprofiler.modules.measuregranularity import MeasureGranularity
    from cellprofiler.modules.measuretexture import TEXTURE, MeasureTexture

    mahotas.features.haralick = haralick.haralick

    def record_texture(
        self: Any, workspace: Any, image: str, obj: str, scale: Any, feature: str, result: np.ndarray, gray_levels: str
    ) -> list[Any]:
        result[~np.isfinite(result)] = 0
        workspace.add_measurement(obj, f"{TEXTURE}_{feature}_{image}_{scale}_{gray_levels}", result)
        return []

    stock_spectrum, stock_pairs = MeasureGranularity.run_on_image_setting, MeasureColocalization.run

    def spectrum(self: Any, workspace: Any, image_name: str) -> Any:
        done = granularity.run_on_picture(self, workspace, image_name)
        return stock_spectrum(self, workspace, image_name) if done is None else done

    def pairs(self: Any, workspace: Any) -> None:
        if not colocalization.run(self, workspace):
            stock_pairs(self, workspace)

    compile_all()
    MeasureTexture.record_measurement = record_texture
    MeasureGranularity.run_on_image_setting = spectrum
    MeasureColocalization.run = pairs


def compile_all() -> None:
    """Compiles every kernel for the types it will meet, or loads it from the cache, before the first picture waits."""
    square, wide = np.eye(4, dtype=np.float32), np.eye(4)
    haralick.haralick(np.arange(16, dtype=np.uint8).reshape(4, 4), ignore_zeros=True, distance=1)
    morphology.erode_cross(square, np.empty_like(square))
    morphology.reconstruct(wide.copy(), wide)
    morphology.open_disk(square, 1)
    pixels, one = square.ravel(), np.ones(1)
    channel = (pixels, wide.ravel(), one, pixels > 0, np.arange(16))
    colocalization.sum_pair(np.ones(16, np.int64), *channel, *channel, np.zeros((8, 1)))
