"""What all figures share: colours that colour-blind readers can tell apart, an empty figure, and writing to a file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

# Okabe and Ito 2008; their yellow is left out, as it does not stand out from white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
MISSING = "#E8E8E8"  # no value
GRID = "#D0D0D0"
Shade = tuple[float, float, float]  # red, green, blue in [0, 1]
ENDINGS = (".png", ".svg", ".pdf")


class InvalidFigure(ValueError):
    """Nothing to draw, sizes that do not fit together, or a file ending that is not known."""


def figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, on white, laid out so that no text overlaps or is cut."""
    made = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def colours(count: int) -> list[Shade]:
    """`count` colours: the palette while it lasts, then as far apart along a rainbow as can be, neighbours unlike."""
    if count <= len(PALETTE):
        return [to_rgb(shade) for shade in PALETTE[:count]]
    every = colormaps["turbo"](np.linspace(0.03, 0.97, count))
    half = (count + 1) // 2
    shades = (every[i // 2 + (i % 2) * half].tolist() for i in range(count))
    return [(red, green, blue) for red, green, blue, _ in shades]


def plain(axes: Axes) -> None:
    """Only the left and lower line, in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#808080")
    axes.tick_params(color="#808080", labelsize=8)


def short(words: Sequence[str], most: int = 34) -> list[str]:
    """Labels for an axis: long ones are cut in their middle, so that both ends can be read."""
    half = (most - 1) // 2
    return [word if len(word) <= most else f"{word[:half]}…{word[-half:]}" for word in words]


def save(made: Figure, path: str | Path) -> Path:
    """Write as PNG, SVG or PDF, by the ending, without a date. Raises `InvalidFigure` for another ending."""
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InvalidFigure(f"path {path.name!r} has an unknown ending: expected one of {', '.join(ENDINGS)}")
    nothing: dict[str, dict[str, str | None]] = {
        ".png": {"Software": None},
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None},
    }
    with rc_context({"svg.hashsalt": path.suffix}):  # otherwise the ids inside are drawn at random
        made.savefig(path, metadata=nothing[path.suffix])
    return path
