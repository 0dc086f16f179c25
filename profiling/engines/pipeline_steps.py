"""Modules of a pipeline file → the dataclasses of `pipeline_settings`, one reader a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiling.engines.pipeline_settings import (
    FILE_MODULES,
    Bins,
    Colocalization,
    Distribution,
    Granularity,
    ImageQuality,
    Intensity,
    Module,
    Neighbours,
    QualityGroup,
    SizeShape,
    Step,
    Texture,
    read_modules,
)
from profiling.engines.settings import InvalidSettings, pipeline
from profiling.segment import Primary, Secondary, Tertiary
from profiling.threshold import Threshold


def _threshold(module: Module) -> Threshold:
    low, high = module.range_of("Lower and upper bounds on threshold")
    methods = module.all("Thresholding method")  # the first is the global one, the last the adaptive one
    strategy = module.one("Threshold strategy")
    return Threshold(
        strategy=strategy,
        method=methods[0] if strategy == "Global" else methods[-1],
        classes=module.one("Two-class or three-class thresholding?"),
        middle=module.one("Assign pixels in the middle intensity class to the foreground or the background?"),
        log=module.flag("Log transform before thresholding?", "No"),
        smoothing=module.number_of("Threshold smoothing scale"),
        correction=module.number_of("Threshold correction factor"),
        low=low,
        high=high,
        manual=module.number_of("Manual threshold"),
    )


def _primary(module: Module) -> Primary:
    smoothing: float | None = module.number_of("Size of smoothing filter")
    if module.flag("Automatically calculate size of smoothing filter for declumping?"):
        smoothing = None
    suppression: float | None = module.number_of(
        "Suppress local maxima that are closer than this minimum allowed distance"
    )
    if module.flag("Automatically calculate minimum allowed distance between local maxima?"):
        suppression = None
    erase = module.one("Handling of objects if excessive number of objects identified") == "Erase"
    return Primary(
        image=module.one("Select the input image"),
        objects=module.one("Name the primary objects to be identified"),
        diameter=module.range_of("Typical diameter of objects, in pixel units (Min,Max)"),
        exclude_size=module.flag("Discard objects outside the diameter range?"),
        exclude_border=module.flag("Discard objects touching the border of the image?"),
        maxima=module.one("Method to distinguish clumped objects"),
        watershed=module.one("Method to draw dividing lines between clumped objects"),
        smoothing=smoothing,
        suppression=suppression,
        low_resolution=module.flag("Speed up by using lower-resolution image to find local maxima?"),
        fill_holes=module.one("Fill holes in identified objects?"),
        most_objects=int(module.number_of("Maximum number of objects")) if erase else None,
        advanced=module.flag("Use advanced settings?"),
        threshold=_threshold(module),
    )


def _secondary(module: Module) -> Secondary:
    return Secondary(
        primary=module.one("Select the input objects"),
        objects=module.one("Name the objects to be identified"),
        image=module.one("Select the input image"),
        method=module.one("Select the method to identify the secondary objects"),
        distance=module.number_of("Number of pixels by which to expand the primary objects"),
        regularization=module.number_of("Regularization factor"),
        discard_edge=module.flag("Discard secondary objects touching the border of the image?"),
        discard_primary=module.flag("Discard the associated primary objects?"),
        new_primary=module.one("Name the new primary objects"),
        fill_holes=module.flag("Fill holes in identified objects?"),
        threshold=_threshold(module),
    )


def _tertiary(module: Module) -> Tertiary:
    return Tertiary(
        larger=module.one("Select the larger identified objects"),
        smaller=module.one("Select the smaller identified objects"),
        objects=module.one("Name the tertiary objects to be identified"),
        shrink=module.flag("Shrink smaller object prior to subtraction?"),
    )


def _quality(module: Module) -> ImageQuality:
    """Settings repeat by group: each group starts at its list of pictures."""
    starts = [i for i, (text, _) in enumerate(module.pairs) if text == "Select the images to measure"]
    groups = []
    for start, end in zip(starts, [*starts[1:], len(module.pairs)], strict=True):
        part = Module(module.name, module.number, module.pairs[start:end])
        if part.flag("Calculate thresholds?"):
            raise InvalidSettings(
                f"{module.name} (module {module.number}): engine fast has no image thresholds; switch them off, or use "
                "engine cellprofiler"
            )
        groups.append(
            QualityGroup(
                images=part.names("Select the images to measure"),
                scaling=part.flag("Include the image rescaling value?"),
                blur=part.flag("Calculate blur metrics?"),
                scales=tuple(int(v) for v in part.all("Spatial scale for blur measurements")),
                saturation=part.flag("Calculate saturation metrics?"),
                intensity=part.flag("Calculate intensity metrics?"),
            )
        )
    return ImageQuality(tuple(groups))


def _colocalization(module: Module) -> Colocalization:
    every = module.flag("Run all metrics?")
    return Colocalization(
        images=module.names("Select images to measure"),
        share=module.number_of("Set threshold as percentage of maximum intensity for the images") / 100,
        where=module.one("Select where to measure correlation"),
        objects=module.names("Select objects to measure"),
        correlation=every or module.flag("Calculate correlation and slope metrics?"),
        manders=every or module.flag("Calculate the Manders coefficients?"),
        rwc=every or module.flag("Calculate the Rank Weighted Colocalization coefficients?"),
        overlap=every or module.flag("Calculate the Overlap coefficients?"),
        costes=every or module.flag("Calculate the Manders coefficients using Costes auto threshold?"),
        costes_method=module.one("Method for Costes thresholding", "Faster"),
    )


def _granularity(module: Module) -> Granularity:
    inside = module.flag("Measure within objects?")
    return Granularity(
        images=module.names("Select images to measure"),
        objects=module.names("Select objects to measure") if inside else (),
        subsample=module.number_of("Subsampling factor for granularity measurements"),
        background=module.number_of("Subsampling factor for background reduction"),
        radius=int(module.number_of("Radius of structuring element")),
        spectrum=int(module.number_of("Range of the granular spectrum")),
    )


def _intensity(module: Module) -> Intensity:
    return Intensity(module.names("Select images to measure"), module.names("Select objects to measure"))


def _neighbours(module: Module) -> Neighbours:
    return Neighbours(
        objects=module.one("Select objects to measure"),
        neighbours=module.one("Select neighboring objects to measure"),
        method=module.one("Method to determine neighbors"),
        distance=int(module.number_of("Neighbor distance")),
        count_discarded=module.flag("Consider objects discarded for touching image border?"),
    )


def _distribution(module: Module) -> Distribution:
    kinds, choices = module.all("Select objects to measure"), module.all("Object to use as center?")
    centres = module.all("Select objects to use as centers")
    scaled, counts, radii = module.all("Scale the bins?"), module.all("Number of bins"), module.all("Maximum radius")
    return Distribution(
        images=module.names("Select images to measure"),
        centres=tuple(zip(kinds, choices, centres, strict=True)),
        bins=tuple(Bins(s == "Yes", int(c), int(r)) for s, c, r in zip(scaled, counts, radii, strict=True)),
        zernikes=module.one("Calculate intensity Zernikes?"),
        degree=int(module.number_of("Maximum zernike moment")),
    )


def _size_shape(module: Module) -> SizeShape:
    return SizeShape(
        objects=module.names("Select object sets to measure"),
        zernikes=module.flag("Calculate the Zernike features?"),
        advanced=module.flag("Calculate the advanced features?"),
    )


def _texture(module: Module) -> Texture:
    return Texture(
        images=module.names("Select images to measure"),
        objects=module.names("Select objects to measure"),
        levels=int(module.number_of("Enter how many gray levels to measure the texture at")),
        where=module.one("Measure whole images or objects?"),
        scales=tuple(int(v) for v in module.all("Texture scale to measure")),
    )


READERS: dict[str, Callable[[Module], Step]] = {
    "IdentifyPrimaryObjects": _primary,
    "IdentifySecondaryObjects": _secondary,
    "IdentifyTertiaryObjects": _tertiary,
    "MeasureImageQuality": _quality,
    "MeasureColocalization": _colocalization,
    "MeasureGranularity": _granularity,
    "MeasureObjectIntensity": _intensity,
    "MeasureObjectNeighbors": _neighbours,
    "MeasureObjectIntensityDistribution": _distribution,
    "MeasureObjectSizeShape": _size_shape,
    "MeasureTexture": _texture,
}


@dataclass(frozen=True)
class Plan:
    """The steps of a pipeline in order, and the channels that they need."""

    path: Path
    steps: tuple[Step, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of all pictures that some step reads, in the order of their first use."""
        names: list[str] = []
        for step in self.steps:
            if isinstance(step, Primary | Secondary):
                names.append(step.image)
            elif isinstance(step, ImageQuality):
                names.extend(name for group in step.groups for name in group.images)
            elif not isinstance(step, Tertiary | Neighbours | SizeShape):
                names.extend(step.images)
        return tuple(dict.fromkeys(names))


def read_plan(settings: str | Path) -> Plan:
    """The plan of a settings name ("sim128", "jump", "full") or of a .cppipe file.

    Raises:
        InvalidSettings: no such file, or a module that engine `fast` does not have.
    """
    path = pipeline(settings)
    steps = []
    for module in read_modules(path):
        if module.name in FILE_MODULES:
            continue
        if module.name not in READERS:
            raise InvalidSettings(
                f"settings: {path.name} has a module {module.name}, engine fast has {', '.join(READERS)}: use engine "
                "cellprofiler for this pipeline"
            )
        steps.append(READERS[module.name](module))
    return Plan(path, tuple(steps))
