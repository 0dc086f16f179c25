"""Nuclei without labels, from a trained transformer: what the class token looks at least is background (FOUND, Siméoni
et al. 2023, arXiv 2212.07834), what is like it is background too, the rest is refined along the picture's edges.

The mask of the background grows from the patch with the least attention to all patches whose keys in the last block
are alike (cosine at least `alike`); heads count by how even their attention is. The bilateral solver then brings the
rest from patches to pixels. In brightfield pictures the rest is nuclei where the network has learned to look at them;
`agreement` holds it against true nuclei.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from profiling.embedders.augment import self_normalised
from profiling.embedders.bilateral import BilateralConfig, solve
from profiling.embedders.networks.vit import VisionTransformer


@dataclass(frozen=True)
class FoundConfig:
    """`alike`: cosine from which a patch is background like the seed; `zoom`: pixels of the network for one of the
    picture (finer patches); `least`: pixels of the smallest object."""

    alike: float = 0.3
    zoom: float = 2.0
    least: int = 20


def foreground(
    attention: Float[np.ndarray, "heads n"], keys: Float[np.ndarray, "n d"], alike: float
) -> Bool[np.ndarray, " n"]:
    """Patches that are no background. Heads are weighed by the share of patches above their own mean attention."""
    weight = (attention > attention.mean(axis=1, keepdims=True)).mean(axis=1)
    heads, n = attention.shape
    weight = weight / max(float(weight.sum()), 1e-12)
    seed = int((weight[:, None] * attention).sum(axis=0).argmin())
    weighed = (keys.reshape(n, heads, -1) * weight[None, :, None]).reshape(n, -1)
    unit = weighed / np.maximum(np.linalg.norm(weighed, axis=1, keepdims=True), 1e-12)
    return unit @ unit[seed] < alike


def segment(
    network: VisionTransformer, plane: Float32[np.ndarray, "h w"], config: FoundConfig | None = None
) -> Bool[np.ndarray, "h w"]:
    """Foreground of one clipped picture [0, 1], pixel by pixel."""
    config = config or FoundConfig()
    patch = network.config.patch
    height, width = plane.shape
    rows, columns = round(height * config.zoom / patch), round(width * config.zoom / patch)
    x = torch.from_numpy(plane)[None, None]
    x = F.interpolate(x, size=(rows * patch, columns * patch), mode="bilinear", align_corners=False)
    with torch.no_grad():
        attention, keys = network.last_attention(self_normalised(x))
    coarse = foreground(attention[0].double().numpy(), keys[0].double().numpy(), config.alike).reshape(rows, columns)
    target = ndimage.zoom(coarse.astype(np.float64), (height / rows, width / columns), order=0, grid_mode=True,
                          mode="nearest")  # fmt: skip
    smooth = solve(plane.astype(np.float64), target, np.full(plane.shape, 0.999), BilateralConfig())
    return smooth > 0.5


def objects(mask: Bool[np.ndarray, "h w"], least: int) -> Float[np.ndarray, "n 2"]:
    """Centres (row, column) of the connected parts of at least `least` pixels."""
    labels, n = ndimage.label(mask)
    sizes = ndimage.sum_labels(mask, labels, np.arange(1, n + 1))
    kept = np.flatnonzero(sizes >= least) + 1
    return np.array(ndimage.center_of_mass(mask, labels, kept), np.float64).reshape(len(kept), 2)


@dataclass(frozen=True)
class Agreement:
    """Objects found and true, how many are one and the same, precision, recall and F1."""

    found: int
    true: int
    matched: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is matched."""
        return 2.0 * self.matched / max(self.found + self.true, 1)


def agreement(found: Float[np.ndarray, "n 2"], true: Float[np.ndarray, "m 2"], within: float = 6.0) -> Agreement:
    """One-to-one matches of centres at most `within` pixels apart, as many as there can be."""
    if not len(found) or not len(true):
        return Agreement(len(found), len(true), 0)
    near = cdist(found, true) <= within
    rows, columns = linear_sum_assignment(near, maximize=True)
    return Agreement(len(found), len(true), int(near[rows, columns].sum()))
