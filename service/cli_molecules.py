"""The commands about molecules alone: `dopaint molecules` and `dopaint benchmark domain`. Imports wait for use."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


def register(app: typer.Typer, benchmark: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add both commands."""
    console = Console()

    @app.command("molecules")
    def molecules(
        file: Annotated[Path, typer.Argument(help="CSV, TSV, SMILES or SDF, each also with .gz")],
        out: Annotated[Path, typer.Option(help="the table, CSV or CSV.gz: one row an entry")],
        model: Annotated[str | None, typer.Option(help="adds each molecule's domain in this model")] = None,
        column: Annotated[str | None, typer.Option(help="column of the SMILES; default: the usual names")] = None,
        name_column: Annotated[str | None, typer.Option(help="column of the name; default: the usual names")] = None,
        workers: Annotated[int, typer.Option(min=0, help="processes; 0: one a core")] = 0,
        summary: Annotated[Path | None, typer.Option(help="write the counts there, JSON")] = None,
    ) -> None:
        """Standardise a file of molecules: their SMILES, InChIKey and what changed, or why one is refused."""
        with doors():
            from service.molecules import convert

            with progress() as bar:
                found = convert(
                    file, out, model=model, column=column, name_column=name_column, workers=workers, progress=bar
                ).document()
            _keep(summary, found)
            console.print_json(data=found)
            console.print(f"table: {out}", soft_wrap=True, highlight=False)

    @benchmark.command("domain")
    def domain(
        model: Annotated[str, typer.Option(help="a model folder, or a name below models/")] = "simulation-128",
        errors: Annotated[
            Path | None, typer.Option(help="CSV: inchikey, error of held-out compounds; default: measured/unseen.json")
        ] = None,
        out: Annotated[Path | None, typer.Option(help="write the numbers there, JSON")] = None,
    ) -> None:
        """Learn from held-out compounds where the model may be trusted: in, edge, out; kept in its folder."""
        with doors():
            from service.domain import learn

            found = learn(model, errors)
            _keep(out, found)
            console.print_json(data=found)


def _keep(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
