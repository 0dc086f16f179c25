"""A part of the results: four or five parquet files, then the mark that says they are all there.

outcomes/part-*.parquet      one row an entry of the input, whatever became of it
effects/part-*.parquet       one row a compound: effect on each feature in control MADs (float64)
errors/part-*.parquet        the same for the standard errors over draws (float32)
predictions/part-*.parquet   one row a compound and label, the columns of predictions.csv
profiles/part-*.parquet      one row a draw (with --keep-profiles draws)
done/part-*.json             sha256 and rows of the part's files, counts; written last
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from profiling.profiles import OUTCOME, REASON, Profiles
from service.answer import CSV_COLUMNS, csv_rows
from service.batch.ask import BatchRequest
from service.batch.plan import DUPLICATE, READY, Entry, as_json, part_name
from service.batch.stages import Item
from service.batch.store import Store, digest
from service.batch.tables import typed, wide
from service.request import FAILED, INVALID

DONE = "done"
OUTCOMES = pa.schema(
    [
        ("row", pa.int64()), ("name", pa.string()), ("input", pa.string()), ("outcome", pa.string()),
        ("reason", pa.string()), ("sentence", pa.string()), ("position", pa.int64()), ("smiles", pa.string()),
        ("inchikey", pa.string()), ("changes", pa.string()), ("of_row", pa.int64()), ("evidence", pa.string()),
        ("draws", pa.int64()), ("draws_saved", pa.int64()), ("width_reached", pa.bool_()),
        ("without_cells", pa.int64()), ("unmeasured", pa.int64()),
    ]
)  # fmt: skip
_INTEGERS = ("rank", "n_references", "n_features", "draws")
_NUMBERS = ("score", "low", "high", "chance", "chance_sd", "p", "q", "structure", "cell_count")
PREDICTIONS = pa.schema(
    [("row", pa.int64())]
    + [
        (name, pa.int64() if name in _INTEGERS else pa.float64() if name in _NUMBERS else pa.string())
        if name != "called"
        else (name, pa.bool_())
        for name in CSV_COLUMNS
    ]
)


def outcome_row(entry: Entry, result: Item | None, request: BatchRequest, evidence: str) -> dict[str, Any]:
    """What became of one entry. Outcomes: ok, out_of_domain, invalid, duplicate, failed."""
    row: dict[str, Any] = {
        name: getattr(entry, name) for name in ("row", "name", "input", "smiles", "inchikey", "changes")
    }
    row |= {"reason": entry.reason, "sentence": entry.sentence, "position": entry.position, "of_row": entry.of_row}
    if entry.state != READY:
        return row | {"outcome": DUPLICATE if entry.state == DUPLICATE else INVALID}
    assert result is not None
    told = result.header
    if "failed" in told:
        return row | {"outcome": FAILED, "reason": told["failed"], "sentence": told["sentence"]}
    return row | {
        "outcome": told["outcome"],
        "sentence": told["withheld"],
        "evidence": evidence,
        "draws": told["draws"],
        "draws_saved": request.draws - told["draws"],
        "width_reached": told["reached"] if request.adaptive else None,
        "without_cells": told["without_cells"],
        "unmeasured": told["unmeasured"],
    }


def commit(
    store: Store,
    part: int,
    entries: Sequence[Entry],
    results: Mapping[int, Item],
    names: tuple[str, ...],
    request: BatchRequest,
    evidence: str,
) -> dict[str, Any]:
    """Write the files of a part and its mark; returns the mark. Raises `StorageError`."""
    outcomes = [outcome_row(one, results.get(one.row), request, evidence) for one in entries]
    good = [results[one.row] for one in entries if one.row in results and "failed" not in results[one.row].header]
    meta = _meta(good, evidence)
    nothing = np.zeros((0, len(names)))
    value, se = (np.stack([one.arrays[key] for one in good]) if good else nothing for key in ("value", "se"))
    files = {
        "outcomes": typed(outcomes, OUTCOMES),
        "effects": wide(Profiles(meta, value, names)),
        "errors": wide(Profiles(meta, se, names), "float32"),
        "predictions": typed(
            [{"row": one.header["row"], **row} for one in good for row in csv_rows(one.header["answer"])], PREDICTIONS
        ),
    }
    if request.profiles == "draws":
        files["profiles"] = wide(_draws(good, names, evidence))
    marked = {}
    for folder, content in files.items():
        store.put(part_name(part, folder), content)
        marked[folder] = {"sha256": digest(content), "bytes": len(content)}
    counts = Counter(row["outcome"] for row in outcomes)
    mark = {
        "part": part,
        "rows": len(entries),
        "outcomes": dict(sorted(counts.items())),
        "compounds": len(results),
        "pictures": sum(int(one.header["draws"]) for one in good),
        "draws_saved": sum(request.draws - int(one.header["draws"]) for one in good),
        "files": marked,
    }
    store.put(part_name(part, DONE, "json"), as_json(mark))
    return mark


def done_parts(store: Store) -> set[int]:
    """The parts whose mark is there."""
    return {int(name[5:-5]) for name in store.names(DONE) if name.startswith("part-") and name.endswith(".json")}


def marks_of(store: Store, parts: Sequence[int]) -> list[dict[str, Any]]:
    """The marks of some parts."""
    return [json.loads(content) for content in store.get_many([part_name(part, DONE, "json") for part in parts])]


def _meta(good: Sequence[Item], evidence: str) -> pd.DataFrame:
    head = [one.header for one in good]
    return pd.DataFrame(
        {
            "Metadata_Row": np.array([one["row"] for one in head], dtype=np.int64),
            "Metadata_InChIKey": pd.Series([one["inchikey"] for one in head], dtype="string"),
            "Metadata_SMILES": pd.Series([one["smiles"] for one in head], dtype="string"),
            "Metadata_Evidence": pd.Series([evidence] * len(head), dtype="string"),
            "Metadata_Draws": np.array([one["draws"] for one in head], dtype=np.int64),
            "Metadata_Without_Cells": np.array([one["without_cells"] for one in head], dtype=np.int64),
            "Metadata_Unmeasured": np.array([one["unmeasured"] for one in head], dtype=np.int64),
        }
    )


def _draws(good: Sequence[Item], names: tuple[str, ...], evidence: str) -> Profiles:
    rows = [
        {
            "Metadata_Row": one.header["row"],
            "Metadata_InChIKey": one.header["inchikey"],
            "Metadata_draw": draw,
            "Metadata_Evidence": evidence,
            OUTCOME: outcome,
            REASON: reason,
        }
        for one in good
        for draw, (outcome, reason) in enumerate(zip(one.header["outcomes"], one.header["reasons"], strict=True))
    ]
    columns = ("Metadata_Row", "Metadata_InChIKey", "Metadata_draw", "Metadata_Evidence", OUTCOME, REASON)
    values = [one.arrays["profiles"] for one in good]
    return Profiles(
        pd.DataFrame(rows, columns=list(columns)),
        np.concatenate(values) if values else np.zeros((0, len(names))),
        names,
    )
