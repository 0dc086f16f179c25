"""Bars with intervals and Tukey's letters, as the paper's Figure 5: one panel a score, one bar a method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from profiling.plots.style import InvalidFigure, colours, figure, plain, short


@dataclass(frozen=True)
class Bar:
    """One method in one panel: `value` with the interval `low`..`high` (NaN: none), what a random ranking gives
    (`chance`, NaN: not shown), and `letters`; bars that share a letter do not differ significantly."""

    method: str
    value: float
    low: float = math.nan
    high: float = math.nan
    chance: float = math.nan
    letters: str = ""


def bars(
    grid: Mapping[str, Sequence[Bar]], interval: str, columns: int = 2, limit: float | None = None, note: str = ""
) -> Figure:
    """Panels by name ("mAP, seen"), each with its bars; a method has the same colour everywhere.

    `interval` says below the figure what the whiskers are, `note` anything else that a reader must know. A dashed tick
    in a bar is its chance level. `limit` fixes the upper end of the axis; otherwise there is room for the letters.
    Raises `InvalidFigure` where there is no panel, or a panel without a bar.
    """
    if not grid or not all(grid.values()):
        raise InvalidFigure("grid is empty or has a panel without bars: expected at least one of each")
    methods = list(dict.fromkeys(bar.method for panel in grid.values() for bar in panel))
    shades = dict(zip(methods, colours(len(methods)), strict=True))
    columns = min(columns, len(grid))
    rows = math.ceil(len(grid) / columns)
    most = max(len(panel) for panel in grid.values())
    made = figure(max(2.6, 0.55 * most + 1.2) * columns, 2.7 * rows + 0.9)
    cells = made.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, panel) in zip(cells, grid.items(), strict=False):
        ends = [bar.high if math.isfinite(bar.high) else bar.value for bar in panel]
        top = max([end for end in ends if math.isfinite(end)], default=1.0)
        for i, bar in enumerate(panel):
            axes.bar(i, bar.value, 0.72, color=shades[bar.method], alpha=0.85)
            if math.isfinite(bar.low) and math.isfinite(bar.high):
                whisker = [[max(bar.value - bar.low, 0.0)], [max(bar.high - bar.value, 0.0)]]
                axes.errorbar(i, bar.value, whisker, color="black", linewidth=1, capsize=3)
            if math.isfinite(bar.chance):
                axes.plot([i - 0.42, i + 0.42], [bar.chance] * 2, color="black", linewidth=1.2, linestyle=(0, (2, 1)))
            if bar.letters and math.isfinite(ends[i]):
                axes.annotate(
                    bar.letters, (i, max(ends[i], bar.chance if math.isfinite(bar.chance) else ends[i])), (0, 3),
                    textcoords="offset points", ha="center", fontsize=8,
                )  # fmt: skip
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_xticks(range(len(panel)), short([bar.method for bar in panel], 36), rotation=35, ha="right")
        axes.set_xlim(-0.6, len(panel) - 0.4)
        lowest = min([0.0, *(bar.low for bar in panel if math.isfinite(bar.low))])
        axes.set_ylim(lowest, limit if limit is not None else (top * 1.16 if top > 0 else 1.0))
        plain(axes)
    for axes in cells[len(grid) :]:
        axes.remove()
    says = f"Whiskers: {interval}. Dashed: chance level. "
    if any(bar.letters for panel in grid.values() for bar in panel):
        says += "Methods that share a letter do not differ significantly (Tukey's HSD). "
    made.supxlabel(_wrapped(says + note, int(15 * made.get_figwidth())), fontsize=7, x=0.01, ha="left")
    return made


def _wrapped(text: str, width: int) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])
