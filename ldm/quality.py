"""What limits a model, and whether it uses what it is given.

The autoencoder ceiling: how much of each feature is left after encode and decode, before any denoiser. Condition use:
whether generated effects point where true effects point, and are as large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float

UNUSABLE = 0.5  # a family below this median R2 is named in the model card


class QualityError(ValueError):
    """Raised when true and generated values do not have the same shape."""


class Ceiling(TypedDict):
    """Median R2 over all features and over those of each family, the families below 0.5, and R2 of every feature."""

    median: float
    families: dict[str, float]
    weak: list[str]
    features: dict[str, float]


def family(name: str) -> str:
    """The family of a feature: the part after the object in "<Object>_<Family>_...", for example Texture in
    Cells_Texture_Contrast_DNA_3_00_256.
    """
    parts = name.split("_")
    return parts[1] if len(parts) > 1 else parts[0]


def _same_shape(true: np.ndarray, generated: np.ndarray) -> None:
    if true.shape != generated.shape or true.ndim != 2:
        raise QualityError(
            f"values: true {true.shape} and generated {generated.shape}, expected the same [n, k]; measure the same "
            "rows in the same order"
        )


def r_squared(true: Float[np.ndarray, "n k"], decoded: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " k"]:
    """1 - sum (true - decoded)^2 / sum (true - mean true)^2 of each feature; rows where either is not finite are left
    out; NaN where the truth does not vary.

    Raises QualityError when the shapes differ.
    """
    _same_shape(true, decoded)
    both: Bool[np.ndarray, "n k"] = np.isfinite(true) & np.isfinite(decoded)
    count = both.sum(axis=0)
    t, d = np.where(both, true, 0.0), np.where(both, decoded, 0.0)
    mean = t.sum(axis=0) / np.maximum(count, 1)
    total = (np.where(both, t - mean, 0.0) ** 2).sum(axis=0)
    rest = ((t - d) ** 2).sum(axis=0)
    scale = 1e-12 * np.maximum(mean**2, 1e-12) * np.maximum(count, 1)
    varies = (total > scale) & (count > 2)
    return np.where(varies, 1.0 - rest / np.where(varies, total, 1.0), np.nan)


def ceiling(true: Float[np.ndarray, "n k"], decoded: Float[np.ndarray, "_ _"], names: Sequence[str]) -> Ceiling:
    """The autoencoder ceiling from features of pictures [n, k] and of the same pictures encoded and decoded. Features
    that do not vary are left out.

    Raises QualityError when the shapes or the number of names differ.
    """
    if len(names) != true.shape[1]:
        raise QualityError(f"names: got {len(names)}, expected {true.shape[1]}; give one name for each feature")
    values = r_squared(true, decoded)
    features = {name: float(value) for name, value in zip(names, values, strict=True) if np.isfinite(value)}
    kinds = sorted({family(name) for name in features})
    families = {
        kind: float(np.median([value for name, value in features.items() if family(name) == kind])) for kind in kinds
    }
    median = float(np.median(list(features.values()))) if features else float("nan")
    return {
        "median": median,
        "families": families,
        "weak": [kind for kind in kinds if families[kind] < UNUSABLE],
        "features": features,
    }


def autoencoder_ceiling(
    pictures: Float[np.ndarray, "n c h w"],
    compress: Callable[[np.ndarray], np.ndarray],
    features: Callable[[np.ndarray], tuple[np.ndarray, Sequence[str]]],
) -> Ceiling:
    """The ceiling of an autoencoder `compress` (pictures to pictures) in the space of any `features` (pictures to
    values [n, k] and k names).
    """
    true, names = features(pictures)
    decoded, _ = features(compress(pictures))
    return ceiling(true, decoded, names)


def cosine(true: Float[np.ndarray, "n k"], generated: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " n"]:
    """Cosine between true and generated effect vector of each row, -1 to 1; 0 where one of them is nothing. Raises
    QualityError when the shapes differ.
    """
    _same_shape(true, generated)
    size = np.linalg.norm(true, axis=1) * np.linalg.norm(generated, axis=1)
    return np.where(size > 0.0, (true * generated).sum(axis=1) / np.where(size > 0.0, size, 1.0), 0.0)
