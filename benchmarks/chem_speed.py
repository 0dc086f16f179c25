"""How fast are molecules? Standardising, encoding, and neighbours in 116,000.

    python benchmarks/chem_speed.py [--data DIR] [--encoder FOLDER] [--quick]     table, then one JSON line

standardise   10,000 JUMP SMILES through `chem.bounded.Standardiser` on all cores (started before the clock), against
              `Chem.MolFromSmiles` alone on one core, in the same run. Goal: at most 3 times as long
encode        1,000 JUMP SMILES in batches of 32, sorted by length, against the order of the table. Goal: 2 times faster
neighbours    the 10 nearest of all 115,795 JUMP compounds on one core, after loading. Goal: under 20 ms a query

Medians of 3 rounds (neighbours: of 50 queries), after a warm-up. Without the data: the library's SMILES, repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rdkit import Chem, rdBase

from chem.bounded import Standardiser
from chem.encode_t5 import T5Encoder
from chem.encoder import load_encoder
from chem.fingerprint import fingerprint_index, morgan_bits, nearest

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3


def timed(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median seconds of a call."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def corpus(data: Path) -> tuple[list[str], str]:
    """The JUMP SMILES, or the shipped library's over and over, and which."""
    path = data / "jump_metadata" / "compound_smiles.csv.gz"
    if path.is_file():
        return pd.read_csv(path)["Metadata_SMILES"].astype(str).tolist(), "JUMP"
    library = pd.read_csv(ROOT / "configs" / "library" / "recombined.csv")["smiles"].tolist()
    return (library * (115_795 // len(library) + 1))[:115_795], "library, repeated"


def standardising(smiles: list[str], workers: int) -> dict[str, float]:
    """Seconds of plain parsing on one core, and of standardising on all; their ratio."""

    def parse() -> None:
        for text in smiles:
            Chem.MolFromSmiles(text)

    with rdBase.BlockLogs(), Standardiser(workers) as standardiser:
        list(standardiser.many(smiles[: 200 * standardiser.workers]))
        plain = timed(parse)
        ours = timed(lambda: list(standardiser.many(smiles)))
        count = standardiser.workers
    return {"molecules": len(smiles), "workers": count, "parse_s": plain, "standardise_s": ours, "ratio": ours / plain}


def encoding(encoder: T5Encoder, smiles: list[str]) -> dict[str, float]:
    """Seconds with batches of one length and as given; the gain."""
    encoder.encode(smiles[:64], batch_size=32)
    naive = timed(lambda: encoder.encode(smiles, batch_size=32, by_length=False))
    by_length = timed(lambda: encoder.encode(smiles, batch_size=32))
    return {"molecules": len(smiles), "as_given_s": naive, "sorted_s": by_length, "gain": naive / by_length}


def neighbours(smiles: list[str], queries: int = 50) -> dict[str, float]:
    """Milliseconds of one query for its 10 nearest: median and slowest."""
    with rdBase.BlockLogs():
        table = morgan_bits([text for text in smiles if Chem.MolFromSmiles(text) is not None])
    index = fingerprint_index(table)
    asked = table[np.random.default_rng(0).choice(len(table), queries)]
    nearest(asked[:2], index, 10)
    times = []
    for query in asked:
        began = time.perf_counter()
        nearest(query[None], index, 10)
        times.append(1000 * (time.perf_counter() - began))
    return {"compounds": len(table), "median_ms": statistics.median(times), "slowest_ms": max(times)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DOPAINT_DATA", "")))
    parser.add_argument("--encoder", default=str(ROOT / "models" / "simulation-128" / "encoder"))
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the molecules: to see that it runs")
    arguments = parser.parse_args()
    smiles, source = corpus(arguments.data)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(smiles))
    least = 20 if arguments.quick else 1
    sample = [smiles[row] for row in order[: 10_000 // least]]
    readable = [text for text in sample if len(text) <= 200 and "[PH]" not in text]
    encoder = load_encoder(arguments.encoder)
    result: dict[str, object] = {"source": source, "quick": arguments.quick}
    result["standardise"] = standardising(sample, arguments.workers)
    if isinstance(encoder, T5Encoder):
        result["encode"] = encoding(encoder, readable[: 1000 // least])
    result["neighbours"] = neighbours(smiles[: len(smiles) // least])
    for task, numbers in result.items():
        if isinstance(numbers, dict):
            print(f"{task:12s} " + "  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    result["machine"] = f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    result["versions"] = {"rdkit": rdBase.rdkitVersion, "torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
