"""Writes configs/profiling/*.cppipe through CellProfiler's own Pipeline API.

    .venv-cellprofiler/bin/python tests/golden/write_pipelines.py configs/profiling

The files open in the CellProfiler application: their input modules take TIFF files named after the channels. Our engine
skips those modules and hands the pictures over in memory. Run with the interpreter of the CellProfiler environment.
"""

import importlib.util
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
BRIGHTFIELD = ("Brightfield", "BFHigh", "BFLow")  # JUMP's names of its three focal planes
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")


@dataclass(frozen=True)
class Scales:
    """Sizes in pixels; what differs between two sizes of cells."""

    nucleus_diameter: tuple[int, int]
    nucleus_smoothing: int
    nucleus_suppression: int
    nucleus_threshold_factor: float
    cell_channel: str
    cell_threshold_factor: float
    cell_threshold_smoothing: float
    whole_cells_only: bool
    texture: tuple[int, ...]
    texture_of_pictures: bool
    granularity_subsample: float
    granularity_background: float
    granularity_radius: int
    granularity_spectrum: int
    neighbour_distance: int
    blur: tuple[int, ...]
    notes: str
    channels: tuple[str, ...] = CHANNELS
    everything: bool = False  # Costes, Zernikes of intensity, moments and bounding boxes too


_JUMP = Scales(
    nucleus_diameter=(10, 60), nucleus_smoothing=10, nucleus_suppression=8, nucleus_threshold_factor=1.0,
    cell_channel="RNA", cell_threshold_factor=0.8, cell_threshold_smoothing=0.0, whole_cells_only=False,
    texture=(3, 5, 10), texture_of_pictures=True,
    granularity_subsample=0.5, granularity_background=0.5, granularity_radius=10, granularity_spectrum=16,
    neighbour_distance=5, blur=(5, 10, 20, 50),
    notes="Cell Painting with the measurement settings of the public JUMP production pipeline, 0.6 um a pixel.",
)  # fmt: skip

PIPELINES = {
    "cell_painting_128": Scales(
        nucleus_diameter=(7, 26), nucleus_smoothing=5, nucleus_suppression=5, nucleus_threshold_factor=1.0,
        cell_channel="RNA", cell_threshold_factor=0.7, cell_threshold_smoothing=1.0, whole_cells_only=True,
        texture=(1, 2, 4), texture_of_pictures=False,
        granularity_subsample=1.0, granularity_background=0.5, granularity_radius=10, granularity_spectrum=8,
        neighbour_distance=2, blur=(4, 16),
        notes="Cell Painting at 128 x 128 pixels: nuclei about 14, cells about 26 pixels across; whole cells only.",
    ),
    "cell_painting_jump": _JUMP,
    "cell_painting_jump_brightfield": replace(
        _JUMP,
        channels=CHANNELS + BRIGHTFIELD,
        notes="The settings of cell_painting_jump on eight channels: five stains and three planes of brightfield.",
    ),
    "cell_painting_full": replace(
        _JUMP,
        everything=True,
        notes="The settings of cell_painting_jump with all that its modules can measure: Costes, Zernike magnitudes "
        "and phases of each channel, and the advanced shape features too.",
    ),
}  # fmt: skip


def _install_shim() -> None:
    path = ROOT / "profiling/engines/cellprofiler_worker/shim.py"
    spec = importlib.util.spec_from_file_location("shim", path)
    assert spec is not None
    assert spec.loader is not None
    shim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shim)
    logging.disable(logging.WARNING)  # that MySQL is absent
    shim.install()


def build(scales: Scales) -> object:
    """The pipeline as CellProfiler's own object."""
    from cellprofiler_core.pipeline import Pipeline

    pipeline = Pipeline()

    def add(module: object) -> None:
        module.set_module_num(len(pipeline.modules()) + 1)
        module.show_window = False
        pipeline.add_module(module)

    for module in (*input_modules(scales), *segmentation_modules(scales), *measurement_modules(scales)):
        add(module)
    return pipeline


def input_modules(scales: Scales) -> list:
    from cellprofiler_core.modules.groups import Groups
    from cellprofiler_core.modules.images import Images
    from cellprofiler_core.modules.metadata import Metadata
    from cellprofiler_core.modules.namesandtypes import NamesAndTypes

    images, names = Images(), NamesAndTypes()
    images.set_notes([scales.notes, "Written by tests/golden/write_pipelines.py of dopaint."])
    names.assignment_method.value = "Images matching rules"
    while len(names.assignments) < len(scales.channels):
        names.add_assignment()
    for group, channel in zip(names.assignments, scales.channels, strict=True):
        group.rule_filter.value = f'and (file does contain "{channel}")'
        group.image_name.value = channel
        group.load_as_choice.value = "Grayscale image"
        group.rescale.value = "Image bit-depth"
    return [images, Metadata(), names, Groups()]


