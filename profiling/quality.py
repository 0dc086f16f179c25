"""Quality control of pictures: blur, saturation and intensity, as CellProfiler's MeasureImageQuality defines them.

Four numbers a channel: PowerLogLogSlope (the slope of the log-log power spectrum; blur makes it steeper, more
negative), FocusScore (normalised variance; blur lowers it), PercentMaximal (share of pixels at the picture's own
maximum; saturation raises it) and MeanIntensity (Bray et al. 2012, doi:10.1177/1087057111420292). A flag says which
rule a channel broke. Flags are one thing, exclusion another: dark and bright pictures are flagged and kept by default,
because a compound that kills cells makes dark pictures, and to drop them would drop its effect.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from profiling.engines.families import image_quality
from profiling.engines.pipeline_settings import ImageQuality, QualityGroup

#: Metrics of one channel, in the order of the arrays here; columns are ImageQuality_<metric>_<channel>.
METRICS = ("PowerLogLogSlope", "FocusScore", "PercentMaximal", "MeanIntensity")
FLAGS = ("blurred", "unfocused", "saturated", "dark", "bright")


class InvalidQuality(ValueError):
    """Limits that cannot be, or too few pictures to judge others by."""


@dataclass(frozen=True)
class QualityLimits:
    """When a picture is flagged; None switches a rule off.

    Absolute: `min_slope` (blurred below), `max_percent_maximal` (saturated above), `min_mean` and `max_mean` in [0, 1].
    Relative to the other pictures of the plate, in robust standard deviations (1.4826 MAD) from the median:
    `slope_deviations` (blurred below), `focus_deviations` (unfocused below), `mean_deviations` (dark or bright beyond).
    `exclude`: flags that keep a picture out of its well's mean. `min_pictures`: with fewer on a plate, the relative
    rules are refused.
    """

    min_slope: float | None = None
    max_percent_maximal: float | None = 1.0
    min_mean: float | None = None
    max_mean: float | None = None
    slope_deviations: float | None = 5.0
    focus_deviations: float | None = None
    mean_deviations: float | None = 5.0
    exclude: tuple[str, ...] = ("blurred", "unfocused", "saturated")
    min_pictures: int = 8

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.exclude) - set(FLAGS)):
            raise InvalidQuality(f"exclude: got {', '.join(unknown)}, expected some of {', '.join(FLAGS)}")
        for name in ("slope_deviations", "focus_deviations", "mean_deviations"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InvalidQuality(f"{name}: got {value}, expected a positive number of standard deviations, or None")

    @staticmethod
    def from_mapping(table: Mapping[str, Any]) -> QualityLimits:
        """From a TOML table ("off" for None); an unknown key is an error."""
        known = {f.name for f in fields(QualityLimits)}
        if unknown := sorted(set(table) - known):
            raise InvalidQuality(f"quality control has unknown keys {unknown}: known are {sorted(known)}")
        read: dict[str, Any] = {}
        for name, value in table.items():
            whole = isinstance(value, int) and name != "min_pictures"
            read[name] = (
                None if value == "off" else tuple(value) if name == "exclude" else float(value) if whole else value
            )
        return QualityLimits(**read)

    @property
    def relative(self) -> bool:
        """Whether any rule compares a picture with others."""
        return any(v is not None for v in (self.slope_deviations, self.focus_deviations, self.mean_deviations))


@dataclass(frozen=True)
class Baseline:
    """Median and robust standard deviation of each metric of each channel over the pictures of a plate: [c, 4]."""

    median: Float[np.ndarray, "c 4"]
    deviation: Float[np.ndarray, "c 4"]
    n: int


def quality(pixels: Float32[np.ndarray, "c h w"]) -> Float[np.ndarray, "c 4"]:
    """The METRICS of each channel; pixels in [0, 1]. Cost: a few passes over the pixels, a transform of the rows."""
    names = tuple(str(i) for i in range(len(pixels)))
    group = QualityGroup(images=names, scaling=False, blur=True, scales=(), saturation=True, intensity=True)
    settings = ImageQuality((group,))
    planes = dict(zip(names, pixels, strict=True))
    values = dict(zip(image_quality.image_names(settings), image_quality.measure_image(planes, settings), strict=True))
    return np.array([values[column] for column in columns(names)]).reshape(len(pixels), len(METRICS))


def columns(channels: Sequence[str]) -> tuple[str, ...]:
    """CellProfiler's names of `quality(...).ravel()`."""
    return tuple(f"ImageQuality_{metric}_{channel}" for channel in channels for metric in METRICS)


