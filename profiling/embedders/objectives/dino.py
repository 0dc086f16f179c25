"""DINO: self-distillation without labels (Caron et al. 2021, arXiv 2104.14294).

The student sees all crops, the teacher the global ones; the student's distribution over prototypes is to be the
teacher's for every other crop of the same cell. The teacher is the student's moving average; its outputs are centred
and sharpened, so that neither one prototype nor all of them win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def dino_loss(
    student: Sequence[Float[Tensor, "b k"]],
    teacher: Sequence[Float[Tensor, "b k"]],
    centre: Float[Tensor, "1 k"],
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Mean over pairs (teacher crop i, student crop j ≠ i) of -Σ softmax((t - centre) / τ_t) log softmax(s / τ_s).

    The first crops of the student are those of the teacher, in the same order (their Equation 3 and Algorithm 1).
    """
    wanted = [F.softmax((t.detach() - centre) / teacher_temperature, dim=-1) for t in teacher]
    said = [F.log_softmax(s / student_temperature, dim=-1) for s in student]
    pairs = [-(p * q).sum(dim=-1).mean() for i, p in enumerate(wanted) for j, q in enumerate(said) if i != j]
    return torch.stack(pairs).mean()


def next_centre(
    centre: Float[Tensor, "1 k"], teacher: Sequence[Float[Tensor, "b k"]], momentum: float = 0.9
) -> Float[Tensor, "1 k"]:
    """centre ← m centre + (1 - m) mean of the teacher's outputs (their Equation 4)."""
    return momentum * centre + (1.0 - momentum) * torch.cat(list(teacher)).detach().mean(dim=0, keepdim=True)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Teacher ← m teacher + (1 - m) student, weight by weight; buffers are copied."""
    for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
        t.lerp_(s.detach(), 1.0 - momentum)
    for own, other in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(other)


def rising(start: float, end: float, fraction: float) -> float:
    """From `start` to `end` along half a cosine, for the fraction of the run that is done."""
    return end - (end - start) * 0.5 * (1.0 + math.cos(math.pi * min(max(fraction, 0.0), 1.0)))


def warmed(start: float, end: float, fraction: float, warm: float) -> float:
    """From `start` to `end` in a straight line over the first `warm` of the run, then `end`."""
    return end if warm <= 0.0 or fraction >= warm else start + (end - start) * fraction / warm
