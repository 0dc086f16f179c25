"""A first look at all pictures of a plate, before any is measured: what light they share, and which stand out.

Illumination functions and the baselines of quality control are properties of a plate, so they need all its pictures
once; pictures are read one by one and only sums and a few numbers a picture are kept. What was found is kept on disk,
one plate whole or not at all, so that a stopped run does not look again.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from profiling import illumination as light
from profiling import quality
from profiling.inputs.field import Field, FieldSet, describe
from profiling.inputs.pixels import field_key, read_field
from profiling.outcomes import BadPicture, Limits, check_pixels
from profiling.shards import write_whole

#: Metadata that say which plate a field is of.
PLATE = ("Source", "Batch", "Plate")
AHEAD = 8  # pictures that are read while one is looked at

Progress = Callable[[int, int, str], None]
Plate = tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """One plate: its illumination function, if asked for, and quality metrics [c, 4] by field key."""

    illumination: light.Illumination | None
    metrics: Mapping[str, Float[np.ndarray, "c 4"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """What to look for: `light` None: no illumination. `metrics`: numbers of quality control."""

    light: light.IlluminationConfig | None = None
    metrics: bool = False


def plate_of(one: Field) -> Plate:
    """The plate of a field; fields without any such metadata are one plate."""
    return tuple(one.meta[name] for name in PLATE if name in one.meta)


def look(
    fields: FieldSet, bits: str, limits: Limits, asked: Asked, folder: Path, progress: Progress | None = None
) -> dict[Plate, Look]:
    """Looks at every plate of the input; `folder` keeps what was found. Pictures that have a bad outcome are left out.

    Raises:
        InvalidIllumination: a plate with too few good pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plates: dict[Plate, list[Field]] = {}
    for one in fields.fields:
        plates.setdefault(plate_of(one), []).append(one)
    found, done = {}, 0
    for plate, members in plates.items():
        keys = [field_key(one) for one in members]
        path = folder / f"{_plate_hash(keys, bits, limits, asked, fields.channels)}.npz"
        if (kept := _load(path)) is None:
            kept = _look(members, keys, fields.channels, bits, limits, asked, _from(done, len(fields.fields), progress))
            write_whole(path, _dump(kept))
        found[plate] = kept
        done += len(members)
    return found


