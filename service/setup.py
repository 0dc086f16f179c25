"""`dopaint setup`: install what needs an environment of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer, doors: Callable[[], AbstractContextManager[None]]) -> None:
    """Adds `cpmeasure` to the commands; `doors` turns refusals into exit codes."""

    @app.command("cpmeasure")
    def cp_measure(
        target: Annotated[Path | None, typer.Option(help="folder of the packages; default: .venv-cp_measure")] = None,
    ) -> None:
        """Install the packages of the engine cp_measure into a folder of their own."""
        with doors():
            from profiling.engines.cp_measure_packages import install

            typer.echo(f"cp_measure is in {install(target)}")


def cellprofiler(target: Path | None = None) -> Path:
    """Install CellProfiler into `target` (default: the engine's own choice); returns the environment."""
    from profiling.engines.setup import install

    return install(target)
