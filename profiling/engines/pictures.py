"""What every engine accepts: pictures float32 [n, channels, h, w] in [0, 1] with named channels, and given masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


class InvalidPictures(ValueError):
    """The array, its channel names or the given masks cannot be pictures of these settings."""


def check_pictures(pictures: np.ndarray, channels: Sequence[str]) -> None:
    """Raises InvalidPictures: wrong number of dimensions, dtype, or channel names."""
    if pictures.ndim != 4 or pictures.dtype != np.float32:
        raise InvalidPictures(
            f"pictures: got {pictures.dtype} with {pictures.ndim} dimensions, expected float32 [n, channels, h, w] in "
            "[0, 1]"
        )
    if len(channels) != pictures.shape[1] or len(set(channels)) != len(channels) or not all(channels):
        raise InvalidPictures(
            f"channels: got {list(channels)} for {pictures.shape[1]} channels, expected one distinct name a channel"
        )


def check_masks(pictures: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
    """Raises InvalidPictures: no masks, or masks that are no label images of these pictures.

    A label image holds 0 for background and 1 to n for n objects, none of them left out: row i of the table is label
    i + 1.
    """
    if not labels:
        raise InvalidPictures("labels: got none, expected label images [n, h, w] by object name")
    expected = (pictures.shape[0], *pictures.shape[2:])
    for name, masks in labels.items():
        if masks.shape != expected or masks.dtype.kind not in "iu":
            raise InvalidPictures(
                f"labels: {name} is {masks.dtype} {masks.shape}, expected integers of shape {expected}"
            )
        for i, one in enumerate(masks):
            found = np.unique(one)
            found = found[found != 0]
            if not np.array_equal(found, np.arange(1, len(found) + 1)):
                raise InvalidPictures(
                    f"labels: {name} of picture {i} has {len(found)} from {found.min()} to {found.max()}, expected "
                    f"1 to {len(found)}; number them anew"
                )


def unusable(picture: np.ndarray) -> str:
    """Why one picture cannot be measured, or an empty string."""
    if not picture.size:
        return "picture has no pixels"
    low, high = float(picture.min()), float(picture.max())
    if not np.isfinite([low, high]).all():
        return "picture has values that are not finite"
    if low < 0.0 or high > 1.0:
        return f"picture has values from {low:g} to {high:g}, expected 0 to 1"
    return ""
