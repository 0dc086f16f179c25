"""The stock command line `cellprofiler -c -r` for `dopaint benchmark profiling`: TIFF files in through Java, CSV out.

It runs in an environment that dopaint neither makes nor needs; tests/golden/stock_command_line.py says how it is made.
Its start-up counts, as it does for whoever starts it; writing the TIFF files does not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from profiling.engines import environment, settings
from service.painted_fields import CHANNELS

_SCRIPT = Path(__file__).resolve().parents[1] / "tests/golden/stock_command_line.py"
NOT_GIVEN = (
    "not run: it needs Java and an environment of its own (tests/golden/stock_command_line.py says how to make one); "
    "name it with --stock-command"
)


def measure(pictures: Path, of: str, workers: int, place: Path) -> dict[str, Any]:
    """The fields of `pictures` (.npy, float32 [n, 5, h, w]) dealt out to `workers` processes of the command line.

    place: the environment's folder, or its python.

    Raises:
        FileNotFoundError: no such environment, or not a checkout. ValueError: it failed; its log is on stderr.
    """
    python = place / "bin/python" if place.is_dir() else place
    for needed, what in ((python, "--stock-command"), (_SCRIPT, "the script of the oracle (run this from a checkout)")):
        if not needed.is_file():
            raise FileNotFoundError(f"{what}: {needed} does not exist")
    variables = environment.worker_environment(python) | _java()
    planes = np.load(pictures)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.cppipe"
        write = [str(python), "-W", "ignore", str(_SCRIPT), "--write", str(settings.pipeline(of)), str(run)]
        channels = json.loads(_output(write, variables).splitlines()[-1])
        parts = [Path(folder) / str(k) for k in range(workers)]
        for k, part in enumerate(parts):
            _write(part / "images", planes[k::workers], channels)
            (part / "tables").mkdir()
        command = [str(python), "-W", "ignore", str(_SCRIPT), "--run", "-c", "-r", "-p", str(run)]
        begin = time.perf_counter()
        logs = [(part / "log").open("w", encoding="utf-8") for part in parts]
        processes = [
            subprocess.Popen(
                [*command, "-i", str(part / "images"), "-o", str(part / "tables")],
                env=variables,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            for part, log in zip(parts, logs, strict=True)
        ]
        ends = [os.wait4(process.pid, 0) for process in processes]
        seconds = time.perf_counter() - begin
        for log in logs:
            log.close()
        if any(status for _, status, _ in ends):
            last = ((parts[0] / "log").read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(f"the stock command line failed: {last}")
        rows = [len((part / "tables/Cells.csv").read_text(encoding="utf-8").splitlines()) - 1 for part in parts]
    return {
        "fields_per_s": len(planes) / seconds,
        "s_per_field": seconds * workers / len(planes),  # start-up and all
        "memory_mib": max(usage.ru_maxrss for _, _, usage in ends) / 1024,
        "cells": sum(rows) / len(planes),
    }


def _java() -> dict[str, str]:
    """JAVA_HOME, as it is set or as the `java` on the path says."""
    if home := os.environ.get("JAVA_HOME"):
        return {"JAVA_HOME": home}
    java = shutil.which("java")
    return {"JAVA_HOME": str(Path(java).resolve().parents[1])} if java else {}


def _output(command: list[str], variables: dict[str, str]) -> str:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"the stock command line's environment does not work: {last}")
    return done.stdout


def _write(folder: Path, planes: np.ndarray, channels: list[str]) -> None:
    """One TIFF a channel, 16 bits, in the order of which CellProfiler matches them."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(planes):
        for channel in channels:
            counts = np.rint(picture[CHANNELS.index(channel)] * 65535.0).astype(np.uint16)
            tifffile.imwrite(folder / f"f{i:05d}_{channel}.tif", counts)
