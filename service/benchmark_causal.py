"""`dopaint benchmark causal`: the estimators on worlds whose truth is known, as one table. All is simulation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from causal import studies

Progress = Callable[[int, int, str], None]
WORLDS = 2000

# name -> the study and the share of `worlds` that it gets: fitted mechanisms cost a hundred times a known one
STUDIES: dict[str, tuple[Callable[[int], pd.DataFrame], float]] = {
    "known mechanism": (studies.known_mechanism, 1.0),
    "fitted mechanism": (studies.fitted_mechanism, 0.25),
    "hidden confounder": (studies.hidden_confounder, 0.1),
    "dial of allocation": (studies.allocation_dial, 0.1),
    "cell count": (studies.cell_count, 0.25),
}


def run(out: Path | None = None, worlds: int = WORLDS, progress: Progress | None = None) -> pd.DataFrame:
    """Every study, one under another; written to `out` (a file) as JSON if given."""
    tables = []
    for done, (name, (study, share)) in enumerate(STUDIES.items()):
        if progress is not None:
            progress(done, len(STUDIES), name)
        tables.append(study(max(20, int(worlds * share))))
    table = pd.concat(tables, ignore_index=True)
    if out is not None:
        document = {"evidence": "simulation", "worlds": worlds, "rows": json.loads(table.to_json(orient="records"))}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return table
