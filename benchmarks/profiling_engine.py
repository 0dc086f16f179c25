"""How fast does the CellProfiler engine measure simulated fields? Kernels on and off, one worker and two.

    python benchmarks/profiling_engine.py [--pictures 32]     table, then one JSON line

Seconds a picture are wall time over pictures of a warm engine, times the number of workers: seconds of one core if the
machine does nothing else. Start-up is the time until the workers answer, kernels loaded from the cache.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from causal.contexts import Contexts
from causal.design import draw_contexts
from causal.painter import CHANNELS
from causal.phenotype import DMSO
from profiling.engines import CellProfilerEngine
from service.library import library, world


def pictures(n: int) -> np.ndarray:
    """`n` fields of the simulated world, controls and drugs in turn, float32 [n, 5, 128, 128]."""
    drugs = library().query("kind == 'drug'")["compound"].head((n + 1) // 2)
    draws = draw_contexts(Contexts.from_table(world().plates), n, seed=1)
    rows = draws.assign(compound=[DMSO if i % 2 else drugs.iloc[i // 2] for i in range(n)])
    return world().paint(rows)


def measure(fields: np.ndarray, workers: int, kernels: bool) -> dict[str, float]:
    """Start-up, seconds a picture and core, and mean number of whole cells."""
    begin = time.perf_counter()
    with CellProfilerEngine("sim128", workers=workers, kernels=kernels) as engine:
        engine.start()
        started = time.perf_counter()
        engine.measure(fields[:workers], CHANNELS)
        warm = time.perf_counter()
        found = engine.measure(fields, CHANNELS)
        seconds = (time.perf_counter() - warm) / len(fields)
    cells = [len(field.objects["Cells"].values) for field in found]
    return {"start_s": started - begin, "s_per_picture_core": seconds * workers, "cells": float(np.mean(cells))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=32)
    fields = pictures(parser.parse_args().pictures)
    rows = []
    print(f"{'kernels':>8} {'workers':>8} {'start s':>8} {'s/picture/core':>15} {'whole cells':>12}")
    for kernels, workers in ((True, 1), (True, 2), (False, 1)):
        row = measure(fields, workers, kernels)
        rows.append({"kernels": kernels, "workers": workers, **row})
        print(
            f"{kernels!s:>8} {workers:8d} {row['start_s']:8.1f} {row['s_per_picture_core']:15.3f} {row['cells']:12.1f}"
        )
    print(json.dumps({"benchmark": "profiling_engine", "settings": "sim128", "pictures": len(fields), "rows": rows}))


if __name__ == "__main__":
    main()
