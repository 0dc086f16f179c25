"""Comparing methods: one-way ANOVA with Tukey's HSD as in the paper's Tables 1 and 2, and what its design asks for.

Folds share compounds, so the paper's values are not independent between methods: `paired_permutation` and
`mixed_model` stand beside the ANOVA. Effect sizes, letters for plots, and the false discovery rate are here too.
"""

import numpy as np
from jaxtyping import Float


def false_discovery_rate(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Benjamini-Hochberg q of each p; NaN stays NaN and does not count as a test."""
    out = np.full(len(p), np.nan)
    given = np.flatnonzero(~np.isnan(p))
    order = given[np.argsort(p[given], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out
