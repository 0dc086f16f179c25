"""How far a set of generated pictures is from a set of real ones, on any features: FID, KID, density and coverage.

Sums are streamed, so that pictures need not be kept. A model that ignores its conditions can score well here: these
numbers stand beside the condition-use gate, never in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy import linalg
from scipy.spatial import cKDTree


class FidelityError(ValueError):
    """Raised when two sets have different features, or too few rows for the number asked for."""


@dataclass
class Moments:
    """Mean and covariance of rows that come in batches (Chan et al. 1983: exact merging, no cancellation)."""

    n: int = 0
    mean: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    scatter: Float[np.ndarray, "k k"] = field(default_factory=lambda: np.zeros((0, 0)))

    def add(self, rows: Float[np.ndarray, "m k"]) -> None:
        """Take in a batch."""
        rows = np.asarray(rows, dtype=np.float64)
        if not len(rows):
            return
        mean = rows.mean(0)
        scatter = (rows - mean).T @ (rows - mean)
        if self.n == 0:
            self.n, self.mean, self.scatter = len(rows), mean, scatter
            return
        if rows.shape[1] != len(self.mean):
            raise FidelityError(f"features: got {rows.shape[1]}, expected {len(self.mean)} as before; use one kind")
        gap, total = mean - self.mean, self.n + len(rows)
        self.scatter = self.scatter + scatter + np.outer(gap, gap) * (self.n * len(rows) / total)
        self.mean = self.mean + gap * (len(rows) / total)
        self.n = total

    @property
    def covariance(self) -> Float[np.ndarray, "k k"]:
        """Unbiased covariance. Raises FidelityError below two rows."""
        if self.n < 2:
            raise FidelityError(f"rows: got {self.n}, expected at least 2; add more pictures")
        return self.scatter / (self.n - 1)


def fid(real: Moments, generated: Moments) -> float:
    """Frechet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al. 2017,
    arXiv:1706.08500, equation 6).

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric: no
    complex numbers come up when rows are few. Raises FidelityError.
    """
    if real.mean.shape != generated.mean.shape:
        raise FidelityError(
            f"features: real {real.mean.shape[0]}, generated {generated.mean.shape[0]}, expected the same; use one kind"
        )
    s1, s2 = real.covariance, generated.covariance
    values, vectors = linalg.eigh(s1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ s2 @ root), 0.0)).sum()
    return float(((real.mean - generated.mean) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2.0 * cross)


def _kernel_sum(a: np.ndarray, b: np.ndarray, block: int) -> tuple[float, float]:
    """Sum of (a.b / k + 1)^3 over all pairs, and over pairs (i, i) where a is b, in blocks."""
    total, diagonal = 0.0, 0.0
    for start in range(0, len(a), block):
        values = (a[start : start + block] @ b.T / a.shape[1] + 1.0) ** 3
        total += float(values.sum())
        if a is b:
            diagonal += float(np.diagonal(values, start).sum())
    return total, diagonal


def kid(real: Float[np.ndarray, "n k"], generated: Float[np.ndarray, "m k"], block: int = 1024) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / k + 1)^3 (Binkowski et al. 2018,
    arXiv:1801.01401, section 3.1); may be slightly negative for equal sets. Memory n x block.

    Raises FidelityError for different features or fewer than two rows.
    """
    _same(real, generated)
    n, m = len(real), len(generated)
    rr, rd = _kernel_sum(real, real, block)
    gg, gd = _kernel_sum(generated, generated, block)
    rg, _ = _kernel_sum(real, generated, block)
    return (rr - rd) / (n * (n - 1)) + (gg - gd) / (m * (m - 1)) - 2.0 * rg / (n * m)


def density_coverage(
    real: Float[np.ndarray, "n k"], generated: Float[np.ndarray, "m k"], nearest: int = 5
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, arXiv:2002.09797, equations 5 and 6): how many real neighbourhoods a
    generated picture lies in, over k (about 1 when the sets are alike), and the share of real neighbourhoods that hold
    a generated picture.

    A neighbourhood is the ball to the k-th nearest other real picture. Raises FidelityError.
    """
    _same(real, generated)
    if len(real) <= nearest:
        raise FidelityError(f"real pictures: got {len(real)}, expected more than {nearest}; add more")
    tree = cKDTree(real)
    radius = np.asarray(tree.query(real, k=nearest + 1)[0])[:, -1]
    inside = cKDTree(generated).query_ball_point(real, radius, return_length=True)
    return float(np.sum(inside) / (nearest * len(generated))), float(np.mean(np.asarray(inside) > 0))


def standardised(
    real: Float[np.ndarray, "n k"], *others: Float[np.ndarray, "_ k"]
) -> tuple[Float[np.ndarray, "_ j"], ...]:
    """All sets on the scale of the real one (mean 0, sd 1), without features that do not vary there."""
    mean, sd = real.mean(0), real.std(0)
    use = sd > 1e-9 * np.maximum(np.abs(mean), 1e-9)
    return tuple((one[:, use] - mean[use]) / sd[use] for one in (real, *others))


def _same(real: np.ndarray, generated: np.ndarray) -> None:
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise FidelityError(f"features: real {real.shape}, generated {generated.shape}, expected [n, k] and [m, k]")
    if min(len(real), len(generated)) < 2:
        raise FidelityError(f"rows: got {len(real)} and {len(generated)}, expected at least 2 each; add pictures")
