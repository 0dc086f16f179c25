"""The model card: facts and measured numbers of a model folder as a page, written from its files and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.gate import GateConfig

MEASURED = "measured"  # folder of gate.json and unseen.json in a model folder


def _read(path: Path) -> dict[str, Any]:
    """A JSON file. Raises ValueError naming the command that writes it."""
    if not path.is_file():
        command = {"gate.json": "dopaint benchmark gate", "unseen.json": "dopaint benchmark unseen"}.get(path.name)
        raise ValueError(f"{path.name} is missing in {path.parent}: write it with `{command or 'dopaint train'}`")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def misses(gate: dict[str, Any], config: GateConfig | None = None) -> list[str]:
    """A sentence for every threshold of the gate that the model misses, with the distance."""
    config = config or GateConfig()
    found = []
    for s in gate["scores"]:
        if s["model"] != "model":
            continue
        for name, value, least in (
            ("median cosine", s["cosine"], config.cosine),
            ("lower bound of the cosine", s["cosine_low"], config.cosine_low),
            ("share of compounds in the top tenth", s["top_share"], config.top_share),
        ):
            if value is not None and value < least:
                found.append(f"{s['factor']}: {name} {value:.2f}, {least - value:.2f} below {least}")
        low, high = config.slope
        if not low <= s["slope"] <= high:
            away = low - s["slope"] if s["slope"] < low else s["slope"] - high
            found.append(f"{s['factor']}: slope of size {s['slope']:.2f}, {away:.2f} outside {low} to {high}")
    return found


def _gate_table(gate: dict[str, Any]) -> list[str]:
    limited = any("noise_ceiling" in s for s in gate["scores"])  # older gates have none
    heads = ["factor", "model", "pairs", "median cosine (95 % lower bound)"]
    heads += [*(["noise ceiling"] if limited else []), "slope of size", "top tenth", "passed"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for s in gate["scores"]:
        top = "" if s["top_share"] is None else f"{100 * s['top_share']:.0f} %"
        cells = [s["factor"], s["model"], f"{s['pairs']}", f"{s['cosine']:.2f} ({s['cosine_low']:.2f})"]
        if limited:
            cells.append("" if s.get("noise_ceiling") is None else f"{s['noise_ceiling']:.2f}")
        cells += [f"{s['slope']:.2f}", top, "yes" if s["passed"] else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _gate_method(gate: dict[str, Any]) -> list[str]:
    lines = [
        "`dopaint benchmark gate`: pairs of rows that differ in one thing and share their noise; effects in generated",
        "pictures against effects in the true pictures of the simulator, by CellProfiler features on the scale of true",
        "controls. The unconditional model and shuffled conditions must fail in the same run.",
    ]
    if "draws" not in gate:
        return lines
    draws = ", ".join(f"{n} for {factor}" for factor, n in gate["draws"].items() if factor != "truth")
    by = {
        "fast": "the engine `fast`, whose values are CellProfiler's to rounding",
        "cellprofiler": "CellProfiler itself",
    }[gate["engine"]]
    return [
        *lines,
        f"Measured with {by}; pictures an end: {draws}; {gate['draws']['truth']} true pictures for each.",
        "Noise ceiling: what other true pictures of the same contexts reach, in the same run; it decides nothing.",
    ]


def _unseen_table(unseen: dict[str, Any]) -> list[str]:
    lines = ["| drugs | ranked by | n | mean rank of the true mechanism (95 %) | chance | p | right at rank 1 |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for half, both in unseen["results"].items():
        for who, r in both.items():
            m = r["mean_rank"]
            name = half.replace("_", ", ")
            lines.append(
                f"| {name} | {who} | {r['drugs']} | {m['value']:.2f} ({m['low']:.2f} to {m['high']:.2f}) "
                f"| {m['chance']:.2f} | {r['p']:.4f} | {100 * r['top_1']:.0f} % |"
            )
    return lines


def _verdict(unseen: dict[str, Any]) -> str:
    both = unseen["results"]["all"]
    model, structure = both["model"]["mean_rank"]["value"], both["structure"]["mean_rank"]["value"]
    if structure <= model:
        return (
            "Structure alone does as well or better here: the Tanimoto nearest neighbour among the seen drugs ranks "
            f"the true mechanism {structure:.2f} on average, the model {model:.2f}. For drugs never seen the pictures "
            "add nothing to the structure."
        )
    return f"The model ranks the true mechanism {model:.2f} on average, the Tanimoto nearest neighbour {structure:.2f}."


def _ceiling_table(ceiling: dict[str, Any]) -> list[str]:
    lines = ["| family | median R² |", "| --- | --- |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in sorted(ceiling["families"].items())]
    return [*lines, f"| all features | {ceiling['median']:.2f} |"]


def render(folder: Path) -> str:
    """The card of a model folder, from dopaint.json, measured/*.json and reference/manifest.json.

    Raises ValueError when one of them is missing.
    """
    facts = _read(folder / "dopaint.json")
    gate, unseen = (_read(folder / MEASURED / name) for name in ("gate.json", "unseen.json"))
    reference = _read(folder / "reference" / "manifest.json")
    missed = misses(gate)
    ceiling, cells = gate["autoencoder_ceiling"], gate["whole_cells"]
    weak = ", ".join(ceiling["weak"])
    parts = [
        f"# {folder.name}: a *simulation* model",
        "",
        "**This model was trained on a simulation.** It has never seen a real cell. It paints what compounds do to the",
        "cells of an invented world (`causal/simulator.py`); names, structures and mechanism labels of the compounds",
        "are real, their effects are not. Nothing it says is evidence about a real compound.",
        "",
        f"* evidence: `{facts['evidence']}`; conditions: {facts['conditions']}",
        "* pictures: five channels (DNA, ER, RNA, AGP, Mito), 128 × 128 pixels, with the grain of each source's camera",
        "* contexts: three sources, twelve batches, 1536- and 384-well plates; unknown contexts are refused",
        f"* training: {facts['training_steps']} optimiser steps, {facts['training_minutes']} minutes on two cores "
        "(autoencoder and encoder before that; recipes in `configs/`, commands in the README)",
        f"* reference library: {reference['counts']['compounds']} seen drugs, "
        f"{reference['counts']['features_selected']} of {reference['counts']['features_measured']} features",
        "",
        "## Does it use what it is given?",
        "",
        *_gate_method(gate),
        "",
        *_gate_table(gate),
        "",
        "All thresholds are met."
        if not missed
        else "This first model misses: " + "; ".join(missed) + ". Reaching them is the next work on `ldm`.",
        "",
        "## Drugs that it has never seen",
        "",
        "`dopaint benchmark unseen`: set aside by a rule written down before training"
        " (`docs/decisions/0001-unseen-compounds.md`).",
        "",
        *_unseen_table(unseen),
        "",
        _verdict(unseen),
        "",
        "## What the autoencoder lets through",
        "",
        "R² of each CellProfiler feature between true pictures and the same pictures encoded and decoded, the median",
        "by family (measured by the same gate run): no denoiser can do better.",
        "",
        *_ceiling_table(ceiling),
        "",
        f"Below 0.5, so of little use for a mechanism: {weak}." if weak else "No family is below 0.5.",
        "",
        "## Limits",
        "",
        "Its intervals cover the draws of contexts and noise, not the error of the model. Effects below the noise of",
        "one field, small organelles and pixel-scale texture are poor. It knows one dose, one time and one cell line.",
        f"Control fields have a median of {cells['true']:g} whole cells in true and {cells['generated']:g} in "
        "generated pictures (CellProfiler, cells at the frame left out).",
        "",
    ]
    return "\n".join(parts)


def write(folder: Path) -> Path:
    """Write README.md of the model folder."""
    path = folder / "README.md"
    path.write_text(render(folder), encoding="utf-8")
    return path
