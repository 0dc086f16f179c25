"""Makes CellProfiler's virtual environment: `dopaint setup cellprofiler`, or `python -m profiling.engines.setup`.

CellProfiler 4 needs numpy < 1.25 and cannot share an environment with the rest. Wheels only: no compiler, no Java, no
wx and no database.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from profiling.engines import settings
from profiling.engines.cellprofiler import CellProfilerEngine
from profiling.engines.environment import REQUIREMENTS, VARIABLE, CellProfilerMissing, default_venv, requirements

_MARK = "dopaint-requirements.txt"  # written last: what this environment was made from
_PYTHON = "python3.11"  # the pinned wheels exist for this version


def is_installed(venv: Path | None = None) -> bool:
    """Whether `venv` was made from exactly today's pins."""
    mark = (default_venv() if venv is None else venv) / _MARK
    return mark.is_file() and mark.read_text(encoding="utf-8") == requirements()


def install(venv: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Makes the environment, or leaves it alone if it is there already; about 750 MB, under a minute on a fast network.

    Returns the folder. `say` is told what happens.

    Raises:
        CellProfilerMissing: no Python 3.11, a folder in the way that is no virtual environment, pip failed, or what it
        installed does not start.
    """
    venv = default_venv() if venv is None else venv.expanduser().absolute()
    if is_installed(venv):
        say(f"CellProfiler is in {venv} already")
        return venv
    if venv.is_dir() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").is_file():
        raise CellProfilerMissing(f"{venv} exists and is no virtual environment: choose another folder with {VARIABLE}")
    python = _base_python()
    say(f"making {venv} with {python}")
    _run([python, "-m", "venv", "--clear", str(venv)], "sudo apt-get install python3.11-venv")
    say("installing CellProfiler 4.2.8.1 (wheels only)")
    pip = [str(venv / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    pinned = str(settings.find(REQUIREMENTS))
    _run(
        [*pip, "--only-binary", ":all:", "--no-deps", "-r", pinned],
        "check the network and pip's index, then run it again",
    )
    say("starting it once, which compiles the kernels")
    with CellProfilerEngine(workers=1, venv=venv) as engine:
        engine.start()
    (venv / _MARK).write_text(requirements(), encoding="utf-8")
    say("done")
    return venv


def _base_python() -> str:
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if here == _PYTHON:
        # The interpreter behind a virtual environment, so that the new one does not depend on the old.
        return str(getattr(sys, "_base_executable", sys.executable))
    found = shutil.which(_PYTHON)
    if found is None:
        raise CellProfilerMissing(
            f"{_PYTHON} not found: the pinned CellProfiler has wheels for Python 3.11 only, and this is {here}; "
            "install it, for example with `sudo apt-get install python3.11-venv`"
        )
    return found


def _run(command: list[str], remedy: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise CellProfilerMissing(f"`{' '.join(command[1:4])}` failed: {' | '.join(last)}; remedy: {remedy}")


if __name__ == "__main__":
    try:
        install(say=lambda text: print(text, flush=True))  # noqa: T201
    except CellProfilerMissing as error:
        sys.exit(str(error))
