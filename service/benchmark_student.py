"""`dopaint benchmark student`: does a few-step student (or a model with a small decoder) paint what its teacher paints?

Both paint the same rows (compound, context, noise). Judged are the paired features (`ldm.equivalence`), how well
effects find compounds of the same mechanism, and, where both models have been through `dopaint benchmark gate`, the
gate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from causal.contexts import Contexts
from causal.design import cross, draw_contexts
from causal.phenotype import DMSO
from ldm.equivalence import verdict
from profiling.metrics import average_precision
from profiling.profiles import Profiles
from service.benchmark_gate import actives
from service.engine import ModelRoom, find_model, load_room
from service.errors import InvalidRequest
from service.gate import FACTORS
from service.gate_measure import Tell, measured
from service.library import library

Progress = Callable[[int, int, str], None]
MEASURED = Path("measured/gate.json")  # of a model folder


@dataclass(frozen=True)
class StudentConfig:
    """compounds: active seen drugs, `each` of a mechanism, beside DMSO, all under `draws` shared contexts and noises.
    worse: how much lower than the teacher's the student's mAP and gate may be.
    """

    compounds: int = 48
    each: int = 4
    draws: int = 5
    seed: int = 4300
    worse: float = 0.02


def chosen(config: StudentConfig) -> pd.DataFrame:
    """compound and moa: drugs of mechanisms that have `each` active ones, in a seeded order."""
    order = {key: i for i, key in enumerate(actives(10**6, config.seed))}
    table = library()[["compound", "moa"]]
    strong = table[table["compound"].isin(order)].sort_values("compound", key=lambda c: c.map(order))
    few = strong.groupby("moa", sort=False).head(config.each)
    whole = few[few.groupby("moa")["compound"].transform("size") == config.each]
    return whole.sort_values("moa", kind="stable").head(config.compounds).reset_index(drop=True)


def usable(
    teacher: Profiles, student: Profiles
) -> tuple[Bool[np.ndarray, " n"], Float[np.ndarray, "m k"], Float[np.ndarray, "m k"]]:
    """Rows in which both found cells, and both tables of these rows in the features that both have everywhere."""
    names = [name for name in teacher.names if name in set(student.names)]
    both = [p.features(names).values for p in (teacher, student)]
    rows = np.isfinite(both[0]).any(1) & np.isfinite(both[1]).any(1)
    use = np.isfinite(both[0][rows]).all(0) & np.isfinite(both[1][rows]).all(0)
    return rows, both[0][rows][:, use], both[1][rows][:, use]


def mechanism_map(values: Float[np.ndarray, "n k"], rows: pd.DataFrame, moa: pd.Series) -> float:
    """Mean average precision with which a compound's effect finds the other compounds of its mechanism, by cosine.

    moa: of each compound, by InChIKey. Effects are means minus DMSO's in between-compound deviations.
    """
    compound = rows["compound"].to_numpy()
    names = sorted(set(compound) - {DMSO})
    means = np.stack([values[compound == name].mean(0) for name in (DMSO, *names)])
    spread = means[1:].std(0, ddof=1)
    use = spread > 1e-9 * np.maximum(np.abs(values.mean(0)), 1e-9)
    effect = (means[1:, use] - means[0, use]) / spread[use]
    unit = effect / np.maximum(np.linalg.norm(effect, axis=1, keepdims=True), 1e-12)
    label = moa.loc[names].to_numpy()
    others = ~np.eye(len(names), dtype=bool)
    scores = (unit @ unit.T)[others].reshape(len(names), -1)
    truth = (label[:, None] == label[None])[others].reshape(len(names), -1)
    return float(np.nanmean(average_precision(scores, truth)))


def gates(teacher: Path, student: Path, worse: float) -> dict[str, object]:
    """Differences of the two models' gates, student less teacher; without both, what to run."""
    files = [folder / MEASURED for folder in (teacher, student)]
    lacking = [str(file) for file in files if not file.is_file()]
    if lacking:
        return {"kept": None, "missing": lacking, "remedy": "dopaint benchmark gate --model MODEL --out FILE"}
    one, other = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    how = [{key: gate.get(key) for key in ("engine", "draws")} for gate in (one, other)]
    if how[0] != how[1]:
        raise InvalidRequest(f"gates: made as {how[0]} and as {how[1]}: measure both with the same version")
    found: dict[str, object] = {}
    kept = True
    for factor in FACTORS:
        a, b = (next(s for s in g["scores"] if s["factor"] == factor and s["model"] == "model") for g in (one, other))
        gaps = {key: round(b[key] - a[key], 4) for key in ("cosine", "top_share") if a[key] is not None}
        found[factor] = gaps
        kept = kept and min(gaps.values()) >= -worse
    return {"kept": kept, "differences": found}


