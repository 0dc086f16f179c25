"""PhenoProfiler's three losses and their sum (Equations 12 to 15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def regression(said: Float[Tensor, "b k"], profile: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean squared error of the morphology profile (Equation 13)."""
    return F.mse_loss(said, profile)


def matching(said: Float[Tensor, "b k"], profile: Float[Tensor, "b k"], temperature: float = 1.0) -> Float[Tensor, ""]:
    """-1/B Σ_i log exp(ẑ_i·z_i / τ) / Σ_j exp(ẑ_i·z_j / τ): a picture finds its own profile (Equation 14)."""
    own = torch.arange(len(said), device=said.device)
    return F.cross_entropy(said @ profile.T / temperature, own)


def total(
    logits: Float[Tensor, "b t"],
    labels: Int[Tensor, " b"],
    said: Float[Tensor, "b k"],
    profile: Float[Tensor, "b k"],
    weights: tuple[float, float, float] = (0.1, 100.0, 1.0),
    temperature: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """λ1 classification + λ2 regression + λ3 matching (Equation 15); a weight of 0 leaves its loss out."""
    parts: dict[str, Tensor] = {}
    loss = said.sum() * 0.0 + logits.sum() * 0.0
    if weights[0]:
        parts["classification"] = F.cross_entropy(logits, labels)
        loss = loss + weights[0] * parts["classification"]
    if weights[1]:
        parts["regression"] = regression(said, profile)
        loss = loss + weights[1] * parts["regression"]
    if weights[2]:
        parts["matching"] = matching(said, profile, temperature)
        loss = loss + weights[2] * parts["matching"]
    return {"loss": loss, **parts}
