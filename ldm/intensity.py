"""Camera units and back: two numbers per (source, channel), stored in the model folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float


class IntensityError(ValueError):
    """Raised when the scale of a source or channel is missing or makes no sense."""


LIMIT = 4.0  # values beyond [-1, 1] are kept up to here: a compound may double a stain


@dataclass(frozen=True)
class IntensityScale:
    """low and high, float [sources, channels], in camera units [0, 1]: low maps to -1 and high to 1 (0.1 and 99.9
    percentiles of control wells). floor and slope: variance of a pixel's noise is floor + slope * signal, in camera
    units (`ldm.sensor`); zeros, the default, mean pictures without grain.
    """

    sources: tuple[str, ...]
    channels: tuple[str, ...]
    low: Float[np.ndarray, "s c"]
    high: Float[np.ndarray, "s c"]
    floor: Float[np.ndarray, "s c"] = field(default_factory=lambda: np.zeros((0, 0)))
    slope: Float[np.ndarray, "s c"] = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        expected = (len(self.sources), len(self.channels))
        for name in ("floor", "slope"):
            if getattr(self, name).size == 0:
                object.__setattr__(self, name, np.zeros(expected))
            if getattr(self, name).shape != expected or (getattr(self, name) < 0).any():
                raise IntensityError(f"grain: {name} {getattr(self, name).shape}, expected {expected}, none below 0")
        if self.low.shape != expected or self.high.shape != expected or not (self.high > self.low).all():
            raise IntensityError(
                f"intensity scale: low {self.low.shape}, high {self.high.shape}; expected {expected} each and high "
                "above low; measure it again"
            )

    def _of(self, sources: list[str]) -> tuple[Float[np.ndarray, "n c 1 1"], Float[np.ndarray, "n c 1 1"]]:
        unknown = sorted(set(sources) - set(self.sources))
        if unknown:
            raise IntensityError(
                f"source: got {unknown[0]!r}, expected one of {', '.join(self.sources)}; choose a source that the "
                "model was trained on"
            )
        at = [self.sources.index(name) for name in sources]
        return self.low[at][:, :, None, None].astype(np.float32), self.high[at][:, :, None, None].astype(np.float32)

    def to_camera(self, pictures: Float[np.ndarray, "n c h w"], sources: list[str]) -> Float[np.ndarray, "n c h w"]:
        """[-1, 1] to camera units of each row's source, clipped to [0, 1], float32. Raises IntensityError for an
        unknown source.
        """
        low, high = self._of(sources)
        camera: np.ndarray = np.clip(
            low + (pictures + np.float32(1.0)) * np.float32(0.5) * (high - low), 0.0, 1.0
        ).astype(np.float32)
        return camera

    @property
    def grainy(self) -> bool:
        """Whether any grain was measured."""
        return bool(self.floor.any() or self.slope.any())

    def grain(
        self, camera: Float[np.ndarray, "n c h w"], sources: list[str], noise: Float[np.ndarray, "n c h w"]
    ) -> Float[np.ndarray, "n c h w"]:
        """Pictures in camera units with the source's grain: `noise` is standard normal, one number a pixel."""
        at = [self.sources.index(name) for name in sources]
        variance = self.floor[at][:, :, None, None] + self.slope[at][:, :, None, None] * camera
        grainy: np.ndarray = np.clip(camera + np.sqrt(variance) * noise, 0.0, 1.0).astype(np.float32)
        return grainy

    def to_network(self, pictures: Float[np.ndarray, "n c h w"], sources: list[str]) -> Float[np.ndarray, "n c h w"]:
        """Camera units to the network's, float32, clipped to +-4 only. Raises IntensityError for an unknown source."""
        low, high = self._of(sources)
        scaled: np.ndarray = np.clip(
            (pictures - low) / (high - low) * np.float32(2.0) - np.float32(1.0), -LIMIT, LIMIT
        ).astype(np.float32)
        return scaled

    def save(self, path: Path) -> None:
        """Write JSON: channels, and low and high lists for each source."""
        sources = {
            name: {key: getattr(self, key)[i].tolist() for key in ("low", "high", "floor", "slope")}
            for i, name in enumerate(self.sources)
        }
        path.write_text(
            json.dumps({"channels": list(self.channels), "sources": sources}, indent=1) + "\n", encoding="utf-8"
        )

    @classmethod
    def load(cls, path: Path) -> IntensityScale:
        """Read what `save` wrote. Raises IntensityError when the file is missing or incomplete."""
        if not path.is_file():
            raise IntensityError(
                f"intensity scale: {path} is missing; measure it on control wells when the training data is made"
            )
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            names = tuple(content["sources"])
            low = np.array([content["sources"][name]["low"] for name in names], dtype=np.float64)
            high = np.array([content["sources"][name]["high"] for name in names], dtype=np.float64)
            zero = [0.0] * len(content["channels"])
            grain = [np.array([content["sources"][n].get(key, zero) for n in names]) for key in ("floor", "slope")]
            return cls(names, tuple(content["channels"]), low, high, *grain)
        except KeyError as error:
            raise IntensityError(
                f"intensity scale: {path} lacks {error}; expected channels, and low and high of every source"
            ) from error
