"""`dopaint benchmark real`: scores of real profiles, published by others, with every correction; one HTML report."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors import InvalidRequest, UnknownName

if TYPE_CHECKING:
    from service.real.study import Study

Progress = Callable[[int, int, str], None]
STUDIES = ("bbbc021", "cpjump1", "cpg0016", "hub", "trex")
VARIABLE = "DOPAINT_DATA"


def run(
    out: Path,
    data: Path | None = None,
    studies: tuple[str, ...] = STUDIES,
    permutations: int = 99,
    progress: Progress | None = None,
) -> Path:
    """Write report.html, real.json and the CSV files to `out`; gives the page's path.

    Args:
        out: folder, made where it is missing.
        data: folder of the published tables; default: the environment variable DOPAINT_DATA.
        studies: which of `STUDIES`.
        permutations: shuffled labelings behind each p.
        progress: told (done, total, study).

    Raises:
        InvalidRequest: no folder of data, or a study's files are not in it.
        UnknownName: a study that does not exist.
    """
    from importlib import import_module

    from service.real.study import write
    from service.version import __version__

    if unknown := sorted(set(studies) - set(STUDIES)):
        raise UnknownName(f"studies: unknown {unknown}; known are {list(STUDIES)}")
    if permutations < 1:
        raise InvalidRequest(f"permutations is {permutations}: expected at least 1, and 99 for a p of 0.01")
    named = data_folder(data)
    done: list[Study] = []
    for number, name in enumerate(studies):
        if progress is not None:
            progress(number, len(studies), name)
        try:
            done.append(import_module(f"service.real.{name}").study(named, permutations))
        except FileNotFoundError as error:
            raise InvalidRequest(f"data: {name} needs {Path(str(error.filename)).name}, which is not there") from error
    return write(done, out, {"dopaint": __version__, "permutations": permutations})


def data_folder(data: Path | None) -> Path:
    """The folder of real data: as given, or that of the environment. Raises InvalidRequest."""
    named = data or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None or not named.is_dir():
        raise InvalidRequest(f"data: no folder of published tables (got {named}); give --data or set {VARIABLE}")
    return named


def register(
    app: typer.Typer,
    doors: Callable[[], AbstractContextManager[None]],
    bar: Callable[[], AbstractContextManager[Progress]],
) -> None:
    """Adds the command; `doors` turns refusals into exit codes, `bar` shows progress."""

    @app.command("real")
    def real(
        out: Annotated[Path, typer.Option(help="folder for report.html, real.json and the tables")] = Path("out/real"),
        data: Annotated[Path | None, typer.Option(help="folder of the published tables; default: DOPAINT_DATA")] = None,
        study: Annotated[list[str] | None, typer.Option(help="one study; repeat for more, default: all")] = None,
        permutations: Annotated[int, typer.Option(min=1, help="shuffled labelings behind each p")] = 99,
    ) -> None:
        """Score published profiles of real pictures with every correction; one page with tables and figures."""
        with doors():
            with bar() as progress:
                page = run(out, data, tuple(study) if study else STUDIES, permutations, progress)
            typer.echo(f"report: {page}")