def baseline(values: Float[np.ndarray, "n c 4"], limits: QualityLimits) -> Baseline:
    """What the pictures of one plate have in common, from their metrics; robust, so that a few bad ones do not matter.

    Raises:
        InvalidQuality: fewer than `limits.min_pictures`.
    """
    if len(values) < limits.min_pictures:
        raise InvalidQuality(
            f"values: got {len(values)} pictures of a plate, expected at least {limits.min_pictures} to judge by; "
            "lower min_pictures, or switch the relative rules off and give absolute limits"
        )
    middle = np.median(values, axis=0)
    return Baseline(middle, 1.4826 * np.median(np.abs(values - middle), axis=0), len(values))


def flags(
    values: Float[np.ndarray, "c 4"], channels: Sequence[str], limits: QualityLimits, plate: Baseline | None = None
) -> tuple[str, ...]:
    """Broken rules as "<flag>:<channel>", in the order of the channels.

    Raises:
        InvalidQuality: a relative rule, and no baseline to compare with.
    """
    if limits.relative and plate is None:
        raise InvalidQuality(
            "plate: got none, but rules compare a picture with its plate: fit a baseline, or switch them off"
        )
    found: list[str] = []
    for i, channel in enumerate(channels):
        slope, _, maximal, mean = values[i]
        far = np.zeros(4) if plate is None else _deviations(values[i], plate.median[i], plate.deviation[i])
        rules = {
            "blurred": _below(slope, limits.min_slope) or _below(far[0], limits.slope_deviations, -1),
            "unfocused": _below(far[1], limits.focus_deviations, -1),
            "saturated": limits.max_percent_maximal is not None and maximal > limits.max_percent_maximal,
            "dark": _below(mean, limits.min_mean) or _below(far[3], limits.mean_deviations, -1),
            "bright": (limits.max_mean is not None and mean > limits.max_mean)
            or _below(-far[3], limits.mean_deviations, -1),
        }
        found += [f"{flag}:{channel}" for flag in FLAGS if rules[flag]]
    return tuple(found)


def _deviations(values: np.ndarray, median: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations; where all pictures agree, any difference is infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        far = (values - median) / deviation
    return np.where(values == median, 0.0, far)


def _below(value: float, limit: float | None, sign: int = 1) -> bool:
    return limit is not None and bool(value < sign * limit)


def excludes(found: Sequence[str], limits: QualityLimits) -> bool:
    """Whether these flags keep a picture out of its well's mean."""
    return any(flag.partition(":")[0] in limits.exclude for flag in found)


def report(found: Iterable[Sequence[str]], limits: QualityLimits) -> pd.DataFrame:
    """Counts: one row a flag and channel (flag, channel, pictures, excludes), then "any" and "excluded" over all.

    A picture with two flags counts in both rows and once in the last two.
    """
    rows = [tuple(one) for one in found]
    counts = Counter(flag for one in rows for flag in one)
    table = [
        (*flag.split(":", 1), n, flag.partition(":")[0] in limits.exclude)
        for flag, n in sorted(counts.items(), key=lambda item: (FLAGS.index(item[0].partition(":")[0]), item[0]))
    ]
    table.append(("any", "", sum(bool(one) for one in rows), False))
    table.append(("excluded", "", sum(excludes(one, limits) for one in rows), True))
    out = pd.DataFrame(table, columns=["flag", "channel", "pictures", "excludes"])
    out["of"] = len(rows)
    return out


def limits_hash(limits: QualityLimits) -> str:
    """sha256 of the limits: part of a run's settings."""
    return hashlib.sha256(json.dumps(asdict(limits), sort_keys=True).encode()).hexdigest()
