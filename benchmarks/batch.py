"""What a batch costs on this machine, and whether it streams: shipped model, local executor, molecules of the library.

    python benchmarks/batch.py --out benchmarks/results/batch-DATE.json     # 20 to 40 minutes on 2 cores
    python benchmarks/batch.py --quick                                      # a few minutes, too noisy for a verdict

flat      100 and 400 molecules x 4 draws: peak memory of all processes together (proportional set size), and time
stream    the same work streamed and stage after stage: all painted, then all measured by as many workers, then finished
trace     the generator replaced by a recorded trace (a wait that uses no core) at several speeds: wall time over that
          of the slower stage
engines   cost of a compound with `fast` and with `cellprofiler`
model     the cost model's rates from the run of 100 molecules, its forecast for the other runs, and what they took
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from service import cost
from service.batch.ask import BatchRequest
from service.batch.drive import plan as make_plan
from service.batch.drive import run
from service.batch.local import LocalExecutor
from service.batch.machine import LocalConfig
from service.batch.replay import record
from service.batch.room import RealBatchRoom
from service.batch.stages import Stages, control_item, slabs
from service.batch.store import Store
from service.batch.tracker import Tracker
from service.library import library

DRAWS = 4
SLOWER = 1.1  # wall time over the slower stage that streaming may take
OVERHEAD = 1.05


def molecules(path: Path, n: int) -> Path:
    """The first n molecules of the library, as a SMILES file."""
    path.write_text("".join(f"{one}\n" for one in library()["smiles"].iloc[:n]), encoding="utf-8")
    return path


def tree_memory(pid: int) -> float:
    """MiB of a process and all its descendants, memory that they share counted once."""
    total, todo = 0.0, [pid]
    while todo:
        one = todo.pop()
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += float(line.split()[1]) / 1024
            for thread in Path(f"/proc/{one}/task").iterdir():
                todo += [int(child) for child in (thread / "children").read_text(encoding="utf-8").split()]
        except OSError:  # it has ended
            continue
    return total


def command(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """`dopaint batch` in a process of its own: seconds, peak memory and timings."""
    told = out.with_suffix(".json")
    words = ["batch", str(source), "--draws", str(DRAWS), "--out", str(out), "--timings", str(told), *options]
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", "from service.cli import app; app()", *words], stdout=subprocess.DEVNULL
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(0.5)
    seconds = time.monotonic() - begun
    if process.returncode not in (0, 3):
        raise SystemExit(f"dopaint batch ended with {process.returncode}")
    return {"seconds": seconds, "peak_mib": peak, "timings": json.loads(told.read_text(encoding="utf-8"))}


def flat(folder: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    """Memory and time of two sizes; `linear`: time by compound, large over small, loading aside."""
    rows = [{"compounds": n, **command(molecules(folder / f"{n}.smi", n), folder / f"flat-{n}")} for n in sizes]
    small, large = rows
    each = (large["seconds"] - small["seconds"]) / (sizes[1] - sizes[0])
    painted = [row["seconds"] - start_of(row) for row in rows]
    return {
        "rows": rows,
        "memory_ratio": large["peak_mib"] / small["peak_mib"],
        "seconds_each": each,
        "start_s": [start_of(row) for row in rows],
        "linear": (painted[1] / (sizes[1] + 1)) / (painted[0] / (sizes[0] + 1)),  # the control is one more compound
    }


def start_of(row: dict[str, Any]) -> float:
    """Seconds of a run before its first picture: plan, forecast, loading."""
    return float(row["seconds"] - row["timings"]["seconds"] + row["timings"]["start_s"])


def after_each_other(folder: Path, source: Path, workers: int) -> dict[str, Any]:
    """Chem for all, then all painted, then all measured by `workers` processes, then all finished."""
    from profiling.engines import ENGINES
    from service.engine import SETTINGS_OF_SIZE

    request = BatchRequest(draws=DRAWS, part=100_000)
    store = Store(str(folder))
    plan, room = make_plan(source, request, store)
    begun = time.monotonic()
    room = RealBatchRoom(request)
    room._engine = ENGINES["fast"](SETTINGS_OF_SIZE[room.card.picture_size], workers=workers)
    stages = Stages(room, plan, store)
    tracker = Tracker(DRAWS, DRAWS, room.card.micro_batch)
    from service.batch.plan import entries_of

    with room:
        room._engine.start()
        started = time.monotonic()
        items = [stages.chem(control_item()), *(stages.chem(one) for one in tracker.admit(0, entries_of(store, 0)))]
        pieces = [piece for one in items for piece in slabs(one, 0, DRAWS, room.card.micro_batch)]
        chem = time.monotonic()
        painted = stages.paint(pieces)
        generated = time.monotonic()
        stacked = np.concatenate([one.arrays["pictures"] for one in painted])
        found = room.measure(stacked, lambda n: None)
        assert len(found.outcomes) == len(stacked)
        profiled = time.monotonic()
        measured = [stages.profile(one) for one in painted[:1]]  # the control, in the form that is kept
        store.put("control/profiles.parquet", stages.control_table(measured))
        first = time.monotonic()
        for i, one in enumerate(pieces[1:], start=1):
            header = {
                **one.header,
                "outcomes": list(found.outcomes[i * DRAWS : (i + 1) * DRAWS]),
                "reasons": [""] * DRAWS,
            }
            values = widened(stages, found, i)
            stages.finish([type(one)(header, {"values": values})])
        ended = time.monotonic()
    return {
        "seconds": (profiled - started) + (ended - first),
        "start_s": started - begun,
        "chem_s": chem - started,
        "generate_s": generated - chem,
        "profile_s": profiled - generated,
        "finish_s": ended - first,
    }


def widened(stages: Stages, found: Any, i: int) -> np.ndarray:
    """Measured values of compound i on the features of effects."""
    import pandas as pd

    from profiling.profiles import Profiles
    from service.pipeline import widen

    values = np.asarray(found.values[i * DRAWS : (i + 1) * DRAWS], np.float64)
    return widen(Profiles(pd.DataFrame({"Metadata_i": range(DRAWS)}), values, found.names), stages.names).values


def streamed(folder: Path, source: Path, config: LocalConfig) -> tuple[float, dict[str, Any]]:
    """Seconds of the stream from the control's first picture to the last file, loading left aside, and its timings."""
    with LocalExecutor(config) as executor:
        run(source, BatchRequest(draws=DRAWS), Store(str(folder)), executor)
        return time.monotonic() - executor.painting_since, executor.timings.document()


