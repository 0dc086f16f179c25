"""Oracle: a pipeline's stock modules on a picture from memory, in CellProfiler's own HDF5 storage, no kernels of ours.

    cd tests/golden
    for name in sim128_sparse jump_border full_large; do ../../.venv-cellprofiler/bin/python -P stock_cellprofiler.py \\
        PIPELINE.cppipe profiling/fast/$name.npz profiling/stock/$name.npz; done     # PIPELINE: that of the settings

The picture is `picture` of the first file, uint16 [5, h, w]; 65535 stands for 1. The second gets `values/<object>`
float64 [n, k] and `names/<object>`, as text with one name a line, for each object and for Image. Given an .npy file of
pictures, float32 [n, 5, h, w] in [0, 1], it measures all of them into `<picture>|<object>|<feature>` arrays. It shares
the shim of imports with the engine (without which CellProfiler does not import here) and nothing else. Run it with
OPENBLAS_NUM_THREADS=1 and the NPY_DISABLE_CPU_FEATURES of profiling/engines/cellprofiler_worker/processor.py.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")


def modules_of(pipeline_file: str) -> tuple:
    """The pipeline and its Identify and Measure modules."""
    logging.disable(logging.ERROR)
    spec = importlib.util.spec_from_file_location("shim", ROOT / "profiling/engines/cellprofiler_worker/shim.py")
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim.install()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.utilities.core.modules import fill_modules

    fill_modules()
    pipeline = Pipeline()
    pipeline.load(pipeline_file)
    return pipeline, [m for m in pipeline.modules() if m.module_name.startswith(("Identify", "Measure"))]


def measure(pipeline: object, modules: list, picture: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Numeric features of one picture, float32 [5, h, w] in [0, 1], by object and name."""
    from cellprofiler_core.image import Image
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.workspace import Workspace

    measurements, objects = Measurements(mode="memory"), ObjectSet()
    measurements.group_number = measurements.group_index = 1
    for name, plane in zip(CHANNELS, picture, strict=True):
        measurements.add(name, Image(plane, scale=65535.0))
    for module in modules:
        module.run(Workspace(pipeline, module, measurements, objects, measurements, None))
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in (*OBJECTS, "Image")}
    for name, columns in found.items():
        for feature in measurements.get_feature_names(name):
            values = np.atleast_1d(np.asarray(measurements.get_current_measurement(name, feature)))
            if values.dtype.kind in "fiu":
                columns[feature] = values.astype(float)
    measurements.close()
    return found


def main(pipeline_file: str, pictures_file: str, out_file: str) -> None:
    """Measures the picture of a golden file, or the pictures of an .npy file."""
    pipeline, modules = modules_of(pipeline_file)
    out: dict[str, np.ndarray] = {}
    if pictures_file.endswith(".npy"):
        for i, picture in enumerate(np.load(pictures_file)):
            for name, columns in measure(pipeline, modules, picture).items():
                out |= {f"{i}|{name}|{feature}": values for feature, values in columns.items()}
        np.savez(out_file, **out)
        return
    with np.load(pictures_file) as archive:
        picture = (archive["picture"] / 65535.0).astype(np.float32)
    for name, columns in measure(pipeline, modules, picture).items():
        out[f"values/{name}"] = np.stack(list(columns.values()), axis=1)
        out[f"names/{name}"] = np.frombuffer("\n".join(columns).encode(), np.uint8)
    np.savez_compressed(out_file, **out)


if __name__ == "__main__":
    main(*sys.argv[1:])
