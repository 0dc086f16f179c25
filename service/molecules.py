"""`dopaint molecules`: a file of molecules in, a CSV out, one row an entry: standard form, or the reason of refusal.

The file is read, standardised and written entry by entry on all cores; memory does not grow with it. The table is
written beside its place and put there when it is complete. With a model, every molecule has its applicability domain.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chem.bounded import Answer, Standardiser, Text
from chem.molecule import InvalidSmiles, Molecule
from chem.records import Record, kind_of, opened, records

Progress = Callable[[int, int, str], None]
SHOWN = 2000  # characters of the input that are repeated in the output
COLUMNS = ("row", "name", "input", "smiles", "inchikey", "changes", "reason", "message", "position")
DOMAIN_COLUMNS = (
    "domain", "seen_in_training", "nearest_inchikey", "tanimoto", "scaffold_in_training", "density", "expected_error",
)  # fmt: skip


@dataclass
class Summary:
    """What became of a file: rows, molecules, refusals by reason, changes by kind, and the slowest molecule."""

    rows: int = 0
    molecules: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest_row: int = 0

    def count(self, row: int, answer: Answer) -> None:
        """Add one row."""
        self.rows += 1
        if answer.seconds > self.slowest_s:
            self.slowest_s, self.slowest_row = answer.seconds, row
        if isinstance(answer.result, InvalidSmiles):
            self.refused[answer.result.reason.value] += 1
        else:
            self.molecules += 1
            self.changed.update(change.partition(":")[0] for change in answer.result.changes)

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rows": self.rows,
            "molecules": self.molecules,
            "standardised_share": round(self.molecules / self.rows, 6) if self.rows else None,
            "refused": dict(self.refused.most_common()),
            "changed": dict(self.changed.most_common()),
            "domains": dict(self.domains.most_common()),
            "slowest_cpu_s": round(self.slowest_s, 3),
            "slowest_row": self.slowest_row,
        }


def convert(
    source: Path,
    out: Path,
    *,
    model: str | None = None,
    column: str | None = None,
    name_column: str | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Write the CSV `out` (compressed if it ends with .gz) of the molecules in `source`; returns what became of them.

    Raises `RecordsError` for a file that is no list of molecules, `MissingModel` for a model that is not there.
    """
    kind_of(source)
    place = None if model is None else _placed(model)
    summary = Summary()
    with opened(source) as (raw, text), Standardiser(workers) as standardiser, _written(out) as target:
        waiting: deque[Record] = deque()
        total = source.stat().st_size

        def texts() -> Iterator[Text]:
            for record in records(source, text, column, name_column):
                waiting.append(record)
                yield Text(record.text, record.kind)

        writer = csv.writer(target, lineterminator="\n")
        writer.writerow((*COLUMNS, *(DOMAIN_COLUMNS if place else ())))
        for answer in standardiser.many(texts()):
            record = waiting.popleft()
            summary.count(record.row, answer)
            writer.writerow(_row(record, answer, place, summary))
            if progress is not None and summary.rows % 100 == 0:
                progress(raw.tell(), total, "standardising")
    return summary


def _row(record: Record, answer: Answer, place: Callable[[Molecule], list[Any]] | None, summary: Summary) -> list[Any]:
    found = answer.result
    head = [record.row, record.name, record.text[:SHOWN] if record.kind == "smiles" else ""]
    if isinstance(found, InvalidSmiles):
        blank = [""] * len(DOMAIN_COLUMNS) if place else []
        return [*head, "", "", "", found.reason.value, found.message, found.position or "", *blank]
    domain = place(found) if place else []
    if domain:
        summary.domains[domain[0]] += 1
    return [*head, found.smiles, found.inchikey, "; ".join(found.changes), "", "", "", *domain]


def _placed(model: str) -> Callable[[Molecule], list[Any]]:
    """A function that places one molecule in the domain of a model: the values of DOMAIN_COLUMNS."""
    from chem.encoder import load_encoder
    from service.domain import Territory, check_encoder
    from service.engine import find_model
    from service.library import library

    folder = find_model(model)
    territory = Territory.read(folder, library())
    encoder = load_encoder(folder / "encoder")
    check_encoder(folder, encoder.hash)

    def place(molecule: Molecule) -> list[Any]:
        found = territory.place(molecule, lambda one: np.asarray(encoder.encode([one])[0]), 1).as_dict()
        near = found["nearest"][0]
        own = ("scaffold_in_training", "density", "expected_error")
        values = [found["domain"], found["seen_in_training"], near["inchikey"], near["tanimoto"], *map(found.get, own)]
        return ["" if value is None else value for value in values]

    return place


@contextmanager
def _written(out: Path) -> Iterator[io.TextIOBase]:
    """A text file that appears under its name when it is complete; the same content gives the same bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(out.name + ".part")
    with draft.open("wb") as raw:
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if out.suffix == ".gz" else None
        text = io.TextIOWrapper(packed or raw, encoding="utf-8", newline="")
        yield text
        text.detach()  # flushes
        if packed is not None:
            packed.close()
    draft.replace(out)
