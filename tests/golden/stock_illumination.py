"""Oracle: CellProfiler's CorrectIlluminationCalculate (regular, all, median filter, rescaled) and -Apply (divide).

    .venv-cellprofiler/bin/python -P tests/golden/stock_illumination.py tests/golden/profiling/illumination.npz

Writes `pictures` uint16 [8, 64, 80], `function` [64, 80] and `corrected` [2, 64, 80] in [0, 1].
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SIZE = 12  # of the smoothing filter, pixels


def pictures() -> np.ndarray:
    """Eight fields of round cells under a vignette, 16-bit counts."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:64, :80]
    light = 1 - 0.5 * ((y - 20) ** 2 + (x - 50) ** 2) / 4000
    out = []
    for _ in range(8):
        field = np.full((64, 80), 0.05)
        for cy, cx in rng.uniform((0, 0), (64, 80), (12, 2)):
            field += 0.2 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 30)
        out.append(np.clip(field * light + rng.normal(0, 0.003, field.shape), 0, 1))
    return np.rint(np.array(out) * 65535).astype(np.uint16)


def main(target: str) -> None:
    """Runs the two modules on the pictures."""
    spec = importlib.util.spec_from_file_location("shim", ROOT / "profiling/engines/cellprofiler_worker/shim.py")
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    shim.install()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    from cellprofiler.modules import correctilluminationapply as apply
    from cellprofiler.modules import correctilluminationcalculate as calculate
    from cellprofiler_core.image import Image
    from cellprofiler_core.measurement import Measurements
    from cellprofiler_core.object import ObjectSet
    from cellprofiler_core.pipeline import Pipeline
    from cellprofiler_core.workspace import Workspace

    module = calculate.CorrectIlluminationCalculate()
    module.intensity_choice.value = calculate.IC_REGULAR
    module.smoothing_method.value = calculate.SM_MEDIAN_FILTER
    module.automatic_object_width.value = calculate.FI_MANUALLY
    module.size_of_smoothing_filter.value = SIZE
    module.rescale_option.value = "Yes"
    module.dilate_objects.value = False
    provider = calculate.CorrectIlluminationImageProvider("Illumination", module)
    counts = pictures()
    planes = (counts / 65535).astype(np.float32)
    for plane in planes:
        provider.add_image(Image(plane))
    function = provider.provide_image(None)
    user = apply.CorrectIlluminationApply()
    user.images[0].image_name.value, user.images[0].corrected_image_name.value = "Raw", "Corrected"
    user.images[0].illum_correct_function_image_name.value = "Illumination"
    user.images[0].divide_or_subtract.value = apply.DOS_DIVIDE
    user.show_window = False
    corrected = []
    for plane in planes:
        measurements = Measurements(mode="memory")
        measurements.add("Raw", Image(plane))
        measurements.add("Illumination", function)
        user.run(Workspace(Pipeline(), user, measurements, ObjectSet(), measurements, None))
        corrected.append(measurements.get_image("Corrected").pixel_data)
        measurements.close()
    np.savez_compressed(
        target, pictures=counts, function=function.pixel_data, corrected=np.array(corrected[:2], np.float32)
    )


if __name__ == "__main__":
    main(sys.argv[1])
