"""Contrast within a batch: SimCLR without labels (Chen et al. 2020), SupCon with weak ones (Khosla et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def nt_xent(one: Float[Tensor, "b d"], other: Float[Tensor, "b d"], temperature: float) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross-entropy over 2b views: -log exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ), s the
    cosine, j the other view of i; the mean over all 2b (SimCLR, Equation 1)."""
    b = len(one)
    z = F.normalize(torch.cat([one, other]), dim=-1)
    similar = z @ z.T / temperature
    similar = similar.masked_fill(torch.eye(2 * b, dtype=torch.bool, device=z.device), float("-inf"))
    partner = torch.cat([torch.arange(b, 2 * b), torch.arange(b)]).to(z.device)
    return F.cross_entropy(similar, partner)


def supcon(z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], temperature: float) -> Float[Tensor, ""]:
    """Supervised contrastive loss, L_out: mean over anchors i with a partner of the mean over p in P(i) of
    -log exp(s_ip / τ) / Σ_{a≠i} exp(s_ia / τ), P(i) the other views of i's label (SupCon, Equation 2). 0 without any
    pair."""
    n = len(z)
    unit = F.normalize(z, dim=-1)
    self_ = torch.eye(n, dtype=torch.bool, device=z.device)
    similar = (unit @ unit.T / temperature).masked_fill(self_, float("-inf"))
    log_share = F.log_softmax(similar, dim=-1)
    positive = (labels[:, None] == labels[None, :]) & ~self_
    count = positive.sum(dim=-1)
    has = count > 0
    if not bool(has.any()):
        return (z * 0.0).sum()
    mean = log_share.masked_fill(~positive, 0.0).sum(dim=-1) / count.clamp(min=1)
    return -mean[has].mean()
