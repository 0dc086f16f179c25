"""Pictures of a result: OME-TIFF files with their evidence in the metadata, and PNG views of them.

Files hold uint16, 0 to 65535 for [0, 1]; previews are 8 bit. Display limits are fixed numbers in camera
units, so that pictures of a compound and of its control can be compared by eye.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import Float, UInt8
from PIL import Image

from service.answer import statement
from service.errors import NotFound
from service.rooms import ModelCard

COMPOSITE = "composite"
# Red, green and blue of each channel in the composite; for colour-blind readers there are the single channels.
COLOURS: dict[str, tuple[float, float, float]] = {
    "DNA": (0.15, 0.35, 1.0),
    "ER": (0.1, 0.9, 0.3),
    "RNA": (0.9, 0.8, 0.1),
    "AGP": (1.0, 0.45, 0.1),
    "Mito": (1.0, 0.1, 0.35),
}


def stem(draw: int) -> str:
    """File name of a draw without its ending."""
    return f"draw_{draw:04d}"


def write_picture(
    folder: Path, draw: int, picture: Float[np.ndarray, "c h w"], card: ModelCard, row: dict[str, Any]
) -> None:
    """OME-TIFF and composite PNG of one draw; `row` is its design row and goes into the metadata with the evidence."""
    plane = np.round(np.clip(picture, 0, 1) * 65535).astype(np.uint16)
    facts = {"evidence": card.evidence, "statement": statement(card.evidence), "conditions": card.conditions}
    words = {**facts, "model": card.name, **{key: str(value) for key, value in row.items()}}
    tifffile.imwrite(
        folder / f"{stem(draw)}.ome.tiff",
        plane,
        description=ome_xml(plane.shape, card.channels, words),
        metadata=None,
        photometric="minisblack",
        compression="zlib",
        software=False,
    )
    (folder / f"{stem(draw)}.png").write_bytes(png(plane / np.float32(65535), card.channels, COMPOSITE))


def read_picture(folder: Path, draw: int) -> Float[np.ndarray, "c h w"]:
    """The picture of a draw in [0, 1]. Raises `NotFound`."""
    file = folder / f"{stem(draw)}.ome.tiff"
    if not file.is_file():
        raise NotFound(f"draw {draw} has no picture in this result: draws are numbered from 0")
    return (tifffile.imread(file).astype(np.float32) / 65535).astype(np.float32)


def png(
    picture: Float[np.ndarray, "c h w"], channels: tuple[str, ...], view: str, low: float = 0.0, high: float = 0.6
) -> bytes:
    """PNG of one channel (grey) or of the composite; `low` and `high` in [0, 1] are shown black and white.

    Raises `NotFound` for an unknown channel.
    """
    shown = np.clip((picture - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    if view == COMPOSITE:
        colours = np.array([COLOURS.get(name, (1.0, 1.0, 1.0)) for name in channels], np.float32)
        mixed = 1 - np.prod(1 - shown[:, None] * colours[:, :, None, None], axis=0)
        return _encode(np.moveaxis(np.round(mixed * 255).astype(np.uint8), 0, -1))
    if view not in channels:
        raise NotFound(f"channel {view!r} is not in the pictures: expected {COMPOSITE} or one of {', '.join(channels)}")
    return _encode(np.round(shown[channels.index(view)] * 255).astype(np.uint8))


def _encode(pixels: UInt8[np.ndarray, "h w *rgb"]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def ome_xml(shape: tuple[int, ...], channels: tuple[str, ...], facts: dict[str, str]) -> str:
    """OME-XML of one field, planes in the order of the channels, `facts` as a map annotation; no clock, no path."""
    from xml.sax.saxutils import escape, quoteattr

    _, height, width = shape
    named = "".join(
        f'<Channel ID="Channel:0:{i}" Name={quoteattr(name)} SamplesPerPixel="1"/>' for i, name in enumerate(channels)
    )
    planes = "".join(
        f'<TiffData IFD="{i}" FirstC="{i}" FirstT="0" FirstZ="0" PlaneCount="1"/>' for i in range(len(channels))
    )
    pairs = "".join(f"<M K={quoteattr(key)}>{escape(value)}</M>" for key, value in facts.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="field"><Description>' + escape(facts["statement"]) + "</Description>"
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{width}" SizeY="{height}" '
        f'SizeC="{len(channels)}" SizeZ="1" SizeT="1">{named}{planes}</Pixels>'
        '<AnnotationRef ID="Annotation:0"/></Image>'
        f'<StructuredAnnotations><MapAnnotation ID="Annotation:0"><Value>{pairs}</Value></MapAnnotation>'
        "</StructuredAnnotations></OME>"
    )