def stream(folder: Path, n: int, workers: int) -> dict[str, Any]:
    """Streaming against stage after stage."""
    source = molecules(folder / "stream.smi", n)
    apart = after_each_other(folder / "apart", source, workers)
    seconds, timings = streamed(folder / "streamed", source, LocalConfig(profilers=workers, devices=("cpu",)))
    return {
        "compounds": n,
        "apart": apart,
        "streamed_s": seconds,
        "ratio": seconds / apart["seconds"],
        "timings": timings,
    }


def trace(folder: Path, n: int, workers: int, speeds: tuple[float, ...]) -> list[dict[str, Any]]:
    """A recorded GPU trace in the generator's place, at some multiples of the time that measuring takes."""
    source = molecules(folder / "trace.smi", n)
    request = BatchRequest(draws=64)
    plan, _ = make_plan(molecules(folder / "one.smi", 1), request, Store(str(folder / "recorded")))
    room = RealBatchRoom(request)
    stages = Stages(room, plan, Store(str(folder / "recorded")))
    item = stages.chem(control_item())
    pictures = np.concatenate(
        [one.arrays["pictures"] for one in stages.paint(slabs(item, 0, 64, room.card.micro_batch))]
    )
    batches = -(-(n + 1) * DRAWS // room.card.micro_batch)
    record(folder / "probe.npz", pictures, 0.0)
    config = LocalConfig(profilers=workers, devices=("cpu",))
    alone, timings = streamed(
        folder / "probe", source, LocalConfig(profilers=workers, devices=("cpu",), trace=str(folder / "probe.npz"))
    )
    rows = []
    for speed in speeds:
        seconds = speed * alone / batches
        record(folder / f"{speed}.npz", pictures, seconds)
        told = LocalConfig(profilers=workers, devices=config.devices, trace=str(folder / f"{speed}.npz"))
        wall, _ = streamed(folder / f"trace-{speed}", source, told)
        slower = max(alone, seconds * batches)
        rows.append({"generator_s": seconds * batches, "others_s": alone, "wall_s": wall, "over_slower": wall / slower})
    return [{"compounds": n, "others_alone_s": alone, "timings": timings}, *rows]


def engines(folder: Path, n: int) -> list[dict[str, Any]]:
    """Cost of a compound by engine."""
    source = molecules(folder / "engines.smi", n)
    rows = []
    for name in ("fast", "cellprofiler"):
        found = command(source, folder / f"engine-{name}", "--engine", name)
        tasks = found["timings"]["tasks"]
        each = DRAWS * (tasks["paint"]["cpu_s_each"] + tasks["profile"]["cpu_s_each"])
        each += tasks["chem"]["cpu_s_each"] + tasks["finish"]["cpu_s_each"]
        rows.append(
            {"engine": name, "core_s_a_compound": each, "core_s_a_profile": tasks["profile"]["cpu_s_each"], **found}
        )
    return rows


def forecast(flat_rows: list[dict[str, Any]], folder: Path, start_s: float) -> list[dict[str, Any]]:
    """The cost model with the rates of the first run against all runs."""
    told = folder / "rates.json"
    told.write_text(json.dumps({**flat_rows[0]["timings"], "start_s": start_s}), encoding="utf-8")
    rates, shape = cost.rates_from(told), cost.shape_of("simulation-128")
    machines = cost.Machines(0, len(os.sched_getaffinity(0)))
    rows = []
    for row in flat_rows:
        found = cost.estimate(shape, row["compounds"], DRAWS, rates, machines)
        out = folder / f"flat-{row['compounds']}"
        kept = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        rows.append(
            {
                "compounds": row["compounds"],
                "forecast_s": found.wall_s,
                "took_s": row["seconds"],
                "ratio": found.wall_s / row["seconds"],
                "forecast_bytes": found.storage_bytes,
                "bytes": kept,
                "bytes_ratio": found.storage_bytes / kept,
            }
        )
    return rows


def main() -> None:
    """Everything that is asked for; a table of verdicts, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="flat,stream,trace,engines")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    sizes = (2, 6) if args.quick else (100, 400)
    some = 3 if args.quick else 60
    wanted = args.only.split(",")
    found: dict[str, Any] = {
        "benchmark": "batch",
        "draws": DRAWS,
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "numba", "pyarrow")},
        },
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "flat" in wanted:
            found["flat"] = flat(folder, sizes)
            found["model"] = forecast(found["flat"]["rows"], folder, start_of(found["flat"]["rows"][0]))
        if "stream" in wanted:
            found["stream"] = stream(folder, some, args.workers)
        if "trace" in wanted:
            found["trace"] = trace(folder, some, args.workers, (0.5, 1.0, 2.0))
        if "engines" in wanted:
            found["engines"] = engines(folder, max(3, some // 3))
    for line in verdicts(found):
        print(line)
    text = json.dumps(found)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text)


def verdicts(found: dict[str, Any]) -> list[str]:
    """What was asked, what was found, and whether it holds."""
    lines: list[str] = []

    def say(what: str, value: float, low: float, high: float) -> None:
        lines.append(
            f"{'holds ' if low <= value <= high else 'misses'}  {what}: {value:.3f} (wanted {low:g} to {high:g})"
        )

    if "flat" in found:
        say("peak memory, large over small", found["flat"]["memory_ratio"], 0.9, 1.1)
        say("time by compound, large over small", found["flat"]["linear"], 0.9, 1.1)
        for row in found["model"]:
            say(f"forecast over measured, {row['compounds']} compounds", row["ratio"], 0.8, 1.2)
            say(f"forecast over measured bytes, {row['compounds']} compounds", row["bytes_ratio"], 0.8, 1.2)
    if "stream" in found:
        say("streaming over stage after stage", found["stream"]["ratio"], 0.0, OVERHEAD)
    for row in found.get("trace", [])[1:]:
        say(f"wall over the slower stage, generator {row['generator_s']:.0f} s", row["over_slower"], 0.0, SLOWER)
    lines += [
        f"{row['engine']}: {row['core_s_a_compound']:.2f} core seconds a compound of {DRAWS} draws"
        for row in found.get("engines", [])
    ]
    return lines


if __name__ == "__main__":
    main()
