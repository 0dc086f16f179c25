"""All proofs of this room in one run: a table, a figure, and whether what was wanted holds.

    run(out)               2,000 worlds, a few minutes on one core
    run(out, quick=True)   fewer worlds, half a minute

Everything here is a simulation, and every file says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from causal.figure import Panel, draw_panels
from causal.painted import PaintedConfig, painted_dial
from causal.precision import variance_at_equal_cost
from causal.studies import allocation_dial, cell_count, fitted_mechanism, hidden_confounder, known_mechanism

Study = Callable[[bool], pd.DataFrame]
PAINTED_QUICK = PaintedConfig(compounds=4, wells=24, draws=16, truth_draws=96, dial=(0.0, 1.0))
STUDIES: dict[str, Study] = {
    "known mechanism": lambda quick: known_mechanism(300 if quick else 2000),
    "fitted mechanism": lambda quick: fitted_mechanism(100 if quick else 1000),
    "hidden confounder": lambda quick: hidden_confounder(60 if quick else 500),
    "allocation dial": lambda quick: allocation_dial(40 if quick else 300),
    "painted dial": lambda quick: painted_dial(PAINTED_QUICK if quick else PaintedConfig()),
    "variance at equal cost": lambda quick: variance_at_equal_cost(replicates=100 if quick else 600),
    "cell count": lambda quick: cell_count(200 if quick else 2000),
}
"""Name of a study to (quick) → rows; a caller adds its own, for example with a diffusion model as the mechanism."""


def run(out: Path, quick: bool = False, studies: Mapping[str, Study] | None = None) -> pd.DataFrame:
    """Run the studies; write ``causal.csv``, ``causal.json`` and ``causal.svg`` to a folder.

    Args:
        out: folder, made if it is not there.
        quick: fewer worlds; coverages are then too noisy for the limits of the design to be a verdict.
        studies: which ones; None: `STUDIES`.

    Returns:
        one row per (study, setting, estimator), see `causal.studies.row`; column ``evidence`` is "simulation".
    """
    chosen = STUDIES if studies is None else studies
    table = pd.concat([study(quick) for study in chosen.values()], ignore_index=True)
    table["evidence"] = "simulation"
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "causal.csv", index=False)
    (out / "causal.json").write_text(json.dumps(summary(table, quick), indent=2) + "\n")
    if (table["study"] == "allocation dial").any():
        (out / "causal.svg").write_text(dial_figure(table))
    return table


def summary(table: pd.DataFrame, quick: bool) -> dict[str, object]:
    """How many of the stated limits hold, and which do not."""
    judged = table[table["holds"].notna()]
    missed = judged[~judged["holds"].astype(bool)]
    return {
        "evidence": "simulation",
        "quick": quick,
        "limits": len(judged),
        "hold": int(judged["holds"].astype(bool).sum()),
        "missed": [f"{r.study}: {r.setting}: {r.estimator}: wanted {r.wanted}" for r in missed.itertuples()],
    }


def dial_figure(table: pd.DataFrame) -> str:
    """RMSE and coverage of every estimator over the dial of allocation, as SVG."""
    dial = table[table["study"] == "allocation dial"]
    x = tuple(sorted({float(s) for s in dial["setting"]}))
    lines = {column: _lines(dial, column) for column in ("rmse", "coverage")}
    top = float(np.ceil(10 * max(max(v) for v in lines["rmse"].values())) / 10)
    label = "allocation: randomised (0) to JUMP-like (1)"
    panels = [
        Panel("root mean squared error", label, x, lines["rmse"], (0.0, top)),
        Panel("coverage of the 95 % interval", label, x, lines["coverage"], (0.0, 1.0), band=(0.93, 0.97)),
    ]
    return draw_panels(panels, "Effects under do(compound): every estimator, worlds with known truth (simulation)")


def _lines(dial: pd.DataFrame, column: str) -> dict[str, list[float]]:
    return {
        str(name): rows.sort_values("setting")[column].astype(float).tolist()
        for name, rows in dial.groupby("estimator", sort=False)
    }
