"""cp_measure's column names, and CellProfiler's where the meaning is equal.

cp_measure names a feature without its channel ("Contrast_3_00_256"); here it gets the channel, and CellProfiler's own
name ("Texture_Contrast_DNA_3_00_256") where both mean the same number (measured on identical masks: see
docs/methods.md). What means another number, or what CellProfiler has not, keeps cp_measure's name behind
"cp_measure_": RWC ranks the pixels of each object by itself (CellProfiler: of all objects of the field), Costes
searches otherwise; PerimeterCrofton, FilledArea and the slope of two channels inside an object CellProfiler has not.
"""

from __future__ import annotations

OWN = "cp_measure_"
#: Features of size and shape that CellProfiler 4 has not.
NOT_OF_CELLPROFILER = frozenset({"FilledArea", "PerimeterCrofton"})


def shape(name: str) -> str:
    """Sizes, shapes, Zernikes and Feret diameters of objects."""
    return f"{OWN}{name}" if name in NOT_OF_CELLPROFILER else f"AreaShape_{name}"


def intensity(name: str, channel: str) -> str:
    """ "Intensity_MeanIntensity", "Location_MaxIntensity_X" """
    return f"{name}_{channel}"


def radial(name: str, channel: str) -> str:
    """ "RadialDistribution_FracAtD_1of4" → "RadialDistribution_FracAtD_DNA_1of4" """
    family, measure, ring = name.split("_")
    return f"{family}_{measure}_{channel}_{ring}"


def radial_zernike(name: str, channel: str) -> str:
    """ "RadialDistribution_ZernikeMagnitude_0_0" → "RadialDistribution_ZernikeMagnitude_DNA_0_0" """
    family, measure, n, m = name.split("_")
    return f"{family}_{measure}_{channel}_{n}_{m}"


def granularity(name: str, channel: str) -> str:
    """ "Granularity_1" → "Granularity_1_DNA" """
    return f"{name}_{channel}"


def texture(name: str, channel: str) -> str:
    """ "Contrast_3_00_256" → "Texture_Contrast_DNA_3_00_256" """
    measure, rest = name.split("_", 1)
    return f"Texture_{measure}_{channel}_{rest}"


def colocalization(name: str, first: str, second: str) -> str:
    """ "Correlation_Pearson" → "Correlation_Correlation_DNA_ER"; "Correlation_Manders_2" → "..._Manders_ER_DNA"; RWC,
    Costes and Slope keep their own names: "cp_measure_Correlation_RWC_DNA_ER"."""
    measure = name.split("_", 1)[1]
    if measure.endswith(("_1", "_2")):
        pair = f"{first}_{second}" if measure.endswith("_1") else f"{second}_{first}"
        measure = measure[:-2]
    else:
        pair = f"{first}_{second}"
    measure = "Correlation" if measure == "Pearson" else measure
    own = OWN if measure in ("RWC", "Costes", "Slope") else ""
    return f"{own}Correlation_{measure}_{pair}"
