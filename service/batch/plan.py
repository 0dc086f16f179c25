"""The plan of a run, made once: the entries of the input in standard form, the design, hashes and counts.

plan/part-000000.parquet   one row an entry: what was read, its standard form or the reason of refusal
plan.json                  what was asked, hashes of everything that decides a number, counts; written last

A run goes on only under the plan it began with: another input, design, model or engine at one address is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from causal.design import design_hash, draw_contexts
from chem.bounded import Answer, Standardiser, Text, standardise_within
from chem.molecule import InvalidSmiles, Molecule
from chem.records import Record
from service.batch.ask import BatchRequest, OtherRun
from service.batch.entries import read_entries, source_digest
from service.batch.equivalence import Compatibility
from service.batch.store import Store
from service.errors import InvalidRequest
from service.pipeline import target
from service.reference import EffectSettings
from service.rooms import DMSO_INCHIKEY, Room
from service.version import __version__

FORMAT = "dopaint/batch/1"
FILE = "plan.json"
FOLDER = "plan"
SHOWN = 2000  # characters of an entry that are repeated
READY, INVALID, DUPLICATE = "ready", "invalid", "duplicate"
SMALL = 1 << 20  # bytes of input up to which short SMILES are read in this process
Progress = Callable[[int, int, str], None]
SCHEMA = pa.schema(
    [
        ("row", pa.int64()), ("name", pa.string()), ("input", pa.string()), ("state", pa.string()),
        ("reason", pa.string()), ("sentence", pa.string()), ("position", pa.int64()), ("smiles", pa.string()),
        ("inchikey", pa.string()), ("changes", pa.string()), ("of_row", pa.int64()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One entry of the input. `state`: "ready" to be painted, "invalid", or "duplicate" of entry `of_row`."""

    row: int
    name: str
    input: str
    state: str
    reason: str = ""
    sentence: str = ""
    position: int | None = None
    smiles: str = ""
    inchikey: str = ""
    changes: str = ""
    of_row: int | None = None


@dataclass(frozen=True)
class Plan:
    """What plan.json says."""

    document: dict[str, Any]

    @property
    def request(self) -> BatchRequest:
        """What was asked."""
        return BatchRequest.from_document(self.document["request"])

    @property
    def parts(self) -> int:
        """Number of parts."""
        return int(self.document["counts"]["parts"])

    @property
    def compounds(self) -> int:
        """Distinct molecules to be painted."""
        return int(self.document["counts"]["compounds"])

    def ready(self, parts: Iterable[int]) -> int:
        """Compounds to be painted in some parts."""
        by_part = self.document["counts"]["ready"]
        return sum(by_part[part] for part in parts)

    @property
    def most_pictures(self) -> int:
        """Pictures at most, the control's included."""
        return self.request.draws * (self.compounds + 1) if self.compounds else 0


def part_name(number: int, folder: str, ending: str = "parquet") -> str:
    """Name of a part's file."""
    return f"{folder}/part-{number:06d}.{ending}"


def draws_of(room: Room, request: BatchRequest, effect: EffectSettings) -> pd.DataFrame:
    """The draws (context, noise seed) that all compounds and the control share. Raises `UnknownName`."""
    wanted = target(room.contexts, effect.distribution, request.contexts)
    draws = draw_contexts(room.contexts, request.draws, effect.scheme, wanted, request.seed)
    if request.adaptive and effect.scheme != "iid":
        raise InvalidRequest(f"width: draws of scheme {effect.scheme!r} have no first part; adaptive draws need iid")
    return draws


def read_plan(store: Store) -> Plan | None:
    """The plan at the address, or None."""
    return Plan(json.loads(store.get(FILE))) if store.has(FILE) else None


