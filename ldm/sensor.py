"""Camera grain: the pixel noise that an autoencoder cannot code, given back to generated pictures.

A decoder returns the expected picture: shot and read noise are gone, and the finest texture with them, and so are the
values that texture and granularity features have in real pictures. Both are given back as noise of independent pixels
with the variance floor + slope · signal (photon transfer; Janesick 2007), of which each generated picture gets its own
from its row's stream. Two things are measured per (source, channel):

* `fit_grain`: what decoded pictures lack, the power of training pictures within 3 x 3 pixels less that of their decoded
  twins. For a decoder that returns expectations this is the power of what is left over, noise and lost texture.
* `camera_noise`: the noise of the camera alone, as what fourth differences in both directions leave (after Immerkaer
  1996, who takes second ones): structures that the optics have blurred drop out.
"""

from __future__ import annotations

from collections.abc import Callable
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
_FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)  # keeps the variance of independent pixels
EDGE = 2  # outermost pixels that are left out


def roughness(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "y x"]:
    """Power within 3 x 3 pixels, unbiased for the variance of independent pixels; without the outermost two."""
    rough = picture - ndimage.uniform_filter(picture, 3)
    return np.asarray(_inside(rough**2 / PIXEL_SHARE))


def pixel_variance(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "y x"]:
    """Squared noise of single pixels, unbiased for independent noise; what is smooth over a few pixels drops out, and
    the outermost two pixels.
    """
    return np.asarray(_inside(_both(picture, _FOURTH) ** 2))


def _inside(picture: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "y x"]:
    return picture[EDGE:-EDGE, EDGE:-EDGE]


def _both(picture: Float[np.ndarray, "h w"], taps: Float[np.ndarray, " t"]) -> Float[np.ndarray, "h w"]:
    return np.asarray(ndimage.correlate1d(ndimage.correlate1d(picture, taps, axis=0), taps, axis=1))


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

    def lacking(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = (63.0 * y + 9.0 * ndimage.uniform_filter(y, 3)) / 72.0  # squared weights of the roughness
        return _inside(near), roughness(x) - roughness(y)

    def decoded(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found: np.ndarray = autoencoder.decode(autoencoder.encode(torch.from_numpy(pictures))).numpy()
        return found

    return _fitted(data, intensity, each, decoded, lacking)


def camera_noise(data: TrainingData, intensity: IntensityScale, each: int = 48) -> IntensityScale:
    """The scale with the noise of the camera of each (source, channel), measured on `each` training pictures of every
    source; no autoencoder takes part.
    """

    def noise(x: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _inside(_both(x, _FOURTH**2)), pixel_variance(x)

    return _fitted(data, intensity, each, lambda pictures: pictures, noise)


def _fitted(
    data: TrainingData,
    intensity: IntensityScale,
    each: int,
    twin: Callable[[np.ndarray], np.ndarray],
    measured: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> IntensityScale:
    """Lines through what `measured` says (signal and variance, of a picture and its twin, both in camera units)."""
    floor, slope = np.zeros_like(intensity.low), np.zeros_like(intensity.low)
    train = data.indices("train")
    source_of = data.rows["source"].astype(str).to_numpy()[train]
    for s, source in enumerate(intensity.sources):
        pictures = data.read(train[source_of == source][:each])
        twins = twin(pictures)
        for c in range(len(intensity.channels)):
            low, half = intensity.low[s, c], 0.5 * (intensity.high[s, c] - intensity.low[s, c])
            camera = ((low + (of[:, c] + 1.0) * half).astype(np.float64) for of in (pictures, twins))
            parts = [measured(x, y) for x, y in zip(*camera, strict=True)]
            signal, variance = (np.stack(part) for part in zip(*parts, strict=True))
            # where the camera cuts at 0 the noise is cut too: leave those pixels out
            lit = signal > 0.01
            if lit.sum() > 1000:
                floor[s, c], slope[s, c] = fit_line(signal[lit], variance[lit])
    return replace(intensity, floor=floor, slope=slope)
