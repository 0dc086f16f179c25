"""The command `dopaint benchmark claim`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


def register(benchmark: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the command to `dopaint benchmark`."""
    console = Console()

    @benchmark.command("claim")
    def claim(
        out: Annotated[Path, typer.Option(help="folder of the run; the same command goes on where it was")],
        config: Annotated[
            Path | None, typer.Option(help="default: the shipped configs/benchmark/claim_small.toml")
        ] = None,
        stop_after: Annotated[str | None, typer.Option(help="the last stage of this run")] = None,
    ) -> None:
        """Effects and mechanisms by every method against the truth of the painted world, seen and unseen compounds."""
        with doors():
            from service import resources
            from service.claim.run import run

            chosen = config or resources.path("configs") / "benchmark" / "claim_small.toml"
            with progress() as bar:
                stages = run(chosen, out, bar, stop_after)
            if all(stages.values()):
                console.print(f"report: {out / 'claim.md'}", soft_wrap=True, highlight=False)
            else:
                left = [name for name, finished in stages.items() if not finished]
                console.print(
                    f"stopped: {len(stages) - len(left)} of {len(stages)} stages are done, next is {left[0]}",
                    soft_wrap=True,
                    highlight=False,
                )