def make_plan(
    source: Path,
    request: BatchRequest,
    store: Store,
    room: Any,
    workers: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """The plan for this input; that at the address where it is the same. Raises `OtherRun`, `RecordsError`."""
    reference = room.reference()
    fit = room.fit_for()
    asked = header(source, request, room, fit, draws_of(room, request, reference.effect))
    known = read_plan(store)
    if known is not None:
        check_same(known, asked, store.url)
        return known
    if store.has("manifest.json"):
        raise OtherRun(f"out: {store.url} holds the results of something else: give another address")
    counts = _write_entries(source, request, store, workers, progress)
    plan = Plan({**asked, "counts": counts})
    store.put(FILE, as_json(plan.document))
    return plan


def header(source: Path, request: BatchRequest, room: Any, fit: Compatibility, draws: pd.DataFrame) -> dict[str, Any]:
    """What decides the results, before the input is read."""
    return {
        "format": FORMAT,
        "version": __version__,
        "evidence": room.card.evidence,
        "request": request.document(),
        "source": {"name": source.name, "sha256": source_digest(source)},
        "provenance": {"model_name": room.card.name, **room.provenance.document()},
        "engine": fit.document(),
        "design": {"hash": design_hash(draws), "draws": request.draws, "first_round": request.first},
    }


def check_same(known: Plan, asked: dict[str, Any], url: str) -> None:
    """Raise `OtherRun` naming what differs between the plan at the address and what is asked now."""
    for name, value in asked.items():
        there = known.document.get(name)
        if there != value:
            if isinstance(value, dict) and isinstance(there, dict):
                name = next(f"{name}.{key}" for key in value if there.get(key) != value[key])
            raise OtherRun(
                f"out: {url} holds a run whose {name} is another one: give another address, or the same command to "
                "go on"
            )


def entries_of(store: Store, part: int) -> list[Entry]:
    """The entries of one part, in the order of the input."""
    table = pq.read_table(io.BytesIO(store.get(part_name(part, FOLDER))))
    return [Entry(**row) for row in table.to_pylist()]


def _write_entries(
    source: Path, request: BatchRequest, store: Store, workers: int, progress: Progress | None
) -> dict[str, Any]:
    reasons: Counter[str] = Counter()
    states: Counter[str] = Counter()
    found = _entries(source, request, workers)
    ready: list[int] = []
    part = rows = 0
    while some := list(islice(found, request.part)):
        states.update(one.state for one in some)
        ready.append(sum(one.state == READY for one in some))
        reasons.update(one.reason for one in some if one.state == INVALID)
        table = pa.Table.from_pylist([vars(one) for one in some], schema=SCHEMA)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        store.put(part_name(part, FOLDER), sink.getvalue())
        part, rows = part + 1, rows + len(some)
        if progress is not None:
            progress(rows, 0, "reading molecules")
    return {
        "rows": rows,
        "parts": part,
        "compounds": states[READY],
        "ready": ready,
        "duplicates": states[DUPLICATE],
        "invalid": dict(sorted(reasons.items())),
    }


def _entries(source: Path, request: BatchRequest, workers: int) -> Iterator[Entry]:
    """Every entry of the file, in order. A molecule met before (InChIKey and SMILES) is a duplicate of that entry."""
    first: dict[bytes, int] = {}
    records = read_entries(source, request.column, request.name_column)
    for record, answer in _standardised(records, source.stat().st_size, workers):
        shown = record.text[:SHOWN] if record.kind == "smiles" else ""
        if isinstance(answer, InvalidSmiles):
            reason, position = answer.reason.value, answer.position
            yield Entry(record.row, record.name, shown, INVALID, reason, answer.message, position)
            continue
        read = Entry(
            record.row,
            record.name,
            shown,
            READY,
            smiles=answer.smiles,
            inchikey=answer.inchikey,
            changes="; ".join(answer.changes),
        )
        if answer.inchikey == DMSO_INCHIKEY:
            words = "DMSO is the control that every effect is measured against: give another molecule."
            yield replace(read, state=INVALID, reason="is_control", sentence=words)
            continue
        key = _key(answer)
        if key in first:
            words = f"The same molecule as entry {first[key]}, where its results are."
            yield replace(read, state=DUPLICATE, reason=DUPLICATE, sentence=words, of_row=first[key])
        else:
            first[key] = record.row
            yield read


def _standardised(
    records: Iterator[Record], size: int, workers: int
) -> Iterator[tuple[Record, Molecule | InvalidSmiles]]:
    """Records with their molecules, bounded in time; a small file of short SMILES starts no process."""
    if size <= SMALL and (first := next(records, None)) is not None:
        records = chain([first], records)
        if first.kind == "smiles":
            for record in records:
                yield record, _one(record)
            return
    waiting: deque[Record] = deque()

    def texts() -> Iterator[Text]:
        for record in records:
            waiting.append(record)
            yield Text(record.text, record.kind)

    with Standardiser(workers) as standardiser:
        answer: Answer
        for answer in standardiser.many(texts()):
            yield waiting.popleft(), answer.result


def _one(record: Record) -> Molecule | InvalidSmiles:
    try:
        return standardise_within(record.text)
    except InvalidSmiles as error:
        return error


def _key(molecule: Molecule) -> bytes:
    return hashlib.blake2b(f"{molecule.inchikey}\0{molecule.smiles}".encode(), digest_size=16).digest()


def as_json(document: Any) -> bytes:
    """JSON with sorted keys, no NaN, one newline at the end."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
