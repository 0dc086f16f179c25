"""Writes tests/golden/user/*.cppipe: pipelines as a user would bring them, of other images, objects and modules.

    .venv-cellprofiler/bin/python -P tests/golden/write_user_pipelines.py tests/golden/user

`three_channels`: LoadData, derived images, objects with German names, filters and relations, files saved at the end.
`by_hand`: the same with a module that waits for a person. `series`: with one that works on all pictures together.
"""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _writer() -> object:
    spec = importlib.util.spec_from_file_location("write_pipelines", HERE / "write_pipelines.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def modules() -> list:
    """A small three-channel pipeline: DAPI, GFP, RFP."""
    from cellprofiler.modules.exporttospreadsheet import ExportToSpreadsheet
    from cellprofiler.modules.filterobjects import FilterObjects
    from cellprofiler.modules.gaussianfilter import GaussianFilter
    from cellprofiler.modules.identifyprimaryobjects import IdentifyPrimaryObjects
    from cellprofiler.modules.identifysecondaryobjects import IdentifySecondaryObjects
    from cellprofiler.modules.imagemath import ImageMath
    from cellprofiler.modules.measureimageintensity import MeasureImageIntensity
    from cellprofiler.modules.measureobjectintensity import MeasureObjectIntensity
    from cellprofiler.modules.measureobjectsizeshape import MeasureObjectSizeShape
    from cellprofiler.modules.relateobjects import RelateObjects
    from cellprofiler.modules.saveimages import SaveImages
    from cellprofiler_core.modules.loaddata import LoadData

    load, smooth, sum_of_two = LoadData(), GaussianFilter(), ImageMath()
    load.csv_directory.value, load.csv_file_name.value = "Elsewhere...|/somewhere/else", "load_data.csv"
    smooth.x_name.value, smooth.y_name.value, smooth.sigma.value = "DAPI", "DAPI_smooth", 1.0
    sum_of_two.operation.value, sum_of_two.output_image_name.value = "Add", "Both"
    sum_of_two.images[0].image_name.value, sum_of_two.images[1].image_name.value = "GFP", "RFP"
    nuclei, cells = IdentifyPrimaryObjects(), IdentifySecondaryObjects()
    nuclei.x_name.value, nuclei.y_name.value = "DAPI_smooth", "Kerne"
    nuclei.size_range.value = (8, 80)
    cells.x_name.value, cells.y_name.value = "Kerne", "Zellen"
    cells.image_name.value, cells.method.value, cells.distance_to_dilate.value = "GFP", "Distance - N", 5
    shape, intensity, picture = MeasureObjectSizeShape(), MeasureObjectIntensity(), MeasureImageIntensity()
    shape.objects_list.value, shape.calculate_zernikes.value = "Kerne, Zellen", False
    shape.calculate_advanced.value = False
    intensity.images_list.value, intensity.objects_list.value = "GFP, Both", "Kerne, Zellen"
    picture.images_list.value = "RFP"
    large, relate = FilterObjects(), RelateObjects()
    large.x_name.value, large.y_name.value = "Zellen", "GrosseZellen"
    large.measurements[0].measurement.value = "AreaShape_Area"
    large.measurements[0].wants_minimum.value, large.measurements[0].min_limit.value = True, 120.0
    large.measurements[0].wants_maximum.value = False
    relate.x_name.value, relate.y_name.value = "GrosseZellen", "Kerne"
    return [
        load, smooth, sum_of_two, nuclei, cells, shape, intensity, picture, large, relate, SaveImages(),
        ExportToSpreadsheet(),
    ]  # fmt: skip


def main(folder: Path) -> None:
    """Writes one file a pipeline into `folder`."""
    _writer()._install_shim()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    from cellprofiler.modules.editobjectsmanually import EditObjectsManually
    from cellprofiler.modules.makeprojection import MakeProjection
    from cellprofiler_core.pipeline import Pipeline

    for name, further in (("three_channels", None), ("by_hand", EditObjectsManually), ("series", MakeProjection)):
        pipeline = Pipeline()
        for module in (*modules(), *([further()] if further else [])):
            module.set_module_num(len(pipeline.modules()) + 1)
            module.show_window = False
            pipeline.add_module(module)
        with (folder / f"{name}.cppipe").open("w", encoding="utf-8") as file:
            pipeline.dump(file, save_image_plane_details=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
