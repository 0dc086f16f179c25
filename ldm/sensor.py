"""Camera grain: the pixel noise that an autoencoder cannot code, given back to generated pictures.

A decoder returns the expected picture: shot and read noise are gone, and with them the values that texture and
granularity features have in real pictures. Noise of independent pixels has the variance floor + slope · signal
(photon transfer; Janesick 2007). Both numbers are measured per (source, channel) on what the autoencoder leaves over in
training pictures, and each generated picture gets noise of that size from its own row's stream.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage

from ldm.autoencoder import GroupAutoencoder
from ldm.data import TrainingData
from ldm.intensity import IntensityScale

STREAM = 2**32  # of the row's Philox counter; far from the streams of the sampler's steps
PIXEL_SHARE = 8.0 / 9.0  # of independent noise that is left after its own 3 x 3 mean is taken away


def pixel_variance(residual: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Squared noise of single pixels, unbiased for independent noise; smooth errors of the decoder drop out."""
    rough = residual - ndimage.uniform_filter(residual, 3)
    return np.asarray(rough**2 / PIXEL_SHARE)


def fit_line(signal: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"], bins: int = 12) -> tuple[float, float]:
    """Floor and slope (both at least 0) of variance against signal, by least squares over means in equal-count bins."""
    order = np.array_split(np.argsort(signal, kind="stable"), bins)
    x = np.array([signal[b].mean() for b in order])
    y = np.array([variance[b].mean() for b in order])
    slope = max(0.0, float(np.polyfit(x, y, 1)[0])) if np.ptp(x) > 0 else 0.0
    return max(0.0, float((y - slope * x).mean())), slope


def fit_grain(
    autoencoder: GroupAutoencoder, data: TrainingData, intensity: IntensityScale, each: int = 48
) -> IntensityScale:
    """The scale with the grain of each (source, channel), measured on `each` training pictures of every source."""
    floor, slope = np.zeros_like(intensity.low), np.zeros_like(intensity.low)
    train = data.indices("train")
    source_of = data.rows["source"].astype(str).to_numpy()[train]
    for s, source in enumerate(intensity.sources):
        index = train[source_of == source][:each]
        with torch.no_grad():
            pictures = torch.from_numpy(data.read(index))
            expected = autoencoder.decode(autoencoder.encode(pictures)).numpy()
        for c in range(len(intensity.channels)):
            half_range = 0.5 * (intensity.high[s, c] - intensity.low[s, c])
            signal = intensity.low[s, c] + (expected[:, c] + 1.0) * half_range
            residual = (pictures.numpy()[:, c] - expected[:, c]) * half_range
            variance = np.stack([pixel_variance(r) for r in residual])
            # where the camera cuts at 0 the noise is cut too: leave those pixels out
            lit = signal > 0.01
            if lit.sum() > 1000:
                floor[s, c], slope[s, c] = fit_line(signal[lit], variance[lit])
    return replace(intensity, floor=floor, slope=slope)
