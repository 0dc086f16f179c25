"""Camera grain: the pixel noise that an autoencoder cannot code, given back to generated pictures.

A decoder returns the expected picture: shot and read noise are gone, and with them the values that texture and
granularity features have in real pictures. Noise of independent pixels has the variance floor + slope · signal
(photon transfer; Janesick 2007). What is missing is measured per (source, channel): the noise of training pictures
less the noise that their decoded twins still have. Noise is what fourth differences in both directions leave
(after Immerkaer 1996, who takes second ones): structures that the optics have blurred drop out, whether or not the
decoder has them. Each generated picture gets noise of that size from its own row's stream.
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
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)  # keeps the variance of independent pixels


def pixel_variance(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "y x"]:
    """Squared noise of single pixels, unbiased for independent noise; what is smooth over a few pixels drops out.
    Without the two outermost pixels of each side.
    """
    return np.asarray(_both(picture, _FOURTH) ** 2)


def _both(picture: Float[np.ndarray, "h w"], taps: Float[np.ndarray, " t"]) -> Float[np.ndarray, "y x"]:
    edge = len(taps) // 2
    return np.asarray(
        ndimage.correlate1d(ndimage.correlate1d(picture, taps, axis=0), taps, axis=1)[edge:-edge, edge:-edge]
    )


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
    """The scale with the grain that decoded pictures of each (source, channel) lack, measured on `each` training
    pictures of every source.
    """
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
            signal = np.stack([_both(y, _FOURTH**2) for y in signal])  # what the noise found at a pixel goes by
            pair = zip(pictures.numpy()[:, c], expected[:, c], strict=True)
            variance = np.stack([pixel_variance(x) - pixel_variance(y) for x, y in pair]) * half_range**2
            # where the camera cuts at 0 the noise is cut too: leave those pixels out
            lit = signal > 0.01
            if lit.sum() > 1000:
                floor[s, c], slope[s, c] = fit_line(signal[lit], variance[lit])
    return replace(intensity, floor=floor, slope=slope)
