"""`dopaint benchmark causal`: the estimators on worlds whose truth is known; a table and a figure. All simulated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from causal.benchmark import STUDIES, Study
from causal.benchmark import run as run_studies

Progress = Callable[[int, int, str], None]


def run(out: Path, quick: bool = False, progress: Progress | None = None) -> pd.DataFrame:
    """Every study of `causal.benchmark`, told one by one; writes causal.csv, causal.json and causal.svg to `out`."""

    def told(done: int, name: str, study: Study) -> Study:
        def one(quick: bool) -> pd.DataFrame:
            if progress is not None:
                progress(done, len(STUDIES), name)
            return study(quick)

        return one

    return run_studies(out, quick, {name: told(i, name, study) for i, (name, study) in enumerate(STUDIES.items())})
