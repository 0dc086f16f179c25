"""`dopaint profile`: a folder, plate or table of pictures in; tables of cells, fields and wells out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.errors import EXIT_FAILED, EXIT_OK
from service.measure import Options

if TYPE_CHECKING:
    from profiling.run import Summary

#: Exit code of a run that came to its end and could not measure some of its fields.
EXIT_INCOMPLETE = 3


def register(app: typer.Typer, doors: Callable[[], AbstractContextManager[None]]) -> None:
    """Adds the command to the application; `doors` turns refusals into exit codes."""

    @app.command()
    def profile(
        source: Annotated[Path, typer.Argument(help="folder, OME-Zarr, OME-TIFF or LoadData table", metavar="INPUT")],
        out: Annotated[Path, typer.Option(help="parquet file of the coarsest level; finer ones go beside it")],
        bits: Annotated[
            str | None, typer.Option(help="range of the files: 8, 12, 16 or float; left out only if they state it")
        ] = None,
        engine: Annotated[str, typer.Option(help="cellprofiler, fast, cp_measure or an embedder")] = "cellprofiler",
        settings: Annotated[str, typer.Option(help="sim128, jump, full, or a .cppipe file")] = "jump",
        format_: Annotated[
            str | None, typer.Option("--format", help="folder, ome-tiff, ome-zarr, jump, load-data; default: by look")
        ] = None,
        pattern: Annotated[
            str | None, typer.Option(help="of file names: '{plate}_{well}_s{site}_{channel}.tif', or a regex")
        ] = None,
        channels: Annotated[
            str | None, typer.Option(help="DNA,ER,... or DNA=ch5,ER=ch4,... (name = what the files call it)")
        ] = None,
        level: Annotated[str, typer.Option(help="tables to write: some of cell,field,well")] = "field,well",
        root: Annotated[Path | None, typer.Option(help="LoadData: where the pictures are")] = None,
        plates: Annotated[str | None, typer.Option(help="JUMP layout: these plates only, with commas")] = None,
        keep: Annotated[str | None, typer.Option(help="LoadData: further Metadata_ columns, with commas")] = None,
        size: Annotated[
            str | None, typer.Option(help="of every field, as 1080x1080 (height x width); default: the commonest")
        ] = None,
        saturated: Annotated[float, typer.Option(help="per cent at the range's end: not measured beyond")] = 5.0,
        illumination: Annotated[
            str | None,
            typer.Option(help="'estimate' or a TOML file (by plate, from these pictures), or a folder of functions"),
        ] = None,
        quality: Annotated[
            str | None, typer.Option(help="'default' or a TOML file: flag blurred, saturated, dark and bright fields")
        ] = None,
        weights: Annotated[Path | None, typer.Option(help="embedders: folder of the weights")] = None,
        overlays: Annotated[
            int, typer.Option(min=0, help="draw what was found in so many fields: PNGs beside OUT, for a person")
        ] = 0,
        device: Annotated[
            str | None,
            typer.Option(help="fast: cuda or cpu, batches of fields by torch; default: each field on a core"),
        ] = None,
        workers: Annotated[int, typer.Option(min=1, help="measuring processes")] = 2,
        timeout: Annotated[float, typer.Option(help="CellProfiler: longest time for one field, s")] = 120.0,
        batch: Annotated[
            int | None, typer.Option(min=1, help="fields in memory at once; default: 4 a worker, 64 with --device")
        ] = None,
    ) -> None:
        """Measure pictures: segment nuclei, cells and cytoplasm and write tables of their features.

        What is finished is kept beside OUT; the same command goes on where it was stopped. Ends with 0 if every field
        was measured, 3 if some were not (see OUT's .outcomes.csv), 1 if none was, 2 if the request was refused.
        """
        with doors():
            from service.measure import measure

            options = Options(
                engine=engine,
                settings=settings,
                bits=bits,
                format=format_,
                pattern=pattern,
                channels=channels,
                levels=_list(level),
                root=root,
                plates=_list(plates),
                keep=_list(keep),
                size=size,
                saturated=saturated,
                illumination=illumination,
                quality=quality,
                weights=weights,
                device=device,
                overlays=overlays,
                workers=workers,
                timeout_s=timeout,
                batch=batch,
            )
            notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
            with _fields_bar() as progress:
                summary = measure(source, out, options, progress, lambda line: notes.print(f"note: {line}"))
            lines = Console(soft_wrap=True, highlight=False, markup=False)
            for line in report(summary):
                lines.print(line)
            raise typer.Exit(exit_code(summary))


def exit_code(summary: Summary) -> int:
    """0 every field measured, 3 some, 1 none."""
    if not summary.measured:
        return EXIT_FAILED
    return EXIT_OK if summary.measured == summary.fields else EXIT_INCOMPLETE


def report(summary: Summary) -> list[str]:
    """What stands on stdout after a run; the last line has all counts."""
    lines = [f"{level} table: {path}" for level, path in summary.tables.items()]
    lines.append(f"outcome of each field: {summary.outcomes}")
    if summary.kept:
        lines.append(f"{summary.kept} fields were finished by an earlier run")
    return [*lines, summary.sentence()]


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


class _FieldsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.2f} fields/s" if task.speed else "")


@contextmanager
def _fields_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with fields a second on stderr where that is a terminal; told (done, total, stage)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _FieldsPerSecond(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, stage_now = bar.add_task("looking at the input", total=None), ""

        def tell(done: int, total: int, stage: str) -> None:
            nonlocal stage_now
            if stage != stage_now:  # a new stage has a speed of its own
                bar.reset(task, total=total, completed=done, description=stage)
                stage_now = stage
            bar.update(task, completed=done, total=total)

        yield tell
