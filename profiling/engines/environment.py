"""CellProfiler's own virtual environment: where it is, what it must hold, and what its processes see of ours."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from profiling.engines import settings

VARIABLE = "DOPAINT_CELLPROFILER_VENV"
REQUIREMENTS = "requirements-cellprofiler.txt"

#: Ties in RadialDistribution and in MaxIntensity locations follow the sorting routine that numpy picks for the
#: processor; without these features it picks the same one everywhere.
_CPU_FEATURES_OFF = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
#: More BLAS threads than one make MeasureTexture tens of times slower on a busy machine.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


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
        "NPY_DISABLE_CPU_FEATURES": _CPU_FEATURES_OFF,
        "NUMBA_CACHE_DIR": str(cache),
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return kept | dict.fromkeys(_ONE_THREAD, "1") | chosen
