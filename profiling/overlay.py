"""Outlines of segmented objects over a picture, for a person to check the segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Integer, UInt8
from skimage.segmentation import find_boundaries

from profiling.images import InvalidImage, composite, grey

#: Colour of each kind of object's outline.
OUTLINES: Mapping[str, tuple[int, int, int]] = {"Cells": (255, 153, 0), "Nuclei": (0, 255, 255)}


def outlines(labels: Integer[np.ndarray, "h w"], magnify: int = 1) -> Bool[np.ndarray, "mh mw"]:
    """Pixels of objects that touch background or another object; `magnify` repeats pixels first: lines stay thin."""
    large = labels.repeat(magnify, axis=0).repeat(magnify, axis=1)
    return np.asarray(find_boundaries(large, mode="inner"))


def overlay(
    plane: Float32[np.ndarray, "h w"],
    masks: Mapping[str, Integer[np.ndarray, "h w"]],
    limits: tuple[float, float],
    magnify: int = 4,
) -> UInt8[np.ndarray, "mh mw 3"]:
    """One channel in grey, black to white between `limits` in [0, 1], with the outlines of cells and nuclei.

    `masks` are label images by object name, as `FieldMeasurement.masks`.

    Raises:
        InvalidImage: no mask whose outline has a colour, or black not below white.
    """
    shown = grey(plane, "plane", {"plane": limits})
    return _draw(np.stack([shown] * 3, axis=-1), masks, magnify)


def composite_overlay(
    pixels: Float32[np.ndarray, "c h w"],
    channels: Sequence[str],
    masks: Mapping[str, Integer[np.ndarray, "h w"]],
    ranges: Mapping[str, tuple[float, float]],
    magnify: int = 4,
) -> UInt8[np.ndarray, "mh mw 3"]:
    """All channels in their colours (`images.composite`, `ranges` as `images.display_ranges` gives), with outlines.

    Raises:
        InvalidImage: no mask whose outline has a colour, or a channel without a colour or a range.
    """
    return _draw(composite(pixels, channels, ranges), masks, magnify)


def _draw(
    picture: UInt8[np.ndarray, "h w 3"], masks: Mapping[str, Integer[np.ndarray, "h w"]], magnify: int
) -> UInt8[np.ndarray, "mh mw 3"]:
    drawn = [name for name in OUTLINES if name in masks]
    if not drawn:
        raise InvalidImage(f"masks: got {', '.join(masks) or 'none'}, expected some of {', '.join(OUTLINES)}")
    out = picture.repeat(magnify, axis=0).repeat(magnify, axis=1)
    for name in drawn:
        out[outlines(masks[name], magnify)] = OUTLINES[name]
    return out