def correction(
    looks: Mapping[Plate, Look], channels: Sequence[str]
) -> tuple[str, Callable[[Field, np.ndarray], np.ndarray]]:
    """The hash of all plates' functions, and the function that corrects one field by its plate's."""
    functions = {plate: one.illumination for plate, one in looks.items() if one.illumination is not None}

    def correct(one: Field, pixels: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
        return light.correct(pixels, channels, functions[plate_of(one)])

    hashes = sorted(f"{'/'.join(plate)} {function.hash}" for plate, function in functions.items())
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest(), correct


def read_functions(folder: Path, fields: FieldSet) -> dict[Plate, Look]:
    """Illumination functions that were made before: `<plate>.npz` of ours, or `<plate>_Illum<channel>.npy` as the Cell
    Painting Gallery has them (division), in `folder`, in `folder/<plate>` or where the gallery has them below it.

    Raises:
        InvalidIllumination: a plate without its functions.
    """
    found = {}
    for plate in dict.fromkeys(plate_of(one) for one in fields.fields):
        name = plate[-1] if plate else "all"
        ours = folder / f"{name}.npz"
        if ours.is_file():
            found[plate] = Look(light.Illumination.load(ours))
            continue
        batch = plate[1] if len(plate) == 3 else ""
        gallery = [folder / plate[0], folder] if batch else []
        roots = [folder, folder / name, *(source / "images" / batch / "illum" / name for source in gallery)]
        places = [[root / f"{name}_Illum{channel}.npy" for channel in fields.channels] for root in roots]
        files = next((paths for paths in places if all(path.is_file() for path in paths)), None)
        if files is None:
            raise light.InvalidIllumination(
                f"illumination: {folder} has neither {name}.npz nor {name}_Illum<channel>.npy for all of "
                f"{', '.join(fields.channels)}"
            )
        planes = np.stack([np.load(path, allow_pickle=False) for path in files]).astype(np.float32)
        found[plate] = Look(light.Illumination(planes, fields.channels, "divide", 0))
    return found


@dataclass(frozen=True)
class Judge:
    """Quality control of a run: flags of a field, and whether they keep it out of its well's mean."""

    looks: Mapping[Plate, Look]
    channels: tuple[str, ...]
    limits: quality.QualityLimits
    baselines: Mapping[Plate, quality.Baseline | None]

    def flags(self, one: Field) -> tuple[str, ...]:
        """Broken rules; none for a field that was not measured anyway."""
        plate = plate_of(one)
        metrics = self.looks[plate].metrics.get(field_key(one))
        if metrics is None:
            return ()
        return quality.flags(metrics, self.channels, self.limits, self.baselines[plate])

    def excludes(self, flags: Sequence[str]) -> bool:
        """Whether these flags keep a field out of its well."""
        return quality.excludes(flags, self.limits)

    def report(self, found: Iterable[Sequence[str]]) -> pd.DataFrame:
        """Counts by flag and channel."""
        return quality.report(found, self.limits)


def judge(looks: Mapping[Plate, Look], channels: Sequence[str], limits: quality.QualityLimits) -> Judge:
    """Quality control by these looks. Raises InvalidQuality: a relative rule, and a plate with too few pictures."""
    baselines: dict[Plate, quality.Baseline | None] = {}
    for plate, one in looks.items():
        values = np.array(list(one.metrics.values())).reshape(-1, len(channels), len(quality.METRICS))
        baselines[plate] = quality.baseline(values, limits) if limits.relative and len(values) else None
    return Judge(looks, tuple(channels), limits, baselines)


def _look(
    members: Sequence[Field],
    keys: Sequence[str],
    channels: tuple[str, ...],
    bits: str,
    limits: Limits,
    asked: Asked,
    tell: Callable[[int], None],
) -> Look:
    def read(one: Field) -> np.ndarray | None:
        try:
            pixels = read_field(one, channels, bits)
            check_pixels(pixels, channels, limits)
        except BadPicture:
            return None
        return pixels

    mean, metrics = light.Mean(channels), {}
    done = 0
    with ThreadPoolExecutor(2) as pool:
        for k in range(0, len(members), AHEAD):
            pictures = pool.map(read, members[k : k + AHEAD])
            for key, pixels in zip(keys[k : k + AHEAD], pictures, strict=True):
                if pixels is not None:
                    if asked.light is not None:
                        mean.add(pixels)
                    if asked.metrics:
                        metrics[key] = quality.quality(pixels)
                done += 1
                tell(done)
    if asked.light is None or not mean.n:  # without a good picture there is nothing to correct either
        return Look(None, metrics)
    try:
        return Look(light.fit(mean, asked.light), metrics)
    except light.InvalidIllumination as error:
        raise light.InvalidIllumination(f"plate {describe(members[0].meta)}: {error}") from error


def _from(done: int, total: int, progress: Progress | None) -> Callable[[int], None]:
    return lambda more: progress(done + more, total, "looking at plates") if progress else None


def _plate_hash(keys: Sequence[str], bits: str, limits: Limits, asked: Asked, channels: Sequence[str]) -> str:
    content = [sorted(keys), bits, asdict(limits), asked.light and asdict(asked.light), asked.metrics, list(channels)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _dump(one: Look) -> bytes:
    content: dict[str, np.ndarray] = {
        "keys": np.array(list(one.metrics), dtype=str),
        "metrics": np.array(list(one.metrics.values())),
    }
    if one.illumination is not None:
        function = one.illumination
        content |= {
            "planes": function.planes,
            "channels": np.array(function.channels),
            "how": np.array(function.how),
            "n": np.array(function.n),
        }
    buffer = io.BytesIO()
    np.savez(buffer, **content)  # type: ignore[arg-type]
    return buffer.getvalue()


def _load(path: Path) -> Look | None:
    """What `_dump` wrote, or None: not there, or damaged on disk."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            metrics = dict(zip((str(key) for key in archive["keys"]), archive["metrics"], strict=True))
            if "planes" not in archive:
                return Look(None, metrics)
            names = tuple(str(name) for name in archive["channels"])
            return Look(light.Illumination(archive["planes"], names, str(archive["how"]), int(archive["n"])), metrics)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
