"""As many draws as a wanted precision needs: a pilot, and from its spread the number of draws, once.

Stein (1945; `causal.stopping`, rule "two-stage"): the pilot of n₀ draws fixes N = ⌈n₀ (t se₀ / h)²⌉ for the
half width h, with t of the pilot's degrees of freedom, and the interval mean_N ± t se₀ √(n₀/N) keeps its coverage
because N depends on the pilot's spread alone. Looking again and again and stopping when it is narrow would not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from causal.gformula import Effects
from service.errors import InvalidRequest
from service.score import LEVEL

PILOT = 16


@dataclass(frozen=True)
class Precision:
    """Half the width that the 95 % interval over draws of every selected feature may have, in control MADs."""

    half_width: float
    pilot: int = PILOT  # draws

    def __post_init__(self) -> None:
        if not 0 < self.half_width < math.inf:
            raise InvalidRequest(f"precision.half_width is {self.half_width}: expected a positive number")


def precision_of(document: dict[str, Any]) -> Precision | None:
    """The precision that a stored request asks for; None: as many draws as it says."""
    asked = document.get("precision")
    return None if asked is None else Precision(float(asked["half_width"]))


def widest(effects: Effects, names: Sequence[str]) -> float:
    """Half the width of the widest interval among the features that were measured; infinite when none has one."""
    place = {name: i for i, name in enumerate(effects.names)}
    chosen = [place[name] for name in names if np.isfinite(effects.value[0, place[name]])]
    se, df = effects.standard_error("draws")
    if not chosen or not (df[0, chosen] > 0).all():
        return math.inf
    half = stats.t.ppf(0.5 + LEVEL / 2, df[0, chosen]) * se[0, chosen]
    return float(half.max()) if np.isfinite(half).all() else math.inf


def draws_needed(precision: Precision, pilot: Effects, names: Sequence[str], n: int, most: int) -> int:
    """N from a pilot of n draws, at least n and at most `most`."""
    half = widest(pilot, names)
    if not math.isfinite(half):
        return most
    return max(n, min(most, math.ceil(n * (half / precision.half_width) ** 2)))


def reached(precision: Precision, pilot: Effects, names: Sequence[str], n: int, draws: int) -> dict[str, Any]:
    """What the answer says about its precision, after `draws` draws of which the first n were the pilot."""
    half = widest(pilot, names) * math.sqrt(n / draws)
    return {
        "asked_half_width": precision.half_width,
        "half_width": half if math.isfinite(half) else None,
        "reached": bool(half <= precision.half_width),
        "draws": draws,
        "pilot": n,
        "rule": "two-stage",
        "unit": "control MADs",
    }
