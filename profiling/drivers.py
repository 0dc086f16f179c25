"""Which features drive a similarity: each feature's share in the correlation, grouped by what it measures.

A Biosimilarity is a sum over features, r = sum of (u_j - mean u)(v_j - mean v) / (|u - mean u| |v - mean v|); the
terms are the contributions. Feature names are those of CellProfiler: Object_Family_..._Channel_...
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from profiling.subprofile import CLIP, SubProfiles

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
NO_CHANNEL = "none"


@dataclass(frozen=True)
class FeatureName:
    """What a feature measures: compartment ("Nuclei"), family ("Texture"), channels ("DNA", "DNA+ER" or "none")."""

    compartment: str
    family: str
    channel: str


@dataclass(frozen=True)
class Driver:
    """A feature and its term in the correlation; `value` of the compound, `reference` of the sub-profile."""

    feature: str
    contribution: float
    value: float
    reference: float


@dataclass(frozen=True)
class DriverGroup:
    """The summed contributions of the features of one compartment, channel and family; all groups add up to r."""

    compartment: str
    channel: str
    family: str
    contribution: float
    n_features: int


def read_name(name: str, channels: Sequence[str] = CHANNELS) -> FeatureName:
    """ "Nuclei_Texture_Contrast_RNA_3_00_256" -> Nuclei, Texture, RNA. A name of another making gives "other"."""
    parts = name.split("_")
    named = [c for c in parts[1:] if c in set(channels)]
    return FeatureName(parts[0], parts[1] if len(parts) > 1 else "other", "+".join(dict.fromkeys(named)) or NO_CHANNEL)


def contributions(profile: Float[np.ndarray, " k"], subprofiles: SubProfiles, label: str) -> Float[np.ndarray, " k"]:
    """Terms of the correlation of `profile` with the sub-profile of `label`; 0 outside it and where the profile is NaN.

    They add up to the Biosimilarity in [-1, 1], before flooring and per cent; all 0 where that is not defined.
    """
    row = subprofiles.labels.index(label)
    clip = CLIP[subprofiles.convention]
    used = subprofiles.mask[row] & ~np.isnan(profile)
    out = np.zeros(len(profile))
    if used.sum() < 2:
        return out
    u, v = np.clip(profile[used], -clip, clip), np.clip(subprofiles.values[row, used], -clip, clip)
    u, v = u - u.mean(), v - v.mean()
    size = float(np.linalg.norm(u) * np.linalg.norm(v))
    if size > 0:
        out[used] = u * v / size
    return out


def drivers(
    profile: Float[np.ndarray, " k"],
    subprofiles: SubProfiles,
    label: str,
    most: int = 10,
    channels: Sequence[str] = CHANNELS,
) -> tuple[tuple[Driver, ...], tuple[DriverGroup, ...]]:
    """The `most` features that add most to the similarity with `label`, and every group with its sum, largest first."""
    terms = contributions(profile, subprofiles, label)
    used = np.flatnonzero(terms)
    order = sorted(used.tolist(), key=lambda j: (-terms[j], subprofiles.names[j]))
    values = subprofiles.values[subprofiles.labels.index(label)]
    top = tuple(
        Driver(subprofiles.names[j], float(terms[j]), float(profile[j]), float(values[j])) for j in order[:most]
    )
    groups: dict[FeatureName, list[float]] = {}
    for j in used.tolist():
        groups.setdefault(read_name(subprofiles.names[j], channels), []).append(float(terms[j]))
    summed = [DriverGroup(g.compartment, g.channel, g.family, sum(t), len(t)) for g, t in groups.items()]
    return top, tuple(sorted(summed, key=lambda g: (-g.contribution, g.compartment, g.channel, g.family)))
