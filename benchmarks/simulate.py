"""How fast the simulator paints on one core: fields of 128 x 128 x 5 a minute, and its parts.

Prints a table, then one JSON line. One thread, one warm-up, the median of the repeats. The goal is 3,000 a minute.

    python benchmarks/simulate.py [--fields 200] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numba  # noqa: E402
import numpy as np  # noqa: E402

from causal.allocation import allocate  # noqa: E402
from service.library import library, world  # noqa: E402


def timed(what: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one warm-up."""
    what()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    drugs = library().query("kind == 'drug'").head(options.fields)
    rows = allocate(world().plates, drugs[["compound", "moa"]].assign(wells=1)).head(options.fields)
    n = len(rows)
    seconds = {
        "five channels": timed(lambda: world().paint(rows), options.repeats),
        "cells only (no optics)": timed(lambda: world().fields(rows), options.repeats),
        "brightfield, three planes": timed(lambda: world().paint_brightfield(rows), options.repeats),
    }
    for what, value in seconds.items():
        print(f"{what:28s} {1000 * value / n:7.2f} ms a field {60 * n / value:9.0f} fields a minute")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(
        json.dumps(
            {
                "benchmark": "simulate",
                "fields": n,
                "fields_per_minute": {k: round(60 * n / v) for k, v in seconds.items()},
                "commit": commit.stdout.strip(),
                "machine": f"{platform.machine()}, one core of {os.cpu_count()}",
                "versions": {"python": platform.python_version(), "numpy": np.__version__, "numba": numba.__version__},
            }
        )
    )


if __name__ == "__main__":
    main()
