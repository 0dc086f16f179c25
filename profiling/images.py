"""Pictures to files and back: OME-TIFF with named channels, and PNG previews for people.

Pictures are float32 [channels, h, w] in [0, 1] camera units; a file holds 16-bit counts, 1 = 65535. Channels always
have names: a file or an array whose channels are not named is refused, never guessed.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Float, Float32, UInt8, UInt16
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CAMERA_MAXIMUM = 65535

#: Colour of each channel in the composite preview, as red, green, blue shares: DNA blue, ER green, RNA yellow, AGP red,
#: Mito magenta.
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "DNA": (0.0, 0.2, 1.0),
    "ER": (0.0, 0.8, 0.2),
    "RNA": (0.5, 0.5, 0.0),
    "AGP": (0.9, 0.2, 0.0),
    "Mito": (0.6, 0.0, 0.6),
}
_NAMESPACE = "dopaint"


class InvalidImage(ValueError):
    """Not a picture with named channels in the stated range, or a file that cannot be read as one."""


@dataclass(frozen=True)
class Picture:
    """What a file holds: pixels in [0, 1], the channels' names, pixel size in µm if stated, the writer's annotation."""

    pixels: Float32[np.ndarray, "c h w"]
    channels: tuple[str, ...]
    pixel_size_um: float | None = None
    annotation: Mapping[str, str] = field(default_factory=dict)


def to_counts(pixels: Float[np.ndarray, "*shape"]) -> UInt16[np.ndarray, "*shape"]:
    """[0, 1] → 16-bit camera counts, rounded to the nearest.

    Raises:
        InvalidImage: values outside of [0, 1], or not finite.
    """
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if not (np.isfinite([low, high]).all() and low >= 0.0 and high <= 1.0):
        raise InvalidImage(f"pixels: got values from {low:g} to {high:g}, expected camera units from 0 to 1")
    return np.rint(pixels * CAMERA_MAXIMUM).astype(np.uint16)


def from_counts(counts: UInt16[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """16-bit camera counts → [0, 1]; the inverse of `to_counts` up to half a count."""
    return (counts / CAMERA_MAXIMUM).astype(np.float32)


def write_ome_tiff(
    path: Path,
    pixels: Float32[np.ndarray, "c h w"],
    channels: Sequence[str],
    *,
    annotation: Mapping[str, str],
    pixel_size_um: float | None = None,
    name: str = "",
) -> None:
    """Writes one picture as OME-TIFF: 16-bit, one page a channel, named channels, losslessly compressed.

    `annotation` goes into the OME description and into an OME map annotation; it must say under "evidence" what the
    picture is, for example "simulation". `pixel_size_um` is the side of a pixel in µm. Same input, same bytes.

    Raises:
        InvalidImage: unnamed channels, values outside of [0, 1], no evidence, or a pixel size that is not positive.
    """
    _check_channels(pixels.shape, channels)
    if not annotation.get("evidence"):
        raise InvalidImage(f"annotation: got keys {sorted(annotation)}, expected 'evidence' (what the picture is) too")
    metadata: dict[str, object] = {
        "axes": "CYX",
        "Name": name or path.name.split(".")[0],
        "Channel": {"Name": list(channels)},
        "Description": json.dumps(dict(annotation), sort_keys=True),
        "MapAnnotation": {"Namespace": _NAMESPACE, **{key: str(value) for key, value in annotation.items()}},
        # tifffile draws a random one; a fixed one keeps the same picture the same bytes
        "UUID": "00000000-0000-0000-0000-000000000000",
    }
    if pixel_size_um is not None:
        if not pixel_size_um > 0:
            raise InvalidImage(f"pixel_size_um: got {pixel_size_um}, expected a positive number of µm")
        metadata |= {"PhysicalSizeX": pixel_size_um, "PhysicalSizeXUnit": "µm"}
        metadata |= {"PhysicalSizeY": pixel_size_um, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(
        path,
        to_counts(pixels),
        ome=True,
        photometric="minisblack",
        compression="zlib",
        predictor=True,
        metadata=metadata,
        software="dopaint",
        datetime=False,
    )


def read_ome_tiff(path: Path) -> Picture:
    """Reads a 2-D OME-TIFF of 8- or 16-bit counts or of floats in [0, 1] as a Picture.

    Raises:
        InvalidImage: the file cannot be read, is no OME-TIFF, has further axes, or has channels without names.
    """
    try:
        with tifffile.TiffFile(path) as file:
            xml, axes, array = file.ome_metadata, file.series[0].axes, file.series[0].asarray()
    except (OSError, ValueError, KeyError, IndexError, tifffile.TiffFileError) as error:
        raise InvalidImage(f"{path} cannot be read as TIFF: {error}") from error
    if xml is None:
        raise InvalidImage(f"{path} is no OME-TIFF: its channels have no names; state them when you convert it")
    if axes == "YX":
        array = array[None]
    elif axes != "CYX":
        raise InvalidImage(f"{path} has axes {axes}, expected CYX: one field, named channels, no time and no depth")
    root = ElementTree.fromstring(xml)
    tag = root.tag.partition("}")[0] + "}"
    pixels = root.find(f"{tag}Image/{tag}Pixels")
    if pixels is None:
        raise InvalidImage(f"{path} has OME metadata without an image")
    channels = tuple(channel.get("Name", "") for channel in pixels.findall(f"{tag}Channel"))
    _check_channels(array.shape, channels)
    size = pixels.get("PhysicalSizeX")
    annotation = {
        entry.get("K", ""): entry.text or ""
        for values in root.findall(f"{tag}StructuredAnnotations/{tag}MapAnnotation")
        if values.get("Namespace") == _NAMESPACE
        for entry in values.findall(f"{tag}Value/{tag}M")
    }
    return Picture(_unit_range(path, array), channels, None if size is None else float(size), annotation)


def composite(
    pixels: Float32[np.ndarray, "c h w"],
    channels: Sequence[str],
    ranges: Mapping[str, tuple[float, float]],
) -> UInt8[np.ndarray, "h w 3"]:
    """All channels in one RGB picture, in the colours of `COLOURS`; `ranges`: each channel's black and white in [0, 1].

    Raises:
        InvalidImage: unnamed channels, a channel without a colour or without a range.
    """
    _check_channels(pixels.shape, channels)
    missing = [name for name in channels if name not in COLOURS]
    if missing:
        raise InvalidImage(f"channels: no colour for {', '.join(missing)}; colours are known for {', '.join(COLOURS)}")
    planes = []
    for plane, name in zip(pixels, channels, strict=True):
        planes.append(_stretch(plane, name, ranges)[..., None] * np.array(COLOURS[name]))
    return _bytes(np.sum(planes, axis=0))


def grey(
    plane: Float32[np.ndarray, "h w"], channel: str, ranges: Mapping[str, tuple[float, float]]
) -> UInt8[np.ndarray, "h w"]:
    """One channel as grey; `ranges[channel]` gives black and white in [0, 1]. Raises InvalidImage without a range."""
    return _bytes(_stretch(plane, channel, ranges))


def display_ranges(
    pictures: Float32[np.ndarray, "n c h w"], channels: Sequence[str], low: float = 0.5, high: float = 99.7
) -> dict[str, tuple[float, float]]:
    """Black and white of each channel: two percentiles over all the pictures, so that pictures stay comparable."""
    _check_channels(pictures.shape[1:], channels)
    black, white = np.percentile(pictures, [low, high], axis=(0, 2, 3))
    return {name: (float(b), float(max(w, b + 1e-6))) for name, b, w in zip(channels, black, white, strict=True)}


def write_png(path: Path, picture: UInt8[np.ndarray, "h w *rgb"], text: Mapping[str, str], magnify: int = 1) -> None:
    """Writes a preview; `text` (evidence, ranges) goes into the file's text chunks, `magnify` repeats pixels."""
    info = PngInfo()
    for key, value in sorted(text.items()):
        info.add_itxt(key, value)
    large = picture.repeat(magnify, axis=0).repeat(magnify, axis=1)
    Image.fromarray(np.ascontiguousarray(large)).save(path, pnginfo=info)


def _check_channels(shape: Sequence[int], channels: Sequence[str]) -> None:
    if len(shape) != 3 or len(channels) != shape[0] or len(set(channels)) != len(channels) or not all(channels):
        raise InvalidImage(
            f"channels: got names {list(channels)} for a picture of shape {tuple(shape)}, expected one distinct name "
            "for each channel of [channels, h, w]"
        )


def _unit_range(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.uint8, np.uint16):
        return (array / np.iinfo(array.dtype).max).astype(np.float32)
    if array.dtype.kind == "f" and array.size and np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1:
        return array.astype(np.float32)
    raise InvalidImage(f"{path} has {array.dtype} pixels, expected 8- or 16-bit counts, or floats from 0 to 1")


def _stretch(plane: np.ndarray, channel: str, ranges: Mapping[str, tuple[float, float]]) -> np.ndarray:
    if channel not in ranges:
        raise InvalidImage(f"ranges: none for channel {channel}, got {', '.join(ranges)}")
    black, white = ranges[channel]
    if not white > black:
        raise InvalidImage(f"ranges: {channel} goes from {black:g} to {white:g}, expected black below white")
    return np.clip((plane - black) / (white - black), 0.0, 1.0)


def _bytes(unit: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)
