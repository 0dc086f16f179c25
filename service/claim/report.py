"""The claim's numbers on disk: claim.json, claim.csv, claim.md to read, claim.png to look at. All is a simulation."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from service.claim.config import ALLOCATIONS
from service.claim.estimate import DIFFUSION, METHODS
from service.claim.stages import write_whole

NOT_DEFINED = "not defined"
COLOURS = {"seen": "#2b5c8a", "unseen": "#c8772e"}


@dataclass(frozen=True)
class Result:
    """`scores`: one row an allocation, method and set. `verdicts`: paired differences of RMSE. `seeds`: RMSE of each
    training by itself. `facts`: what was done.
    """

    scores: pd.DataFrame
    verdicts: pd.DataFrame
    seeds: pd.DataFrame
    facts: Mapping[str, Any]


def write(result: Result, folder: Path) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        **result.facts,
        "scores": _records(result.scores),
        "verdicts": _records(result.verdicts),
        "seeds": _records(result.seeds),
    }
    write_whole(folder / "claim.json", json.dumps(document, indent=1) + "\n")
    result.scores.to_csv(folder / "claim.csv", index=False)
    part = folder / "claim.png.part"
    part.write_bytes(picture(result.scores))
    os.replace(part, folder / "claim.png")
    write_whole(folder / "claim.md", page(result))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON objects: what is missing is null."""
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def page(result: Result) -> str:
    """The report in Markdown: verdicts, one table an allocation, what the columns are, what was done."""
    facts = result.facts
    lines = [
        "# Does the SCM-aware diffusion model get nearer to the true effects?",
        "",
        "**A simulation**: the painted world of `causal/simulator.py`, whose truth is known. It says how estimators do "
        "where compounds are confounded with batches and wells, and nothing about real compounds.",
        "",
    ]
    for allocation in ALLOCATIONS:
        lines += [f"## {allocation} allocation (dial {facts['dial'][allocation]:g})", ""]
        lines += verdict_lines(result.verdicts, allocation)
        lines += ["", *table_lines(result.scores, allocation), ""]
    lines += ["![RMSE of effects and mAP of mechanisms](claim.png)", "", "## Each training by itself", ""]
    lines += ["| allocation | method | seed | RMSE, seen |", "| --- | --- | --- | --- |"]
    for row in result.seeds.itertuples(index=False):
        lines.append(f"| {row.allocation} | {row.method} | {row.seed} | {row.rmse_seen:.3f} |")
    lines += ["", "## What the columns are", "", *_columns(facts), "", "## What was done", ""]
    lines += ["```json", json.dumps({k: v for k, v in facts.items() if k != "seconds"}, indent=1), "```", ""]
    lines += ["| stage | minutes |", "| --- | --- |"]
    lines += [f"| {stage} | {seconds / 60:.1f} |" for stage, seconds in facts["seconds"].items()]
    total = sum(facts["seconds"].values())
    return "\n".join([*lines, f"| all but score | {total / 60:.1f} |", ""])


def verdict_lines(verdicts: pd.DataFrame, allocation: str) -> list[str]:
    """One line a rival: does the SCM-aware model beat it on RMSE of the effects of seen compounds?"""
    lines = []
    mine = verdicts[verdicts["allocation"] == allocation]
    for row in mine.to_dict("records"):
        if pd.isna(row.get("difference")):
            continue
        numbers = f"RMSE {row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
        lines.append(f"* {row['set']} compounds: {DIFFUSION['aware']} **{row['says']}** {row['theirs']} ({numbers}).")
    return lines


def table_lines(scores: pd.DataFrame, allocation: str) -> list[str]:
    """The table of an allocation; every method has its row for seen and for unseen compounds."""
    head = "| method | compounds | bias | RMSE | RMSE, held-out batches | relative | cosine | coverage | width | mAP |"
    lines = [head + " mAP by label | ROC-AUC |", "| --- " * 12 + "|"]
    mine = scores[scores["allocation"] == allocation]
    for method in METHODS:
        rows = mine[mine["method"] == method].to_dict("records")
        lines += [f"| {method} | {row['set']} | " + " | ".join(_cells(row)) + " |" for row in rows]
    return lines


