"""The commands about real data: `dopaint data summary`, `dopaint data pull jump` and `dopaint data training`. Imports
wait for use.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.cli_real_pictures import register_data

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]

Many = Annotated[list[str] | None, typer.Option(help="may be given more than once; default: all")]
Root = Annotated[str, typer.Option("--from", help="the gallery: an s3:// address or the folder of a mirror")]
Endpoint = Annotated[str | None, typer.Option(help="address of another S3 server than Amazon's")]
TablesAt = Annotated[str, typer.Option(help="folder or address of the JUMP tables (jump-cellpainting/datasets)")]
GALLERY = "s3://cellpainting-gallery"


def register(app: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the group `data`."""
    console = Console()
    data = typer.Typer(no_args_is_help=True, help="Real pictures: what there is, fetching it, making training data.")
    app.add_typer(data, name="data")
    register_data(data, doors, progress)

    @data.command("summary")
    def summary(
        tables: TablesAt,
        source: Many = None,
    ) -> None:
        """Batches, plates and compounds of the paper's part of JUMP-CP, from its tables."""
        with doors():
            from profiling.jump import PAPER_SOURCES, read_tables
            from profiling.jump import summary as count
            from service.show import plain_table

            found = count(read_tables(tables), source or PAPER_SOURCES)
            console.print(plain_table(found, "JUMP-CP (cpg0016), the paper's plates"))

    @data.command("pull")
    def pull_(
        what: Annotated[str, typer.Argument(help="jump")],
        source: Annotated[str, typer.Option(help="source_1 to source_15")],
        out: Annotated[Path, typer.Option(help="folder of the mirror")],
        plate: Many = None,
        well: Many = None,
        site: Many = None,
        root: Root = GALLERY,
        endpoint: Endpoint = None,
        workers: Annotated[int, typer.Option(min=1, max=64, help="files at once")] = 8,
    ) -> None:
        """Fetch pictures, illumination functions and tables of chosen plates; a stopped pull goes on where it was."""
        with doors():
            from profiling.pull import Subset, pull
            from service.errors import UnknownName
            from service.jump_data import gallery

            if what != "jump":
                raise UnknownName(f"data {what!r} is not known: expected jump")
            subset = Subset(source, tuple(plate or ()), tuple(well or ()), tuple(site or ()))
            with progress() as bar:
                n = pull(gallery(root, endpoint), subset, out, workers, bar)
            console.print(f"{n} files fetched, all checked: {out}", soft_wrap=True, highlight=False)

    @data.command("verify")
    def verify_(mirror: Annotated[Path, typer.Argument(help="folder of a mirror")]) -> None:
        """Read every file of a mirror and compare it with its checksum."""
        with doors():
            from profiling.pull import already, verify
            from service.errors import InvalidRequest

            if bad := verify(mirror):
                raise InvalidRequest(
                    f"mirror: {len(bad)} files are missing or changed, the first is {bad[0]}: pull again"
                )
            console.print(f"{len(already(mirror))} files are whole: {mirror}", soft_wrap=True, highlight=False)

    @data.command("training")
    def training(
        tables: TablesAt,
        source: Annotated[list[str], typer.Option(help="may be given more than once")],
        out: Annotated[Path, typer.Option(help="folder of the training data")],
        plate: Many = None,
        root: Root = GALLERY,
        endpoint: Endpoint = None,
        size: Annotated[int, typer.Option(min=32, help="pixels a side, cut from the centre of a field")] = 384,
        encoder: Annotated[Path | None, typer.Option(help="encoder folder; adds the compound vectors")] = None,
    ) -> None:
        """Make training data of the gallery's pictures, streamed; compounds come from the well table."""
        with doors():
            from service.jump_data import gallery, training_folder
            from service.simulate import encode_compounds

            with progress() as bar:
                report = training_folder(
                    gallery(root, endpoint), tables, source, plate or (), out, size=size, progress=bar
                )
            if encoder is not None:
                encode_compounds(out, encoder)
            console.print_json(data=report)
