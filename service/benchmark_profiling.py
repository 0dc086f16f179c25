"""`dopaint benchmark profiling`: every engine on the same painted fields, in one run, on one core and then on more.

A row is one engine with one number of workers, in a process of its own that is held to as many cores: seconds until it
answers, seconds a field warm, fields a second with the start-up counted in, largest memory of a worker. `stock` is
CellProfiler as it comes, without a line of ours but the shim that lets it import: its modules in process, its HDF5
measurements, one process a core. `command` is its command line, which needs Java, reads TIFF and writes CSV; it runs
where --stock-command names an environment that has it. `fast_cuda` is the engine fast with its families on a GPU. A row
that cannot be measured here says why, and no number stands in it.

Then, for the engine `fast`: what each family takes, and whether the cost is a line in the number of cells.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from profiling.engines import environment, settings
from service.painted_fields import CHANNELS, paint

Progress = Callable[[int, int, str], None]
ENGINES = ("command", "stock", "cellprofiler", "cp_measure", "fast", "fast_cuda")
#: The cost of a field is called linear in its cells where no point lies farther from the line, as a share of its time.
LINEAR = 0.1
ROOT = Path(__file__).resolve().parents[1]
_STOCK = ROOT / "tests/golden/stock_cellprofiler.py"
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class ProfilingConfig:
    """fields: pictures a row. cells: a picture of size² pixels. settings: of the pipeline. engines, workers: the rows.

    curve: numbers of cells for the cost of a field of `curve_size`² pixels (none: leave it out). families: time each
    family of `fast`. repeats: of the curve and the families, the median counts. stock_command: environment of the stock
    command line.
    """

    fields: int = 48
    cells: int = 47  # about as many are found in a field
    size: int = 384
    settings: str = "jump"
    engines: tuple[str, ...] = ENGINES
    workers: tuple[int, ...] = (1, 2)
    curve: tuple[int, ...] = (1, 10, 50, 100, 200, 350, 500)
    curve_size: int = 1080
    families: bool = True
    repeats: int = 3
    stock_command: str | None = None


def run(
    config: ProfilingConfig | None = None, out: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Everything; written to `out` as JSON if given. An engine that is not installed has a row with the reason.

    Raises:
        ValueError: an unknown engine, or more workers than cores.
    """
    config = config or ProfilingConfig()
    unknown = sorted(set(config.engines) - set(ENGINES))
    cores = sorted(os.sched_getaffinity(0))
    if unknown:
        raise ValueError(f"engines: got {', '.join(unknown)}, expected some of {', '.join(ENGINES)}")
    if max(config.workers) > len(cores):
        raise ValueError(f"workers: got {max(config.workers)}, but there are {len(cores)} cores")
    rows: list[dict[str, Any]] = []
    total = len(config.engines) * len(config.workers) + bool(config.curve) + config.families

    def tell(what: str) -> None:
        if progress is not None:
            progress(len(rows), total, what)

    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures.npy"
        tell("painting")
        np.save(pictures, paint(config.fields, config.cells, config.size))
        for engine in config.engines:
            for workers in config.workers:
                tell(f"{engine}, {workers} worker(s)")
                task = {"task": engine, "workers": workers, "settings": config.settings, "pictures": str(pictures)}
                task["command"] = config.stock_command
                rows.append({"engine": engine, "workers": workers, **_apart(task, cores[:workers])})
        rest = {"settings": config.settings, "repeats": config.repeats, "pictures": str(pictures)}
        tell("families")
        families = _apart({"task": "families", **rest}, cores[:1]) if config.families else {}
        tell("cost against cells")
        curve = {"task": "curve", "cells": config.curve, "size": config.curve_size, **rest}
        points = _apart(curve, cores[:1]) if config.curve else {}
    found: dict[str, Any] = {
        "benchmark": "profiling",
        "config": asdict(config),
        "rows": rows,
        "families": families,
        "curve": points,
        "machine": {
            "processor": _processor(),
            "cores": len(cores),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "numba")},
        },
    }
    _compare(rows)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _compare(rows: list[dict[str, Any]]) -> None:
    """Adds `times_stock`: fields a second, start-up counted in, over those of `stock` on as many cores; and
    `times_command`, over those of the stock command line."""
    for base in ("stock", "command"):
        of = {row["workers"]: row["fields_per_s"] for row in rows if row["engine"] == base and "missing" not in row}
        for row in rows:
            if "missing" not in row and row["workers"] in of:
                row[f"times_{base}"] = row["fields_per_s"] / of[row["workers"]]