def _told(progress: Progress | None, who: str, before: int, total: int) -> Tell:
    done = before

    def tell(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, total, who)

    return tell


def _painted(room: ModelRoom, rows: pd.DataFrame, tell: Tell) -> tuple[Profiles, dict[str, object]]:
    """Profiles of the model's pictures, and what it is and how fast it painted."""
    vectors, seconds = room.vectors(list(rows["compound"])), 0.0

    def paint(index: np.ndarray) -> np.ndarray:
        nonlocal seconds
        began = time.perf_counter()
        pictures = room.paint_rows(vectors[index], rows.iloc[index].reset_index(drop=True), None)
        seconds += time.perf_counter() - began
        return pictures

    table = measured(room, rows, paint, tell)
    speed = round(len(rows) / max(seconds, 1e-9), 2)
    return table, {"hashes": room.provenance.document(), "pictures_per_second": speed}


def run(
    student: str | Path,
    teacher: str | Path = "simulation-128",
    out: Path | None = None,
    config: StudentConfig | None = None,
    progress: Progress | None = None,
    engine: str = "fast",
) -> dict[str, object]:
    """Paint and measure the same rows with both, and judge; writes JSON to `out` if given.

    Raises MissingModel, EquivalenceError, and UnknownContext when the student does not know the teacher's contexts.
    """
    config = config or StudentConfig()
    folders = {"teacher": find_model(teacher), "student": find_model(student)}
    drugs = chosen(config)
    tables: dict[str, Profiles] = {}
    facts: dict[str, dict[str, object]] = {}
    rows: pd.DataFrame | None = None
    for who, folder in folders.items():
        with load_room(folder, engine) as room:
            if rows is None:  # the teacher's contexts
                draws = draw_contexts(
                    Contexts.from_table(room.contexts.plates), config.draws, "iid", "valid", config.seed
                )
                rows = cross([DMSO, *drugs["compound"]], draws)
            tables[who], facts[who] = _painted(room, rows, _told(progress, who, len(tables) * len(rows), 2 * len(rows)))
    assert rows is not None
    both, one, other = usable(tables["teacher"], tables["student"])
    paired = rows[both].reset_index(drop=True)
    found = verdict(one, other, paired, DMSO)
    moa = drugs.set_index("compound")["moa"]
    scores = {who: mechanism_map(v, paired, moa) for who, v in (("teacher", one), ("student", other))}
    gate = gates(folders["teacher"], folders["student"], config.worse)
    map_kept = scores["student"] >= scores["teacher"] - config.worse
    whole = None if gate["kept"] is None else bool(found["equivalent"] and map_kept and gate["kept"])
    result: dict[str, object] = {
        "evidence": "simulation",
        "config": asdict(config),
        "engine": engine,
        **facts,
        "features": one.shape[1],
        "rows_without_cells": int((~both).sum()),
        "paired": found,
        "mechanism_map": {name: round(value, 4) for name, value in scores.items()} | {"kept": bool(map_kept)},
        "gate": gate,
        "equivalent": whole,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
