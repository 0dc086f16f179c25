"""Numbers of a picture for comparing sets of pictures, without any downloaded network: FID and its relatives stand on
these here, so they are comparable with each other and not with published values on Inception features.

`textures`: of each channel mean, sd, skewness and five quantiles of the pixels, the log power in octave rings of the
spectrum and the mean size of gradients; of each pair of channels the correlation. All are closed formulas.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from jaxtyping import Float

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
NAME = "textures-1"  # changes with any formula below; numbers under another name are not comparable


class FeatureError(ValueError):
    """Raised when pictures are not [n, c, h, w] with at least 8 pixels a side."""


def rings(height: int, width: int) -> list[np.ndarray]:
    """Masks of the half spectrum [height, width // 2 + 1]: frequencies above 1/2, 1/4, ... of Nyquist; the lowest ring
    ends at four periods a picture and leaves the mean out.
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(fy, fx) / 0.5
    low, top, found = 4.0 / min(height, width) * 2.0, np.inf, []
    edge = 0.5
    while edge > low:
        found.append((radius >= edge) & (radius < top))
        edge, top = edge / 2.0, edge
    found.append((radius > 0.0) & (radius < top))
    return found


def textures(pictures: Float[np.ndarray, "n c h w"]) -> Float[np.ndarray, "n k"]:
    """The features of the docstring above, float64 [n, k], of pictures on any scale.

    Raises FeatureError.
    """
    if pictures.ndim != 4 or min(pictures.shape[-2:]) < 8:
        raise FeatureError(f"pictures: got {pictures.shape}, expected [n, channels, height, width] of 8 pixels or more")
    x = np.asarray(pictures, dtype=np.float64)
    n, c, height, width = x.shape
    flat = x.reshape(n, c, -1)
    mean, sd = flat.mean(-1), flat.std(-1)
    z = (flat - mean[..., None]) / np.maximum(sd, 1e-9)[..., None]
    parts = [mean, sd, (z**3).mean(-1), np.moveaxis(np.quantile(flat, QUANTILES, axis=-1), 0, -1).reshape(n, -1)]
    power = np.abs(np.fft.rfft2(x - mean[..., None, None])) ** 2 / (height * width)
    parts += [np.log(power[..., ring].mean(-1) + 1e-9) for ring in rings(height, width)]
    parts.append(np.abs(np.diff(x, axis=-1)).mean((-2, -1)) + np.abs(np.diff(x, axis=-2)).mean((-2, -1)))
    if c > 1:
        parts.append(np.stack([(z[:, i] * z[:, j]).mean(-1) for i, j in combinations(range(c), 2)], axis=1))
    return np.concatenate(parts, axis=1)
