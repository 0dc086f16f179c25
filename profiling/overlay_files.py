"""Overlays of a run: of some fields, spread evenly over it, a PNG with the outlines of what was found, for a person."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Integer

from profiling.images import write_png
from profiling.overlay import OUTLINES, overlay

#: A picture is magnified until its longer side has so many pixels: thin lines stay visible on cells.
LEAST_PIXELS = 768
_DARK, _BRIGHT = 1.0, 99.8  # percentiles that are shown black and white


@dataclass(frozen=True)
class Overlays:
    """folder: where the pictures go. chosen: positions of the fields that are drawn."""

    folder: Path
    chosen: frozenset[int]

    @classmethod
    def spread(cls, folder: Path, n: int, fields: int) -> Overlays:
        """`n` of `fields` positions, evenly spread, the first among them; all where there are fewer."""
        return cls(folder, frozenset(int(i) for i in np.linspace(0, max(fields - 1, 0), min(n, fields)).round()))

    def draw(
        self,
        i: int,
        meta: Mapping[str, str],
        pixels: Float32[np.ndarray, "c h w"],
        channels: Sequence[str],
        masks: Mapping[str, Integer[np.ndarray, "h w"]],
    ) -> Path | None:
        """Writes field `i`'s overlay if it is chosen and objects were looked for: its first channel in grey, nuclei and
        cells outlined. The file is named by what the field is called."""
        if i not in self.chosen or not set(masks) & set(OUTLINES):
            return None
        low, high = (float(v) for v in np.percentile(pixels[0], (_DARK, _BRIGHT)))
        shown = overlay(
            pixels[0], masks, (low, max(high, low + 1e-6)), magnify=max(1, round(LEAST_PIXELS / max(pixels[0].shape)))
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = "_".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", value) for value in meta.values() if value)
        path = self.folder / f"{name or i}.png"
        lines = ", ".join(kind for kind in OUTLINES if kind in masks)
        write_png(path, shown, {"Description": f"{channels[0]} from {low:.5f} to {high:.5f}; outlines: {lines}"})
        return path
