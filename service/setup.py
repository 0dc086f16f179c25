"""`dopaint setup`: install what needs an environment of its own."""

from __future__ import annotations

from pathlib import Path


def cellprofiler(target: Path | None = None) -> Path:
    """Install CellProfiler into `target` (default: the engine's own choice); returns the environment."""
    from profiling.engines.setup import install

    return install(target)
