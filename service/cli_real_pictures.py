"""The commands about real pictures of BBBC021: `dopaint data bbbc021` and `dopaint benchmark real-pictures`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


def register_data(data: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the command to `dopaint data`."""
    console = Console()

    @data.command("bbbc021")
    def bbbc021(
        out: Annotated[Path, typer.Option(help="folder of the training data")],
        kind: Annotated[str, typer.Option(help="cells or fields")] = "cells",
        data: Annotated[Path | None, typer.Option(help="folder of the real data; default: DOPAINT_DATA")] = None,
        encoder: Annotated[Path | None, typer.Option(help="encoder folder; adds the compound vectors")] = None,
        share: Annotated[float, typer.Option(help="of the wells, held out")] = 0.2,
        seed: Annotated[int, typer.Option(min=0, help="which wells")] = 1,
    ) -> None:
        """Make training data of BBBC021's real single cells or fields, whole wells of it held out."""
        with doors():
            from service.bbbc021 import training_folder
            from service.benchmark_real import data_folder
            from service.simulate import encode_compounds

            with progress() as bar:
                report = training_folder(data_folder(data), out, kind, share, seed, bar)
            if encoder is not None:
                encode_compounds(out, encoder)
            console.print_json(data=report)


def register(benchmark: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the command to `dopaint benchmark`."""
    console = Console()

    @benchmark.command("real-pictures")
    def real_pictures(
        model: Annotated[Path, typer.Option(help="model folder, trained on the data")],
        data: Annotated[Path, typer.Option(help="training folder, made by dopaint data bbbc021")],
        out: Annotated[Path, typer.Option(help="folder for real_pictures.json, support.csv and grid.png")],
        draws: Annotated[int, typer.Option(min=1, help="generated pictures of each held-out one")] = 2,
        steps: Annotated[int, typer.Option(min=1, help="of the sampler")] = 15,
    ) -> None:
        """Held-out denoising loss and effects of a model of real pictures, beside blind and shuffled controls."""
        with doors():
            from service.benchmark_pictures import PicturesConfig, run

            with progress() as bar:
                found = run(model, data, out, PicturesConfig(draws=draws, steps=steps), bar)
            console.print_json(data=found)
