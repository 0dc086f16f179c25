"""Settings for another magnification: every length of a pipeline file scaled from one pixel size to another.

The shipped `jump`, `jump8` and `full` are for 0.598 µm a pixel (20×, 2 × 2 binning, as in JUMP). At another pixel size
the same cell has other diameters, texture scales, neighbour distances and blur windows in pixels; here they are
derived, and a new .cppipe is written that CellProfiler and both engines open. Feature names hold pixels
(`Texture_Contrast_DNA_10_00_256`), so profiles of two pixel sizes have other columns: compare within one.

Granularity works on a picture made smaller: the factor is set so that a small pixel keeps its size in µm. Where that
would need a picture made larger, the factor is 1 and the background's radius shrinks instead; a step of the spectrum is
then longer than in the original, in µm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from profiling.engines import settings as pipelines
from profiling.engines.settings import InvalidSettings

#: µm a pixel for which a settings name was made.
PIXEL_UM: Mapping[str, float] = {"jump": 0.598, "jump8": 0.598, "full": 0.598}

#: Settings that are whole numbers of pixels, never below 1.
_WHOLE = (
    "Typical diameter of objects, in pixel units (Min,Max)",
    "Size of smoothing filter",
    "Size of adaptive window",
    "Number of pixels by which to expand the primary objects",
    "Spatial scale for blur measurements",
    "Neighbor distance",
    "Maximum radius",
    "Texture scale to measure",
)
#: Settings that are any number of pixels; 0 stays 0.
_REAL = ("Suppress local maxima that are closer than this minimum allowed distance", "Threshold smoothing scale")
_SUBSAMPLE, _RADIUS = "Subsampling factor for granularity measurements", "Radius of structuring element"
#: Settings whose values name columns: within one module no two may become equal.
_DISTINCT = ("Spatial scale for blur measurements", "Texture scale to measure")


def pixel_size_um(camera_um: float, magnification: float, binning: int = 1) -> float:
    """µm a pixel in the sample: side of the camera's pixel × binning / magnification.

    Raises:
        InvalidSettings: one of them is not positive.
    """
    if min(camera_um, magnification, binning) <= 0:
        raise InvalidSettings(
            f"camera_um, magnification, binning: got {camera_um}, {magnification}, {binning}, expected positive numbers"
        )
    return camera_um * binning / magnification


def for_pixel_size(settings: str | Path, pixel_um: float, out: Path, made_for_um: float | None = None) -> Path:
    """Writes to `out` the pipeline of `settings` with its lengths scaled for pictures of `pixel_um` µm a pixel.

    `made_for_um`: the pixel size that the pipeline's own lengths are for; known for the names in PIXEL_UM.

    Raises:
        InvalidSettings: pixel sizes that are not positive or not stated, scales that become equal in pixels (the pixels
        are too large for these measurements), or a file that is no pipeline.
    """
    source = pipelines.pipeline(settings)
    known = made_for_um if made_for_um is not None else PIXEL_UM.get(str(settings))
    if known is None:
        raise InvalidSettings(
            f"made_for_um: not stated; a pipeline of your own ({source.name}) does not say for which pixel size it is"
        )
    if known <= 0 or pixel_um <= 0:
        raise InvalidSettings(f"pixel_um, made_for_um: got {pixel_um} and {known}, expected positive numbers of µm")
    try:
        text = scaled(source.read_text(encoding="utf-8"), known / pixel_um)
    except InvalidSettings as error:
        raise InvalidSettings(f"{source.name} at {pixel_um:g} µm a pixel: {error}") from None
    note = f"Lengths scaled from {known:g} to {pixel_um:g} um a pixel by dopaint."
    out.write_text(re.sub(r"\|notes:\[(?=['\]])", f"|notes:['{note}', ", text, count=1), encoding="utf-8")
    return out


def scaled(text: str, factor: float) -> str:
    """The text of a pipeline file with every length multiplied by `factor` (pixels of the new size in an old one).

    Raises:
        InvalidSettings: two scales of one module would become equal.
    """
    seen: dict[str, list[str]] = {}
    growth = 1.0  # of the radius, set by the subsampling factor, which stands before it
    lines = []
    for line in text.splitlines(keepends=True):
        if re.match(r"^[A-Za-z]\w*:\[", line):
            seen, growth = {}, 1.0
        name, colon, value = line.strip().partition(":")
        new = value
        if colon and name in _WHOLE:
            new = ",".join(str(_whole(part, factor)) for part in value.split(","))
        elif colon and name in _REAL:
            new = _real(value, float(value) * factor)
        elif colon and name == _SUBSAMPLE:
            exact = float(value) / factor
            new, growth = _real(value, min(1.0, exact)), min(1.0, 1.0 / exact)
        elif colon and name == _RADIUS:
            new = str(_whole(value, growth))
        if name in _DISTINCT:
            others = seen.setdefault(name, [])
            if new in others:
                raise InvalidSettings(
                    f"two settings {name!r} become {new} pixels: remove one of them from the pipeline"
                )
            others.append(new)
        lines.append(line if new == value else line.replace(f"{name}:{value}", f"{name}:{new}", 1))
    return "".join(lines)


def _whole(text: str, factor: float) -> int:
    return max(1, int(float(text) * factor + 0.5))


def _real(text: str, number: float) -> str:
    return text if float(text) == number else f"{number:.6g}"
