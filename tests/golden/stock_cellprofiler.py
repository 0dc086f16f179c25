"""Oracle: a pipeline's stock modules on pictures from memory, in CellProfiler's own HDF5 storage, no kernels of ours.

    .venv-cellprofiler/bin/python -P tests/golden/stock_cellprofiler.py PIPELINE.cppipe PICTURES.npy OUT.npz

PICTURES float32 [n, 5, h, w]; OUT holds `<picture>|<object>|<feature>` arrays. It shares the shim of imports with the
engine (without which CellProfiler does not import here) and nothing else.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")


def main(pipeline_file: str, pictures_file: str, out_file: str) -> None:
    logging.disable(logging.ERROR)
    spec = importlib.util.spec_from_file_location("shim", ROOT / "profiling/engines/cellprofiler_worker/shim.py")
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim.install()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    from cellprofiler_core.image import Image
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.utilities.core.modules import fill_modules
    from cellprofiler_core.workspace import Workspace

    fill_modules()
    pipeline = Pipeline()
    pipeline.load(pipeline_file)
    modules = [m for m in pipeline.modules() if m.module_name.startswith(("Identify", "Measure"))]
    out = {}
    for i, picture in enumerate(np.load(pictures_file)):
        measurements, objects = Measurements(mode="memory"), ObjectSet()
        measurements.group_number = measurements.group_index = 1
        for name, plane in zip(CHANNELS, picture, strict=True):
            measurements.add(name, Image(plane, scale=65535.0))
        for module in modules:
            module.run(Workspace(pipeline, module, measurements, objects, measurements, None))
        for name in (*OBJECTS, "Image"):
            for feature in measurements.get_feature_names(name):
                values = np.asarray(measurements.get_current_measurement(name, feature))
                if values.dtype.kind in "fiu":
                    out[f"{i}|{name}|{feature}"] = values.astype(float)
        measurements.close()
    np.savez(out_file, **out)


if __name__ == "__main__":
    main(*sys.argv[1:])
