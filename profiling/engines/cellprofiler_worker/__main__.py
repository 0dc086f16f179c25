"""The worker's entry: `python -P cellprofiler_worker/__main__.py '{"pipeline": …}'` with CellProfiler's interpreter.

The packages above this one import what this environment lacks, and the folder above holds our `cellprofiler.py`, which
would hide the real one on `sys.path`. So the two packages above are registered as bare folders, and the path stays.
"""

import importlib
import json
import sys
import types
from pathlib import Path

if __name__ == "__main__":
    engines = Path(__file__).resolve().parent.parent
    for name, folder in (("profiling", engines.parent), ("profiling.engines", engines)):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    worker = "profiling.engines.cellprofiler_worker"
    importlib.import_module(f"{worker}.processor").prepare()  # before anything loads numpy
    sys.exit(importlib.import_module(f"{worker}.serve").main(json.loads(sys.argv[1])))
