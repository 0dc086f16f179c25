"""Is a student as good as its teacher? Features of paired rows (same compound, context and noise) decide."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pandas as pd
from jaxtyping import Float

LARGEST, SHARE, CORRELATION, ROWS = 0.1, 0.95, 0.98, 200


class EquivalenceError(ValueError):
    """Raised when the rows are not paired or there are too few compounds."""


class Verdict(TypedDict):
    """rows: paired rows. within: share of features whose mean difference is below 0.1 between-compound sd. correlation:
    median over compounds of the Pearson correlation of effect vectors. equivalent: 200 rows or more, within of at least
    0.95 and correlation of at least 0.98.
    """

    rows: int
    within: float
    correlation: float
    equivalent: bool


def verdict(
    teacher: Float[np.ndarray, "n k"], student: Float[np.ndarray, "_ _"], rows: pd.DataFrame, control: str
) -> Verdict:
    """Compare features [n, k] of the same rows. rows: compound of each, with `control` among them. Features that do not
    vary between compounds are left out; effects are means over a compound's rows minus the control's, in
    between-compound sd.

    Raises EquivalenceError.
    """
    if teacher.shape != student.shape or len(rows) != len(teacher):
        raise EquivalenceError(
            f"features: teacher {teacher.shape}, student {student.shape}, {len(rows)} rows; expected the same rows in "
            "the same order"
        )
    compound = rows["compound"].to_numpy()
    names = sorted(set(compound) - {control})
    if control not in set(compound) or len(names) < 3:
        raise EquivalenceError(f"compounds: got {len(names)} beside the control {control}, expected it and 3 or more")
    means = {
        who: np.stack([values[compound == name].mean(0) for name in (control, *names)])
        for who, values in (("teacher", teacher), ("student", student))
    }
    spread = means["teacher"][1:].std(0, ddof=1)
    use = spread > 1e-9 * np.maximum(np.abs(teacher.mean(0)), 1e-9)
    gap = np.abs((student - teacher).mean(0))[use] / spread[use]
    effects = [(means[who][1:] - means[who][:1])[:, use] / spread[use] for who in ("teacher", "student")]
    together = float(np.median([np.corrcoef(a, b)[0, 1] for a, b in zip(*effects, strict=True)]))
    within = float((gap < LARGEST).mean())
    return {
        "rows": len(rows),
        "within": within,
        "correlation": together,
        "equivalent": len(rows) >= ROWS and within >= SHARE and together >= CORRELATION,
    }
