"""Every estimator on worlds whose truth is known: a table, a figure, and one line of JSON.

    python benchmarks/causal.py [--quick] [--out DIR]

Measures bias, RMSE and coverage (is the 95 % interval right 95 times in 100?), the power of the refuters and the
variance that a design saves. It says nothing about real compounds: all of it is a simulation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd

from causal.benchmark import run, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer worlds: numbers are noisy")
    parser.add_argument("--out", type=Path, default=Path("results/causal"), help="folder of the table and the figure")
    asked = parser.parse_args()
    start = time.perf_counter()
    table = run(asked.out, asked.quick)
    shown = [
        "study",
        "setting",
        "estimator",
        "n",
        "bias",
        "rmse",
        "coverage",
        "detected",
        "variance_ratio",
        "of_ceiling",
    ]
    with pd.option_context("display.width", 200, "display.max_rows", None, "display.max_colwidth", 48):
        print(table[shown].to_string(index=False, na_rep="", float_format=lambda v: f"{v:.3f}"))
    print(json.dumps(summary(table, asked.quick) | {"seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
