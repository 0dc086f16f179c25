"""The pictures of a molecule as an OME-Zarr image that exists only while it is asked for: no copy on disk.

OME-NGFF 0.4 on Zarr 2, which napari and Viv read by URL. Axes t, c, y, x: t is the number of the draw. A chunk is one
channel of one draw, uncompressed 16-bit camera counts, so that a byte range of it is a byte range of pixels. Draws
that are not painted yet have no chunk: a reader shows them black, and finds them once they are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from profiling.images import CAMERA_MAXIMUM, COLOURS

JSON, BINARY = "application/json", "application/octet-stream"
_CHUNK = re.compile(r"0/(\d{1,4})/(\d{1,2})/0/0")


@dataclass(frozen=True)
class Shown:
    """What is shown: `file` gives the OME-TIFF of a draw, None while it is not there. `white`: upper end of the display
    range in [0, 1]. `facts` go into the attributes (evidence, statement)."""

    name: str
    draws: int
    channels: tuple[str, ...]
    size: int
    file: Callable[[int], Path | None]
    white: float
    facts: Mapping[str, str]
    pixel_size_um: float | None = None


def entry(shown: Shown, path: str) -> tuple[bytes, str] | None:
    """Bytes and media type of one name below the image; None where there is none."""
    documents = {".zgroup": {"zarr_format": 2}, ".zattrs": _attributes(shown), "0/.zarray": _array(shown)}
    if path in documents:
        return _json(documents[path]), JSON
    if path == ".zmetadata":
        return _json({"zarr_consolidated_format": 1, "metadata": documents}), JSON
    match = _CHUNK.fullmatch(path)
    if match is None:
        return None
    draw, channel = int(match[1]), int(match[2])
    file = shown.file(draw) if draw < shown.draws and channel < len(shown.channels) else None
    return None if file is None else (_plane(file, channel, file.stat().st_mtime_ns), BINARY)


def _array(shown: Shown) -> dict[str, Any]:
    return {
        "zarr_format": 2,
        "shape": [shown.draws, len(shown.channels), shown.size, shown.size],
        "chunks": [1, 1, shown.size, shown.size],
        "dtype": "<u2",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "dimension_separator": "/",
    }


def _attributes(shown: Shown) -> dict[str, Any]:
    side = shown.pixel_size_um or 1.0
    unit = {"unit": "micrometer"} if shown.pixel_size_um else {}
    axes = [
        {"name": "t", "type": "time"},
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", **unit},
        {"name": "x", "type": "space", **unit},
    ]
    scale = [{"type": "scale", "scale": [1.0, 1.0, side, side]}]
    window = {"min": 0, "max": CAMERA_MAXIMUM, "start": 0, "end": round(shown.white * CAMERA_MAXIMUM)}
    channels = [
        {"label": name, "color": _colour(name), "active": True, "coefficient": 1, "family": "linear", "window": window}
        for name in shown.channels
    ]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    return {
        "multiscales": [{"version": "0.4", "name": shown.name, "axes": axes, "datasets": datasets}],
        "omero": {"version": "0.4", "name": shown.name, "channels": channels, "rdefs": {"model": "color"}},
        "dopaint": {"t": "number of the draw", **shown.facts},
    }


def _colour(name: str) -> str:
    """The composite's colour of a channel at full strength, RRGGBB."""
    shares = COLOURS.get(name, (1.0, 1.0, 1.0))
    return "".join(f"{round(255 * one / max(shares)):02X}" for one in shares)


@lru_cache(maxsize=256)
def _plane(file: Path, channel: int, _changed: int) -> bytes:
    with tifffile.TiffFile(file) as tiff:
        return np.ascontiguousarray(tiff.pages[channel].asarray(), dtype="<u2").tobytes()


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()