def _apart(task: Mapping[str, Any], cores: list[int]) -> dict[str, Any]:
    """Runs a task in a fresh process on these cores; its answer, or {"missing": why}."""
    command = [sys.executable, "-m", "service.benchmark_profiling", json.dumps(task)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        env=dict(os.environ) | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": path},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return {"missing": last}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def table(found: Mapping[str, Any]) -> str:
    """The rows as text, then families and curve."""
    heads = ("engine", "workers", "fields/s", "warm s/field", "start s", "times stock", "x command", "MiB a worker")
    lines = [" ".join(f"{head:>13}" for head in (*heads, "cells"))]
    for row in found["rows"]:
        if "missing" in row:
            lines.append(f"{row['engine']:>13} {row['workers']:>13} missing: {row['missing']}")
            continue
        keys = ("fields_per_s", "s_per_field", "start_s", "times_stock", "times_command", "memory_mib", "cells")
        numbers = (f"{row[key]:>13.3f}" if key in row else f"{'':>13}" for key in keys)
        lines.append(f"{row['engine']:>13} {row['workers']:>13} " + " ".join(numbers))
    for name, one in found["families"].items():
        lines.append(f"{name}: {one['ms']:.1f} ms a field{one.get('note', '')}" if isinstance(one, dict) else str(one))
    if "points" in found["curve"]:
        lines += [f"{p['cells']} cells found: {p['s_per_field']:.3f} s a field" for p in found["curve"]["points"]]
        line = (
            "{ms_per_cell:.2f} ms a cell on {fixed_ms:.0f} ms a field, R2 {r2:.4f}, farthest point {residual:.1%} off"
        )
        lines.append(line.format(**found["curve"]) + f": {verdict(found['curve'])}")
    elif "missing" in found["curve"]:
        lines.append(f"cost against cells: {found['curve']['missing']}")
    return "\n".join(lines)


def verdict(curve: Mapping[str, Any]) -> str:
    """Whether the cost is a line in the number of cells; needs three points at least."""
    if len(curve["points"]) < 3:
        return "too few points to tell"
    return "linear in cells" if curve["residual"] <= LINEAR else "not linear in cells"


def stock(pictures: Path, of: str, workers: int) -> dict[str, Any]:
    """Stock modules with HDF5 measurements, the pictures dealt out to `workers` processes.

    Raises:
        FileNotFoundError: not a checkout (the script is a test's). CellProfilerMissing: not installed.
    """
    if not _STOCK.is_file():
        raise FileNotFoundError(f"{_STOCK} is missing: run this from a checkout")
    python = environment.interpreter(None)
    planes = np.load(pictures)
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        begin = time.perf_counter()
        for place in range(workers):
            part, out = Path(folder) / f"{place}.npy", Path(folder) / f"{place}.npz"
            np.save(part, planes[place::workers])
            command = [str(python), "-P", str(_STOCK), str(settings.pipeline(of)), str(part), str(out)]
            processes.append(subprocess.Popen(command, env=environment.worker_environment(python)))
        ends = [os.wait4(process.pid, 0) for process in processes]
        seconds = time.perf_counter() - begin
        if any(status for _, status, _ in ends):
            raise ValueError("stock CellProfiler failed: see the log above")
        cells = []
        for place in range(workers):
            with np.load(Path(folder) / f"{place}.npz") as found:
                cells += [len(found[name]) for name in found.files if name.endswith("|Cells|Number_Object_Number")]
    memory = max(usage.ru_maxrss for _, _, usage in ends) / 1024
    return {
        "fields_per_s": len(planes) / seconds,
        "s_per_field": seconds * workers / len(planes),  # start-up and all
        "memory_mib": memory,
        "cells": float(np.mean(cells)),
    }


def engine(name: str, pictures: Path, of: str, workers: int) -> dict[str, Any]:
    """One of ours: start-up (the first field of each worker counted in), then all fields warm.

    `fast_cuda`: the engine fast on a GPU. Raises InvalidDevice where there is none.
    """
    from profiling.engines import ENGINES as OURS

    planes = np.load(pictures)
    begin = time.perf_counter()
    kind, _, device = name.partition("_") if name not in OURS else (name, "", "")
    named = {"device": device} if device else {}
    with OURS[kind](of, workers=workers, **named) as running:
        running.measure(planes[:workers], CHANNELS)
        warm = time.perf_counter()
        found = running.measure(planes, CHANNELS)
        end = time.perf_counter()
        memory = _largest(os.getpid(), planes.nbytes / 2**20)
    bad = [field.reason for field in found if field.outcome == "failed"]
    if bad:
        raise ValueError(f"{name}: {len(bad)} fields failed, the first because {bad[0]}")
    return {
        "start_s": warm - begin,
        "s_per_field": (end - warm) * workers / len(planes),
        # A field of each worker is measured in both parts; it counts as start-up.
        "fields_per_s": len(planes) / (end - begin),
        "memory_mib": memory,
        "cells": float(np.mean([len(field.objects["Cells"].values) for field in found])),
        "columns": sum(len(one.names) for one in found[0].objects.values()) + len(found[0].image),
    }


def _largest(pid: int, pictures: float) -> float:
    """Largest resident memory that a worker has had, MiB: of this process's children, or its own without any.

    `pictures`: MiB of the benchmark's pictures, which lie in this process and are not the worker's.
    """

    def peak(one: int) -> float:
        status = Path(f"/proc/{one}/status").read_text(encoding="utf-8")
        return float(status.split("VmHWM:")[1].split()[0]) / 1024

    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread ended; its children are another one's now
            children += [int(child) for child in (thread / "children").read_text(encoding="utf-8").split()]
    return max(map(peak, children)) if children else peak(pid) - pictures


def _child(task: Mapping[str, Any]) -> dict[str, Any]:
    from service import benchmark_families, stock_command

    pictures = Path(task["pictures"])
    if task["task"] == "families":
        return benchmark_families.families(np.load(pictures)[0], task["settings"], task["repeats"])
    if task["task"] == "curve":
        return benchmark_families.curve(task["cells"], task["size"], task["settings"], task["repeats"])
    if task["task"] == "stock":
        return stock(pictures, task["settings"], task["workers"])
    if task["task"] == "command":
        if not task["command"]:
            raise ValueError(stock_command.NOT_GIVEN)
        return stock_command.measure(pictures, task["settings"], task["workers"], Path(task["command"]))
    return engine(task["task"], pictures, task["settings"], task["workers"])


if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(_child(json.loads(sys.argv[1]))) + "\n")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
