"""CellProfiler's own virtual environment: where it is, what it must hold, and what its processes see of ours."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from profiling.engines import settings
from profiling.engines.cellprofiler_worker import processor

VARIABLE = "DOPAINT_CELLPROFILER_VENV"
REQUIREMENTS = "requirements-cellprofiler.txt"


class CellProfilerMissing(ValueError):
    """CellProfiler's environment is absent, broken, or not the one that is pinned."""


def default_venv() -> Path:
    """Where the environment is expected.

    `$DOPAINT_CELLPROFILER_VENV` if set; else beside the running virtual environment (`.venv` → `.venv-cellprofiler`);
    outside of one, `~/.local/share/dopaint/cellprofiler`.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix + "-cellprofiler")
    return Path.home() / ".local/share/dopaint/cellprofiler"


def requirements() -> str:
    """The exact pins, as text."""
    return settings.find(REQUIREMENTS).read_text(encoding="utf-8")


def pins() -> dict[str, str]:
    """Package → version."""
    lines = [line.split("#")[0].strip().lower() for line in requirements().splitlines()]
    return {name: version for name, _, version in (line.partition("==") for line in lines if line)}


def interpreter(venv: Path | None = None) -> Path:
    """The python of CellProfiler's environment.

    Raises:
        CellProfilerMissing: there is none.
    """
    venv = default_venv() if venv is None else venv
    python = venv / "bin/python"
    if not python.is_file():
        raise CellProfilerMissing(
            f"CellProfiler is not installed in {venv}: run `dopaint setup cellprofiler`, or set {VARIABLE} to the "
            "folder of its virtual environment"
        )
    return python


def worker_environment(python: Path) -> dict[str, str]:
    """Environment variables of a worker: ours, without Python's own; one thread; one choice of processor features."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    venv = python.parent.parent
    cache = venv / "numba-cache"
    if not os.access(venv, os.W_OK):
        cache = Path(tempfile.gettempdir()) / f"dopaint-numba-{os.getuid()}"
    chosen = {
        "NUMBA_CACHE_DIR": str(cache),
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return kept | processor.VARIABLES | chosen
