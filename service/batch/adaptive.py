"""How many draws one compound needs: Stein's two-stage rule on the response along every label's sub-profile.

A first round of `pilot` draws fixes N = max(pilot, (2 t s / width)^2) for the label that needs most; a second round
paints the rest. The interval of N draws with the pilot's variance covers exactly its level for normal draws (Stein
1945, `causal.stopping`), because N depends on the variance alone. Two rounds make a straight stream, without a loop.
Draws without cells are counted, never replaced: what they take away is reported as "not reached".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from causal.stopping import Stopped, StoppingRule, draw_until
from profiling.subprofile import SubProfiles


@dataclass(frozen=True)
class Need:
    """Draws a compound needs in all, and whether those it has make every interval narrow enough."""

    draws: int
    reached: bool


def responses(differences: Float[np.ndarray, "n k"], subprofiles: SubProfiles) -> Float[np.ndarray, "n l"]:
    """Response of each draw along each label's sub-profile, in control MADs: mean over its features of d v / rms(v).

    NaN for a draw without cells, and for labels without sub-profile. Features that a draw lacks are left out of its
    mean. A compound whose effect is the sub-profile itself has the response rms(v).
    """
    mask = subprofiles.mask
    n = mask.sum(axis=1)
    rms = np.sqrt((subprofiles.values**2).sum(axis=1) / np.maximum(n, 1))
    there = np.isfinite(differences)
    used = (n >= 2) & (rms > 0)
    direction = np.where(mask & used[:, None], subprofiles.values / np.where(rms > 0, rms, 1.0)[:, None], 0.0)
    total = np.where(there, differences, 0.0) @ direction.T
    count = there.astype(np.float64) @ (mask & used[:, None]).T.astype(np.float64)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


class _MoreWanted(Exception):
    def __init__(self, draws: int) -> None:
        self.draws = draws


def need(values: Float[np.ndarray, "n l"], width: float, pilot: int, most: int, level: float = 0.95) -> Need:
    """How many draws in all, after n of them (the pilot, or all that were asked for after it).

    values: responses [n, labels] of draws 0 to n - 1; columns without any number are left aside. With n = pilot the
    answer may ask for more; with more than that it says whether the width was reached.
    """
    columns = _known(values)
    if not columns.any():
        return Need(len(values), False)
    known = values[:, columns]
    if len(known) > pilot:
        most = len(known)
    rule = StoppingRule(width=width, level=level, pilot=pilot, max_units=most, batch=most)

    def sample(start: int, count: int) -> Float[np.ndarray, "b l"]:
        if start + count > len(known):
            raise _MoreWanted(min(start + count, most))
        return known[start : start + count]

    try:
        found: Stopped = draw_until(sample, rule)
    except _MoreWanted as more:
        return Need(more.draws, False)
    return Need(len(values), bool(found.reached.all()))


def _known(values: Float[np.ndarray, "n l"]) -> Bool[np.ndarray, " l"]:
    return np.asarray(np.isfinite(values).sum(axis=0) >= 2)
