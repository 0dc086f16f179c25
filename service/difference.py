"""The compound's picture minus the control's under the same context and noise, as colours: what the compound does.

Blue where the control is brighter, white where they agree, orange where the compound is brighter: a scale that the
common kinds of colour blindness tell apart, with lightness falling to both sides.
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from service.errors import NotFound
from service.pictures import COMPOSITE

BELOW, SAME, ABOVE = (5, 48, 97), (255, 255, 255), (179, 88, 6)


def difference(
    compound: Float32[np.ndarray, "c h w"],
    control: Float32[np.ndarray, "c h w"],
    channels: tuple[str, ...],
    view: str,
    span: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of one channel's difference, or of the mean over all channels (composite); ±`span` are the full colours.

    Raises `NotFound` for an unknown channel.
    """
    if view not in (COMPOSITE, *channels):
        raise NotFound(f"channel {view!r} is not in the pictures: expected {COMPOSITE} or one of {', '.join(channels)}")
    apart = compound - control
    plane = apart.mean(axis=0) if view == COMPOSITE else apart[channels.index(view)]
    share = np.clip(plane / span, -1.0, 1.0)[..., None]
    ends = np.where(share < 0, np.array(BELOW), np.array(ABOVE))
    colours: UInt8[np.ndarray, "h w 3"] = np.rint(np.array(SAME) + np.abs(share) * (ends - np.array(SAME))).astype(
        np.uint8
    )
    return colours


def difference_png(
    compound: Float32[np.ndarray, "c h w"],
    control: Float32[np.ndarray, "c h w"],
    channels: tuple[str, ...],
    view: str,
    span: float,
) -> bytes:
    """The same as PNG."""
    stream = io.BytesIO()
    Image.fromarray(difference(compound, control, channels, view, span)).save(stream, format="PNG")
    return stream.getvalue()
