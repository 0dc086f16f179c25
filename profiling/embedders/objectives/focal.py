"""Focal loss (Lin et al. 2017, arXiv 1708.02002): cross-entropy that looks away from what is already right.

(1 - p)^γ times the cross-entropy, p the probability given to the truth. γ = 0 is cross-entropy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def focal_binary(
    logits: Float[Tensor, "b m"], truth: Float[Tensor, "b m"], gamma: float = 2.0, alpha: float = 0.0
) -> Float[Tensor, ""]:
    """Several labels a row: the mean over all of them of α_t (1 - p_t)^γ (-log p_t); `alpha` weighs true labels against
    1 - alpha of false ones, 0 weighs them alike."""
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    p = torch.exp(-cross)
    weight = (1.0 - p).pow(gamma)
    if alpha > 0.0:
        weight = weight * (alpha * truth + (1.0 - alpha) * (1.0 - truth))
    return (weight * cross).mean()


def focal_single(logits: Float[Tensor, "b m"], truth: Int[Tensor, " b"], gamma: float = 2.0) -> Float[Tensor, ""]:
    """One label a row: the mean of (1 - p)^γ (-log p)."""
    cross = F.cross_entropy(logits, truth, reduction="none")
    return ((1.0 - torch.exp(-cross)).pow(gamma) * cross).mean()
