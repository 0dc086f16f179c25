"""Every profiling engine on the same painted fields: stock CellProfiler, our engine around it, cp_measure, fast.

    python benchmarks/engines.py [--fields 48] [--out benchmarks/results/profiling.json]     table, then one JSON line

The same as `dopaint benchmark profiling` (a script called profiling.py would hide the room of that name). `--quick` is
one field, one worker, and no stock run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from service.benchmark_profiling import ENGINES, ProfilingConfig, run, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=48)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--settings", default="jump")
    parser.add_argument("--stock-command", type=Path, help="environment of stock CellProfiler's command line")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    config = ProfilingConfig(
        fields=given.fields,
        engines=tuple(given.engines.split(",")),
        workers=tuple(int(n) for n in given.workers.split(",")),
        settings=given.settings,
        stock_command=None if given.stock_command is None else str(given.stock_command.absolute()),
    )
    if given.quick:
        config = replace(config, fields=1, engines=("fast",), workers=(1,), curve=(1, 10), curve_size=384, repeats=1)
    found = run(config, given.out)
    print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
