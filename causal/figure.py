"""The figure of `causal.benchmark`: lines with their legend as SVG, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#8d6a9f", "#00798c", "#5c5c5c", "#b5651d", "#2e4057")
WIDTH, HEIGHT, MARGIN = 360.0, 260.0, 52.0


@dataclass(frozen=True)
class Panel:
    """One panel: lines by name over a common x."""

    title: str
    x_label: str
    x: tuple[float, ...]
    lines: Mapping[str, Sequence[float]]
    y_limits: tuple[float, float]
    band: tuple[float, float] | None = None
    """A shaded range of y, for example the coverage that is wanted."""


def draw_panels(panels: Sequence[Panel], title: str) -> str:
    """Panels side by side with one legend, as an SVG document."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    total_width = len(panels) * (WIDTH + MARGIN) + 290
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width:g}" height="{HEIGHT + 110:g}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN:g}" y="22" font-size="15">{escape(title)}</text>',
    ]
    for i, panel in enumerate(panels):
        parts += _panel(panel, MARGIN + i * (WIDTH + MARGIN), 50.0, colour)
    left = MARGIN + len(panels) * (WIDTH + MARGIN) - 20
    for i, name in enumerate(names):
        y = 62 + 20 * i
        parts.append(
            f'<line x1="{left:g}" x2="{left + 22:g}" y1="{y}" y2="{y}" stroke="{colour[name]}" stroke-width="2.5"/>'
        )
        parts.append(f'<text x="{left + 28:g}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: float, top: float, colour: Mapping[str, str]) -> list[str]:
    low, high = panel.y_limits
    first, last = min(panel.x), max(panel.x)

    def at(x: float, y: float) -> tuple[float, float]:
        clipped = min(max(y, low), high)
        return left + (x - first) / (last - first) * WIDTH, top + (high - clipped) / (high - low) * HEIGHT

    parts = [f'<text x="{left:g}" y="{top - 8:g}" font-size="13">{escape(panel.title)}</text>']
    if panel.band is not None:
        (x0, y0), (x1, y1) = at(first, panel.band[1]), at(last, panel.band[0])
        parts.append(f'<rect x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}" fill="#e8f1e4"/>')
    parts.append(f'<rect x="{left:g}" y="{top:g}" width="{WIDTH:g}" height="{HEIGHT:g}" fill="none" stroke="#444"/>')
    for step in range(6):
        value = low + (high - low) * step / 5
        x, y = at(first, value)
        parts.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
        parts.append(f'<line x1="{x:.1f}" x2="{x + WIDTH:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
    for value in panel.x:
        x, y = at(value, low)
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{value:g}</text>')
    middle = left + WIDTH / 2
    parts.append(
        f'<text x="{middle:.1f}" y="{top + HEIGHT + 36:g}" text-anchor="middle">{escape(panel.x_label)}</text>'
    )
    for name, values in panel.lines.items():
        points = [at(x, y) for x, y in zip(panel.x, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour[name]}"/>' for x, y in points]
    return parts