def _cells(row: dict[str, Any]) -> list[str]:
    if row["rmse"] is None:
        return [NOT_DEFINED] * 10
    left_out = f", {row['not_estimable']} not estimable" if row["not_estimable"] else ""
    ranked = [
        f"{row[m]:.2f} ({row[f'{m}_low']:.2f} to {row[f'{m}_high']:.2f}; chance {row[f'{m}_chance']:.2f})"
        if row[m] is not None
        else NOT_DEFINED
        for m in ("map_per_sample", "map_per_label", "roc_auc")
    ]
    return [
        f"{row['bias']:+.3f} ({row['bias_of_features']:.3f})",
        f"{row['rmse']:.3f} ({row['rmse_low']:.3f} to {row['rmse_high']:.3f}){left_out}",
        f"{row['rmse_held_out']:.3f}",
        _number(row["relative"]),
        _number(row["cosine"]),
        f"{100 * row['coverage']:.0f} %",
        _number(row["width"]),
        *ranked,
    ]


def _number(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.2f}"


def _columns(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"* Effects are differences to DMSO in {facts['features']} features (engine `{facts['engine']}`), in units of "
        "the MAD of true controls, clipped at 30 units; the same features and units for every method.",
        "* **bias**: mean error over compounds and features; in brackets the root mean square, over features, of each "
        "feature's mean error. **RMSE**: over compounds and features, against the truth under do(compound) in the "
        "batches of training; then in batches that no method saw a picture of. The truth is itself an average over "
        f"{facts['truth']['draws']} draws of the world; the oracle shows how near its noise lets anybody come.",
        "* **relative**: RMSE over the standard deviation of true effects between compounds. **cosine**: median over "
        "compounds of estimated with true effect vector.",
        "* **coverage** and median **width** of the `total` 95 % intervals of single effects: Student's for naive, "
        "regression and AIPW; bootstrap over wells with the correction refitted for Harmony and ComBat; draws and "
        "estimation for the g-formulas, the estimation error of diffusion models from the spread of their seeds, pooled"
        " over compounds (the error that all seeds share is not in it).",
        "* **mAP** (per sample), **mAP by label**, **ROC-AUC**: Biosimilarity to sub-profiles of seen reference "
        "compounds by the same method, mean over folds. Intervals of scores cover compounds (and seeds, folds).",
        f"* **{NOT_DEFINED}**: the method reads the wells of a compound, and an unseen compound has none.",
        "* SCM-free diffusion is averaged over the same draws; it is the same network, recipe, data, steps, batches and"
        " noise, without source, batch, plate format and well. Both see pictures scaled by their source's controls.",
    ]


def picture(scores: pd.DataFrame) -> bytes:
    """RMSE of effects (bars with intervals) and mAP per sample, one column an allocation; PNG."""
    figure = Figure(figsize=(12, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(ALLOCATIONS), sharey="row")
    height = 0.38
    for column, allocation in enumerate(ALLOCATIONS):
        for line, (metric, title) in enumerate(
            (("rmse", "RMSE of effects, MADs of controls"), ("map_per_sample", "mAP of mechanisms, per sample"))
        ):
            axis = axes[line][column]
            for number, name in enumerate(COLOURS):
                mine = scores[(scores["allocation"] == allocation) & (scores["set"] == name)].set_index("method")
                there = [m for m in METHODS if mine.loc[m, metric] is not None]
                at = np.array([METHODS.index(m) for m in there]) + (number - 0.5) * height
                value, low, high = (
                    np.array([mine.loc[m, f"{metric}{end}"] for m in there], float) for end in ("", "_low", "_high")
                )
                error = np.maximum(np.stack([value - low, high - value]), 0.0)
                axis.barh(at, value, height, color=COLOURS[name], label=f"{name} compounds", xerr=error, capsize=2)
            axis.set_yticks(range(len(METHODS)), METHODS)
            axis.set_ylim(len(METHODS) - 0.4, -0.6)
            axis.set_xlabel(title)
            if line == 0:
                axis.set_title(f"{allocation} allocation")
    axes[0][0].legend(loc="lower right", fontsize="small")
    figure.suptitle("Simulation: estimated against true effects; no bar means not defined")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
