"""Barlow Twins: the features of two views agree, and do not repeat each other (Zbontar et al. 2021, arXiv 2103.03230).

C is the correlation of every feature of one view with every feature of the other, over the batch:
Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij². The brightfield paper sets λ = 0.5, a strong decorrelation, and adds it to DINO's
loss one to one; it does not say over what the sum is taken. We divide by the number of features, so that the weight
means the same for any projector.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def standardised(z: Float[Tensor, "b d"], epsilon: float = 1e-5) -> Float[Tensor, "b d"]:
    """Each feature with mean 0 and variance 1 over the batch (the biased variance, as batch norm takes it)."""
    centred = z - z.mean(dim=0)
    return centred / (centred.pow(2).mean(dim=0) + epsilon).sqrt()


def barlow_loss(one: Float[Tensor, "b d"], other: Float[Tensor, "b d"], off_diagonal: float = 0.5) -> Float[Tensor, ""]:
    """The loss a feature; two batches of the same pictures (or of replicates), row by row."""
    b, d = one.shape
    correlation = standardised(one).T @ standardised(other) / b
    own = torch.diagonal(correlation)
    total = (1.0 - own).pow(2).sum() + off_diagonal * (correlation.pow(2).sum() - own.pow(2).sum())
    return total / d
