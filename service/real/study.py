"""What a study gives, and its way to disk: a CSV file a table, one JSON document, one page of HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiling.profiles import InvalidProfiles, Profiles
from profiling.shuffle import Found
from profiling.steps import run_steps
from service.real.page import page
from service.score import plain

Steps = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Study:
    """`text`: paragraphs; `scores`: one row a method and metric; `tables`: further tables by caption; `figures`: SVG by
    caption."""

    name: str
    title: str
    text: tuple[str, ...]
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)


def corrected(profiles: Profiles, steps: Steps, controls: np.ndarray) -> tuple[Profiles | None, str]:
    """Profiles after the steps and how they were fitted, or None and the reason why the steps cannot be taken."""
    try:
        done = run_steps(profiles, steps, controls)
    except InvalidProfiles as error:
        return None, f"not possible: {error}"
    if not len(done.log):
        return done.profiles, ""
    all_rows = (done.log["fitted_on"] == len(profiles)).any()
    return done.profiles, "transductive" if done.transductive else "on all rows" if all_rows else "on DMSO"


def row(method: str, metric: str, score: Found, fitted: str = "", features: int = 0) -> dict[str, Any]:
    """One line of `Study.scores`."""
    return {"method": method, "metric": metric, **asdict(score), "features": features, "fitted": fitted}


def document(study: Study) -> dict[str, Any]:
    """The study as JSON values, without its figures."""
    return {
        "title": study.title,
        "text": list(study.text),
        "scores": _records(study.scores),
        "tables": {name: _records(table) for name, table in study.tables.items()},
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).to_dict("records")
    return [
        {str(k): plain(v.item() if isinstance(v, np.generic) else v) for k, v in one.items() if v == v} for one in rows
    ]


def write(studies: Sequence[Study], out: Path, provenance: Mapping[str, Any]) -> Path:
    """Write `<study>_scores.csv`, `<study>_table_<i>.csv`, `real.json` and `report.html`; gives the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    for study in studies:
        if len(study.scores):
            study.scores.to_csv(out / f"{study.name}_scores.csv", index=False)
        for number, table in enumerate(study.tables.values(), start=1):
            table.to_csv(out / f"{study.name}_table_{number}.csv", index=False)
    everything = {"provenance": dict(provenance), "studies": {study.name: document(study) for study in studies}}
    (out / "real.json").write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path = out / "report.html"
    path.write_text(page(studies, provenance), encoding="utf-8")
    return path
