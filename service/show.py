"""Predictions as a table for a terminal: the best mechanisms of each molecule with interval, chance, p and evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.table import Table

from service.answer import COVERS, Answer
from service.request import Outcome


def table(outcomes: Sequence[Outcome], top: int = 3) -> Table:
    """One block of rows a molecule: its `top` mechanisms, or why none is called."""
    return answers_table([one.answer for one in outcomes if one.answer is not None], top)


def answers_table(answers: Sequence[Answer], top: int = 3) -> Table:
    """The same from predictions.json documents."""
    evidence = sorted({answer["evidence"] for answer in answers})
    shown = Table(
        title=f"Predicted mechanisms (evidence: {', '.join(evidence)})",
        caption=f"interval: 95 %, {COVERS}; {answers[0]['statement']}",
    )
    for name, justify in (
        ("molecule", "left"),
        ("mechanism", "left"),
        ("score", "right"),
        ("interval", "right"),
        ("chance", "right"),
        ("p", "right"),
        ("closest reference compounds", "left"),
    ):
        shown.add_column(name, justify=justify)  # type: ignore[arg-type]
    for answer in answers:
        compound = answer["compound"]
        name = compound["name"] or compound["smiles"][:24]
        seen = "seen" if answer["domain"]["seen_in_training"] else "not seen in training"
        best = answer["moa"]["ranking"][:top]
        if not best:
            shown.add_row(f"{name}\n({seen})", "none is called", end_section=True)
        for i, one in enumerate(best):
            shown.add_row(f"{name} ({seen})" if i == 0 else "", *_cells(one), end_section=i == len(best) - 1)
    return shown


def notes(answers: Sequence[Answer]) -> list[str]:
    """One line for each molecule that has no ranking, or whose best label does not stand out."""
    lines = []
    for answer in answers:
        name = answer["compound"]["name"] or answer["compound"]["smiles"]
        if answer["moa"]["call"] is None:
            lines.append(f"{name}: {answer['moa']['reason']}")
    return lines


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    chance = "" if one["chance"] is None else f"{one['chance']:+.2f}"
    p = "" if one["p"] is None else f"{one['p']:.3f}"
    interval = f"{one['low']:+.2f} to {one['high']:+.2f}" if one["low"] is not None else "draws do not tell"
    names = ", ".join(compound["name"] for compound in one["compounds"])
    return one["label"], f"{one['score']:+.2f}", interval, chance, p, names


def plain_table(frame: pd.DataFrame, title: str) -> Table:
    """Any DataFrame, numbers to three digits, what is missing left blank."""
    shown = Table(title=title)
    for name in frame.columns:
        shown.add_column(str(name), justify="right" if pd.api.types.is_numeric_dtype(frame[name]) else "left")
    for row in frame.itertuples(index=False):
        shown.add_row(*("" if pd.isna(one) else f"{one:.3g}" if isinstance(one, float) else str(one) for one in row))
    return shown
