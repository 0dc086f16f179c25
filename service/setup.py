"""`dopaint setup`: install what needs an environment of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer, doors: Callable[[], AbstractContextManager[None]]) -> None:
    """Adds `cpmeasure` and `pipeline` to the commands; `doors` turns refusals into exit codes."""

    @app.command("cpmeasure")
    def cp_measure(
        target: Annotated[Path | None, typer.Option(help="folder of the packages; default: .venv-cp_measure")] = None,
    ) -> None:
        """Install the packages of the engine cp_measure into a folder of their own."""
        with doors():
            from profiling.engines.cp_measure_packages import install

            typer.echo(f"cp_measure is in {install(target)}")

    @app.command("pipeline")
    def pipeline(
        out: Annotated[Path, typer.Argument(help="the new .cppipe file", metavar="OUT")],
        pixel_um: Annotated[float, typer.Option(help="side of a pixel in the sample, µm")],
        settings: Annotated[str, typer.Option(help="jump, jump8, full, or a .cppipe file")] = "jump",
        made_for_um: Annotated[
            float | None, typer.Option(help="pixel size for which your own .cppipe was made, µm")
        ] = None,
    ) -> None:
        """Write a CellProfiler pipeline whose lengths fit your pixel size; give it to `dopaint profile --settings`."""
        with doors():
            from profiling.engines.magnification import for_pixel_size

            typer.echo(f"written to {for_pixel_size(settings, pixel_um, out, made_for_um)}")


def cellprofiler(target: Path | None = None) -> Path:
    """Install CellProfiler into `target` (default: the engine's own choice); returns the environment."""
    from profiling.engines.setup import install

    return install(target)
