"""Studies as one self-contained page of HTML: text, tables and SVG figures; no script, nothing loaded from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from service.real.study import Study

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2126; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.6rem; border-bottom: 1px solid #c9ced6; }
table { border-collapse: collapse; margin: .6rem 0 1.6rem; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e3e6ea; text-align: right; vertical-align: top; }
th { background: #f4f6f8; text-align: left; } td:first-child, th:first-child { text-align: left; }
td small { color: #5b6570; white-space: nowrap; }
caption, figcaption { text-align: left; color: #3c444d; font-size: 13px; }
figure { margin: 1rem 0 1.6rem; } figure svg { max-width: 100%; height: auto; }
nav a { margin-right: 1.2rem; } p { max-width: 52rem; }
@media print { body { max-width: none; } h2 { break-before: auto; } }
"""
HOW_TO_READ = (
    "Each cell: the score; below it the 95 % bootstrap interval over compounds (or treatments), the chance level of a "
    "random ranking, what shuffled labels give, and p from these. mAP = mean average precision. Fitted on "
    "all rows, or transductive: the correction has seen the rows that it is scored on."
)


def page(studies: Sequence[Study], provenance: Mapping[str, Any]) -> str:
    """The whole page."""
    links = " ".join(f'<a href="#{escape(s.name)}">{escape(s.title)}</a>' for s in studies)
    facts = "; ".join(f"{escape(str(k))} {escape(str(v))}" for k, v in provenance.items())
    body = "\n".join(_section(study) for study in studies)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>dopaint: real data</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>\n'
        "<h1>Scoring real Cell Painting profiles</h1>\n"
        "<p>Published tables of real pictures, scored with <code>profiling</code>. No model of this repository was "
        "trained on them, and nothing here says how well generated pictures predict.</p>\n"
        f"<p>{HOW_TO_READ}</p>\n<nav>{links}</nav>\n{body}\n<p><small>{facts}</small></p>\n</body></html>\n"
    )


def _section(study: Study) -> str:
    parts = [f'<h2 id="{escape(study.name)}">{escape(study.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in study.text]
    for caption, svg in study.figures.items():
        parts.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")
    if len(study.scores):
        parts.append(score_table(study.scores))
    parts += [table_of(table, caption) for caption, table in study.tables.items()]
    return "\n".join(parts)


def score_table(scores: pd.DataFrame) -> str:
    """Methods down, metrics across."""
    metrics = list(dict.fromkeys(scores["metric"]))
    head = "".join(f"<th>{escape(m)}</th>" for m in ("method", *metrics, "features", "how fitted"))
    rows = []
    for method, own in scores.groupby("method", sort=False):
        cells = []
        for metric in metrics:
            found = own[own["metric"] == metric]
            cells.append(f"<td>{_score(found.iloc[0]) if len(found) else ''}</td>")
        first = own.iloc[0]
        features = f"{int(first['features'])}" if first["features"] else ""
        rows.append(
            f"<tr><td>{escape(str(method))}</td>{''.join(cells)}<td>{features}</td>"
            f"<td>{escape(str(first['fitted']))}</td></tr>"
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _score(one: pd.Series) -> str:
    if one["value"] != one["value"]:
        return ""
    interval = f"{one['low']:.3f} to {one['high']:.3f}" if one["low"] == one["low"] else ""
    p = f"p {one['p']:.3g}" if one["p"] == one["p"] else ""
    shuffled = f"shuffled {one['null']:.3f}, {p}" if one["null"] == one["null"] else p
    below = [interval, f"chance {one['chance']:.3f}", shuffled, f"{int(one['n_queries'])} queries"]
    return f"<b>{one['value']:.3f}</b><br><small>" + "<br>".join(text for text in below if text) + "</small>"


def table_of(table: pd.DataFrame, caption: str) -> str:
    """Any table; floats to four digits."""
    head = "".join(f"<th>{escape(str(c))}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(_plain(v))}</td>" for v in one) + "</tr>"
        for one in table.itertuples(index=False, name=None)
    )
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)
