"""UMAP panels as the paper's Figure 4: image types side by side; compounds, batches, mechanisms one below another."""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from profiling.plots.style import GRID, InvalidFigure, Shade, colours, figure, short

MOST_IN_LEGEND = 14
OTHER = ""  # a point without a label is drawn in grey, below the others


@dataclass(frozen=True)
class Panel:
    """Points [n, 2] and the word that colours each; `title` stands above the panel."""

    title: str
    points: Float[np.ndarray, "n 2"]
    labels: tuple[str, ...]


def panels(rows: Sequence[tuple[str, Sequence[Panel]]], size: float = 2.6) -> Figure:
    """Rows of panels: each row has a name ("compound", "batch", "MoA") and as many panels as the others.

    Labels have the same colour along a row; a row with at most 14 labels has a legend, another says how many there
    are. Axes carry no numbers: distances in a UMAP have no unit. Raises `InvalidFigure` where rows differ in length or
    points and labels in number.
    """
    if not rows or not rows[0][1] or len({len(row) for _, row in rows}) != 1:
        raise InvalidFigure(f"rows have {[len(row) for _, row in rows]} panels: expected the same number, at least one")
    width = len(rows[0][1])
    made = figure(size * width + 1.9, size * len(rows))
    grid = made.subplots(len(rows), width, squeeze=False)
    letters = iter(string.ascii_lowercase * 4)
    for axes, (name, row) in zip(grid, rows, strict=True):
        words = sorted({word for panel in row for word in panel.labels} - {OTHER})
        shades = dict(zip(words, colours(len(words)), strict=True))
        for one, panel in zip(axes, row, strict=True):
            _scatter(one, panel, shades)
            one.set_title(f"({next(letters)}) {panel.title}", fontsize=9, loc="left")
        axes[0].set_ylabel(name, fontsize=9)
        _legend(axes[-1], name, shades)
    return made


def _scatter(axes: Axes, panel: Panel, shades: dict[str, Shade]) -> None:
    if len(panel.labels) != len(panel.points):
        raise InvalidFigure(f"panel {panel.title!r} has {len(panel.points)} points and {len(panel.labels)} labels")
    words = np.array(panel.labels, dtype=object)
    size = float(np.clip(900 / max(len(words), 1), 4, 30))
    nameless = words == OTHER
    x, y = panel.points.T
    axes.scatter(x[nameless], y[nameless], s=size, color=GRID, linewidths=0, rasterized=True)
    # in one call and a shuffled order, so that no label lies on top of all others
    order = np.random.default_rng(0).permutation(np.flatnonzero(~nameless))
    shade = np.array([shades[word] for word in words[order]]) if len(order) else "black"
    axes.scatter(x[order], y[order], s=size, c=shade, linewidths=0, alpha=0.85, rasterized=True)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    for side in axes.spines.values():
        side.set_color(GRID)


def _legend(axes: Axes, name: str, shades: dict[str, Shade]) -> None:
    if not shades:
        return
    if len(shades) > MOST_IN_LEGEND:
        text = f"{len(shades)} different: {name}"
        axes.annotate(text, (1.03, 0.5), xycoords="axes fraction", fontsize=7, rotation=90, va="center")
        return
    handles = [axes.scatter([], [], s=18, color=shade, linewidths=0) for shade in shades.values()]
    axes.legend(
        handles, short(list(shades), 24), loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False,
        handletextpad=0.2,
    )  # fmt: skip