def segmentation_modules(scales: Scales) -> list:
    from cellprofiler.modules.identifyprimaryobjects import IdentifyPrimaryObjects
    from cellprofiler.modules.identifysecondaryobjects import IdentifySecondaryObjects
    from cellprofiler.modules.identifytertiaryobjects import IdentifyTertiaryObjects

    # With whole cells only, the nuclei of cells that touch the border are dropped too; "Nuclei" is what remains.
    primary = "AllNuclei" if scales.whole_cells_only else "Nuclei"
    nuclei, cells, cytoplasm = IdentifyPrimaryObjects(), IdentifySecondaryObjects(), IdentifyTertiaryObjects()
    nuclei.x_name.value, nuclei.y_name.value = "DNA", primary
    nuclei.size_range.value = scales.nucleus_diameter
    nuclei.exclude_size.value = True
    nuclei.exclude_border_objects.value = True
    nuclei.use_advanced.value = True
    nuclei.unclump_method.value = "Shape"
    nuclei.watershed_method.value = "Shape" if scales.whole_cells_only else "Intensity"
    nuclei.automatic_smoothing.value = nuclei.automatic_suppression.value = False
    nuclei.smoothing_filter_size.value = scales.nucleus_smoothing
    nuclei.maxima_suppression_size.value = scales.nucleus_suppression
    nuclei.low_res_maxima.value = False
    for threshold, factor, smoothing in (
        (nuclei.threshold, scales.nucleus_threshold_factor, 1.3488),
        (cells.threshold, scales.cell_threshold_factor, scales.cell_threshold_smoothing),
    ):
        threshold.threshold_scope.value = "Global"
        threshold.global_operation.value = "Otsu"
        threshold.two_class_otsu.value = "Two classes"
        threshold.threshold_smoothing_scale.value = smoothing
        threshold.threshold_correction_factor.value = factor
    cells.x_name.value, cells.y_name.value = primary, "Cells"
    cells.image_name.value = scales.cell_channel
    cells.method.value = "Propagation"
    cells.fill_holes.value = True
    if scales.whole_cells_only:
        cells.wants_discard_edge.value = cells.wants_discard_primary.value = True
        cells.new_primary_objects_name.value = "Nuclei"
    cytoplasm.secondary_objects_name.value = "Cells"
    cytoplasm.primary_objects_name.value = "Nuclei"
    cytoplasm.subregion_objects_name.value = "Cytoplasm"
    cytoplasm.shrink_primary.value = True
    return [nuclei, cells, cytoplasm]


def measurement_modules(scales: Scales) -> list:
    from cellprofiler.modules.measurecolocalization import MeasureColocalization
    from cellprofiler.modules.measuregranularity import MeasureGranularity
    from cellprofiler.modules.measureimagequality import MeasureImageQuality
    from cellprofiler.modules.measureobjectintensity import MeasureObjectIntensity
    from cellprofiler.modules.measureobjectintensitydistribution import MeasureObjectIntensityDistribution
    from cellprofiler.modules.measureobjectneighbors import MeasureObjectNeighbors
    from cellprofiler.modules.measureobjectsizeshape import MeasureObjectSizeShape
    from cellprofiler.modules.measuretexture import MeasureTexture

    channels, objects = ", ".join(scales.channels), ", ".join(OBJECTS)
    quality = MeasureImageQuality()
    quality.images_choice.value = "Select..."
    group = quality.image_groups[0]
    group.image_names.value = channels
    group.include_image_scalings.value = False
    group.check_blur.value = group.check_saturation.value = group.check_intensity.value = True
    group.calculate_threshold.value = False
    while len(group.scale_groups) < len(scales.blur):
        quality.add_scale_group(group)
    for one, scale in zip(group.scale_groups, scales.blur, strict=True):
        one.scale.value = scale

    colocalization = MeasureColocalization()
    colocalization.images_list.value, colocalization.objects_list.value = channels, objects
    colocalization.images_or_objects.value = "Within objects"
    colocalization.do_all.value = colocalization.do_costes.value = scales.everything
    for name in ("do_corr_and_slope", "do_manders", "do_rwc", "do_overlap"):
        getattr(colocalization, name).value = True
    colocalization.fast_costes.value = "Faster"

    granularity = MeasureGranularity()
    granularity.images_list.value, granularity.objects_list.value = channels, objects
    granularity.wants_objects.value = True
    granularity.subsample_size.value = scales.granularity_subsample
    granularity.image_sample_size.value = scales.granularity_background
    granularity.element_size.value = scales.granularity_radius
    granularity.granular_spectrum_length.value = scales.granularity_spectrum

    intensity = MeasureObjectIntensity()
    intensity.images_list.value, intensity.objects_list.value = channels, objects

    neighbours = []
    for name, method, distance in (
        ("Cells", "Within a specified distance", scales.neighbour_distance),
        ("Nuclei", "Within a specified distance", 1),
        ("Cells", "Adjacent", scales.neighbour_distance),
    ):
        module = MeasureObjectNeighbors()
        module.object_name.value = module.neighbors_name.value = name
        module.distance_method.value, module.distance.value = method, distance
        neighbours.append(module)

    distribution = MeasureObjectIntensityDistribution()
    distribution.images_list.value = channels
    distribution.wants_zernikes.value = "Magnitudes and phase" if scales.everything else "None"
    distribution.zernike_degree.value = 9
    while len(distribution.objects) < len(OBJECTS):
        distribution.add_object()
    for group, name in zip(distribution.objects, OBJECTS, strict=True):
        group.object_name.value = name
        group.center_choice.value = "These objects"

    shape = MeasureObjectSizeShape()
    shape.objects_list.value = objects
    shape.calculate_zernikes.value = True
    shape.calculate_advanced.value = scales.everything

    texture = MeasureTexture()
    texture.images_list.value, texture.objects_list.value = channels, objects
    texture.gray_levels.value = 256
    texture.images_or_objects.value = "Both" if scales.texture_of_pictures else "Objects"
    while len(texture.scale_groups) < len(scales.texture):
        texture.add_scale()
    for group, scale in zip(texture.scale_groups, scales.texture, strict=True):
        group.scale.value = scale
    return [quality, colocalization, granularity, intensity, *neighbours, distribution, shape, texture]


def main(folder: Path) -> None:
    """Writes one file a pipeline into `folder`."""
    _install_shim()
    from cellprofiler_core.preferences import set_headless

    set_headless()
    for name, scales in PIPELINES.items():
        with (folder / f"{name}.cppipe").open("w", encoding="utf-8") as file:
            build(scales).dump(file, save_image_plane_details=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
