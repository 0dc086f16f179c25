"""Figures of the studies as SVG: scores with intervals and chance levels, and points of a map by colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from jaxtyping import Float

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#5B3A8C", "#8A5A00", "#000000")
CAPTION = "with its 95 % interval over compounds. Grey tick: a random ranking; orange tick: shuffled labels."
NAMES, PANEL, GAP, ROW, TOP = 300, 230, 26, 21, 46


def score_chart(scores: pd.DataFrame, unit: str = "score") -> str:
    """One panel a metric, one line a method: dot, interval as a line, ticks for a random ranking and shuffled labels.

    `scores` has the columns method, metric, value, low, high, chance, null.
    """
    metrics, methods = list(dict.fromkeys(scores["metric"])), list(dict.fromkeys(scores["method"]))
    height = TOP + ROW * len(methods) + 44
    parts = [_open(NAMES + len(metrics) * (PANEL + GAP) + 10, height)]
    for i, method in enumerate(methods):
        y = TOP + ROW * i + ROW / 2
        parts.append(_text(NAMES - 10, y + 4, _short(method, 46), "end"))
    for j, metric in enumerate(metrics):
        own = scores[scores["metric"] == metric]
        parts += _panel(own, methods, metric, NAMES + j * (PANEL + GAP), unit)
    return "\n".join([*parts, "</svg>"])


def _panel(own: pd.DataFrame, methods: Sequence[str], title: str, left: float | int, unit: str) -> list[str]:
    top = float(np.nanmax(own[["value", "high", "chance"]].to_numpy(dtype=np.float64), initial=0.0)) or 1.0
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, np.inf) if top / s <= 5)
    bottom = TOP + ROW * len(methods)

    def x(value: float | int) -> float:
        return left + PANEL * value / (top * 1.05)

    parts = [_text(left, TOP - 16, _short(title, 36), "start", 12)]
    for k in range(int(top / step) + 1):
        at = x(k * step)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}" stroke="#e3e6ea"/>')
        parts.append(_text(at, bottom + 16, f"{k * step:g}", "middle", 11))
    parts.append(_text(left + PANEL / 2, bottom + 34, unit, "middle", 11))
    for one in own.itertuples(index=False):
        y = TOP + ROW * methods.index(one.method) + ROW / 2
        if one.value != one.value:
            continue
        for level, colour, reach in ((one.chance, "#8b949e", 8), (one.null, "#E69F00", 5)):
            if level == level:
                at = x(level)
                parts.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y - reach}" y2="{y + reach}" stroke="{colour}" '
                    'stroke-width="3"/>'
                )
        if one.low == one.low:
            parts.append(
                f'<line x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}" stroke="#0072B2" '
                'stroke-width="2"/>'
            )
        parts.append(f'<circle cx="{x(one.value):.1f}" cy="{y}" r="4" fill="#0072B2"/>')
    return parts


@dataclass(frozen=True)
class Cloud:
    """Points [n, 2] and the word that colours each."""

    points: Float[np.ndarray, "n 2"]
    words: Sequence[str]


def clouds(panels: Mapping[str, Cloud], side: int = 300) -> str:
    """Scatters side by side, one legend; axes carry no numbers, as those of a map mean nothing by themselves."""
    names = sorted({w for panel in panels.values() for w in panel.words}, key=lambda w: (len(w), w))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    parts = [_open(len(panels) * (side + 20) + 150, max(side + 50, 40 + 18 * len(names)))]
    for i, (title, panel) in enumerate(panels.items()):
        left = 10 + i * (side + 20)
        parts.append(_text(left, 22, title, "start", 13))
        parts.append(f'<rect x="{left}" y="32" width="{side}" height="{side}" fill="none" stroke="#8b949e"/>')
        low, high = np.percentile(panel.points, [0.5, 99.5], axis=0)
        unit = np.clip((panel.points - low) / np.where(high > low, high - low, 1.0), 0, 1)
        for (u, v), word in zip(unit, panel.words, strict=True):
            parts.append(
                f'<circle cx="{left + 8 + u * (side - 16):.1f}" cy="{40 + (1 - v) * (side - 16):.1f}" r="2.6" '
                f'fill="{colour[word]}" fill-opacity="0.75"/>'
            )
    left = 10 + len(panels) * (side + 20)
    for i, name in enumerate(names):
        parts.append(f'<circle cx="{left + 6}" cy="{44 + 18 * i}" r="4" fill="{colour[name]}"/>')
        parts.append(_text(left + 16, 48 + 18 * i, name, "start"))
    return "\n".join([*parts, "</svg>"])


def _open(width: float | int, height: float | int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-family="system-ui, sans-serif" role="img">'
    )


def _text(x: float | int, y: float | int, words: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
