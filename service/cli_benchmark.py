"""The verb `dopaint benchmark profiling`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


def register(app: typer.Typer, doors: Doors, bar: Bar) -> None:
    """Add the verb to `dopaint benchmark`."""

    @app.command("profiling")
    def profiling(
        out: Annotated[Path | None, typer.Option(help="write the numbers there, JSON")] = None,
        fields: Annotated[int, typer.Option(min=1, help="painted fields an engine measures")] = 48,
        engine: Annotated[
            list[str] | None,
            typer.Option(help="command, stock, cellprofiler, cp_measure, fast, fast_cuda; repeat; default: all"),
        ] = None,
        workers: Annotated[list[int] | None, typer.Option(help="cores; repeat for more, default: 1 and 2")] = None,
        settings: Annotated[str, typer.Option(help="pipeline, by name or path")] = "jump",
        curve: Annotated[bool, typer.Option(help="the cost of a field against its cells, 1 to 500")] = True,
        stock_command: Annotated[
            Path | None, typer.Option(help="environment with Java's bridge, for stock CellProfiler's command line")
        ] = None,
    ) -> None:
        """Time every profiling engine on the same painted fields, stock CellProfiler among them."""
        with doors():
            from service.benchmark_profiling import ENGINES, ProfilingConfig, run, table

            config = ProfilingConfig(
                fields=fields,
                engines=tuple(engine or ENGINES),
                workers=tuple(workers or (1, 2)),
                settings=settings,
                curve=ProfilingConfig.curve if curve else (),
                stock_command=None if stock_command is None else str(stock_command.absolute()),
            )
            with bar() as progress:
                found = run(config, out, progress)
            typer.echo(table(found))
            typer.echo(json.dumps(found))
