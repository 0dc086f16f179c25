"""The commands about learned representations: `dopaint embedders ...` and `dopaint benchmark representations`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]
Pairs = Annotated[list[str] | None, typer.Option(help="NAME=PATH; repeat for more")]


def register(app: typer.Typer, benchmark: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the group `embedders` and the benchmark."""
    console = Console()
    group = typer.Typer(no_args_is_help=True, help="Data for learned embedders, and adapting profiles with TRex.")
    app.add_typer(group, name="embedders")

    @group.command("screen")
    def screen(
        out: Annotated[Path, typer.Option(help="folder for the painted screen")],
        kind: Annotated[str, typer.Option(help="fluorescence or brightfield (three focal planes)")] = "fluorescence",
        moas: Annotated[int, typer.Option(min=2, help="mechanisms")] = 10,
        per_moa: Annotated[int, typer.Option(min=1, help="compounds of each in training")] = 4,
        unseen: Annotated[int, typer.Option(min=0, help="more compounds of each, in the test only")] = 1,
        wells: Annotated[int, typer.Option(min=1, help="training wells a compound, dose, time and line")] = 12,
        test_wells: Annotated[int, typer.Option(min=1, help="test wells, from batches of their own")] = 6,
        dose: Annotated[list[float] | None, typer.Option(help="µM; repeat for more, default 10")] = None,
        hours: Annotated[list[float] | None, typer.Option(help="repeat for more, default 48")] = None,
        line: Annotated[list[str] | None, typer.Option(help="cell line; repeat for more")] = None,
        dial: Annotated[float, typer.Option(min=0, max=1, help="0 randomised, 1 confounded")] = 0.5,
        seed: Annotated[int, typer.Option(min=0, help="which wells")] = 1,
    ) -> None:
        """Paint a screen with replicates over batches, and a test of batches and compounds of its own."""
        with doors():
            from service.embedder_screen import ScreenConfig, paint

            config = ScreenConfig(kind=kind, moas=moas, per_moa=per_moa, unseen=unseen, wells=wells,
                                  test_wells=test_wells, doses=tuple(dose or (10.0,)), hours=tuple(hours or (48.0,)),
                                  lines=tuple(line or ("U2OS-sim",)), dial=dial, seed=seed)  # fmt: skip
            with progress() as bar:
                rows = paint(out, config, progress=bar)
            console.print(f"{len(rows)} simulated fields: {out}", soft_wrap=True, highlight=False)

    @group.command("targets")
    def targets(
        data: Annotated[Path, typer.Option(help="a training folder")],
        engine: Annotated[str, typer.Option(help="fast, cellprofiler, random_conv or an embedder")] = "fast",
        settings: Annotated[str, typer.Option(help="pipeline, by name or path")] = "sim128",
        weights: Annotated[Path | None, typer.Option(help="folder of an embedder's weights")] = None,
        workers: Annotated[int, typer.Option(min=1, help="processes of the engine")] = 1,
    ) -> None:
        """Measure the pictures of a training folder: what PhenoProfiler is to regress."""
        with doors():
            from service.embedder_targets import write_targets
            from service.measure import Options

            with progress() as bar:
                options = Options(engine=engine, settings=settings, weights=weights, workers=workers)
                count = write_targets(data, options, bar)
            console.print(f"{count} features a picture: {data / 'targets.npy'}", soft_wrap=True, highlight=False)

    @group.command("adapt")
    def adapt(
        profiles: Annotated[Path, typer.Argument(help="a table of profiles")],
        weights: Annotated[Path, typer.Option(help="folder of a TRex adaptation")],
        out: Annotated[Path, typer.Option(help="the adapted table, parquet or CSV")],
    ) -> None:
        """Refine a table of profiles with TRex."""
        with doors():
            from service.embedder_targets import adapted

            console.print(f"{adapted(profiles, weights, out)} profiles: {out}", soft_wrap=True, highlight=False)

    @group.command("import")
    def import_(
        file: Annotated[Path, typer.Argument(help="published weights of a one-channel ViT, safetensors")],
        out: Annotated[Path, typer.Option(help="folder of the engine's weights")],
        engine: Annotated[str, typer.Option(help="dino_boc, simclr_boc, mae_boc")] = "dino_boc",
        nuclei: Annotated[str, typer.Option(help="channel that shows nuclei")] = "DNA",
        side: Annotated[int, typer.Option(min=4, help="pixels of a picture around a cell")] = 160,
        least: Annotated[float, typer.Option(help="smallest nucleus, pixels")] = 15.0,
        greatest: Annotated[float, typer.Option(help="largest nucleus, pixels")] = 60.0,
    ) -> None:
        """Bring published weights in DINO's or timm's layout into a folder that --weights reads."""
        with doors():
            from profiling.embedders.cells import CropConfig
            from profiling.embedders.published import import_vit

            crops = CropConfig(nuclei=nuclei, diameter=(least, greatest), scales=(side,), read=side)
            sizes = import_vit(file, out, engine, crops)
            console.print(f"ViT of width {sizes.dim}, depth {sizes.depth}: {out}", soft_wrap=True, highlight=False)

    @group.command("curate")
    def curate(
        table: Annotated[Path, typer.Argument(help="CSV: CHAMMI-75's 22 columns, mean, and content_... features")],
        out: Annotated[Path, typer.Option(help="CSV of the files that are left")],
        config: Annotated[Path | None, typer.Option(help="TOML with a table [curation]")] = None,
    ) -> None:
        """Choose which pictures of many studies to learn from, as CHAMMI-75 did."""
        with doors():
            from service.embedder_targets import curated
            from service.show import plain_table

            console.print(plain_table(curated(table, out, config), "What each step left"))

    @benchmark.command("brightfield")
    def brightfield(
        data: Annotated[Path, typer.Option(help="a brightfield screen of doses and times")],
        out: Annotated[Path, typer.Option(help="folder for activity.csv, beyond.csv, doses.csv, brightfield.json")],
        engine: Annotated[str, typer.Option(help="brightfield_dino, or another for a baseline")] = "brightfield_dino",
        weights: Annotated[Path | None, typer.Option(help="folder of the engine's weights")] = None,
        normalisation: Annotated[str, typer.Option(help="MAD, MAD+Harmony/FOV or fastMNN")] = "MAD+Harmony/FOV",
        settings: Annotated[str, typer.Option(help="pipeline of a measuring engine")] = "sim128",
        draws: Annotated[int, typer.Option(min=2, help="of each compound's mAP-ES")] = 1000,
        rows: Annotated[int, typer.Option(min=0, help="most rows measured; 0: all")] = 0,
        nuclei: Annotated[int, typer.Option(min=0, help="pictures whose nuclei are looked for")] = 50,
    ) -> None:
        """The brightfield paper: activity against nuclear count, mechanisms dose by dose, nuclei without labels."""
        with doors():
            from service.brightfield_evaluation import BrightfieldConfig, evaluate, write
            from service.measure import Options

            config = BrightfieldConfig(normalisation=normalisation, draws=draws, rows=rows, nuclei=nuclei)
            with progress() as bar:
                found = evaluate(
                    data, Options(engine=engine, settings=settings, weights=weights, workers=1), config, bar
                )
            console.print_json(data=write(found, out))

    @benchmark.command("representations")
    def representations(
        data: Annotated[Path, typer.Option(help="a screen, made by dopaint embedders screen")],
        out: Annotated[Path, typer.Option(help="folder for report.html, real.json and tables")] = Path("out/board"),
        engine: Annotated[list[str] | None, typer.Option(help="without weights; repeat for more")] = None,
        weights: Pairs = None,
        profiles: Pairs = None,
        trex: Annotated[list[str] | None, typer.Option(help="refine this line of the board too")] = None,
        real: Annotated[Path | None, typer.Option(help="folder of published tables: TRex on real profiles")] = None,
        rows: Annotated[int, typer.Option(min=0, help="most test rows; 0: all")] = 0,
        fit_rows: Annotated[int, typer.Option(min=10, help="most training rows for TRex")] = 600,
        subsets: Annotated[int, typer.Option(min=0, help="channel combinations beside all channels")] = 2,
        tile: Annotated[int, typer.Option(min=0, help="embedders read tiles of this side instead of cells")] = 0,
        split: Annotated[str, typer.Option(help="rows that are scored, or all")] = "test",
        left_out_by: Annotated[
            Path | None, typer.Option(help='weights whose recipe left rows out: score them with --split "left out"')
        ] = None,
        permutations: Annotated[int, typer.Option(min=1, help="shuffled labelings behind each p")] = 99,
        draws: Annotated[int, typer.Option(min=2, help="of each compound's mAP-ES")] = 1000,
        imad: Annotated[bool, typer.Option(help="IMAD of a UMAP too")] = False,
        settings: Annotated[str, typer.Option(help="pipeline of the measuring engines")] = "sim128",
        workers: Annotated[int, typer.Option(min=1, help="processes of the measuring engines")] = 1,
    ) -> None:
        """Every engine × every score, with chance, intervals, gains over untrained twins, and cost."""
        with doors():
            from service.representation_scores import ScoreConfig
            from service.representations import BoardConfig, run

            config = BoardConfig(
                engines=tuple(engine or ("random_conv",)),
                weights=pairs(weights, "weights"),
                profiles=pairs(profiles, "profiles"),
                trex=tuple(trex or ()),
                settings=settings,
                workers=workers,
                rows=rows,
                fit_rows=fit_rows,
                subsets=subsets,
                tile=tile,
                split=split,
                left_out_by=left_out_by,
                scoring=ScoreConfig(permutations=permutations, draws=draws, imad=imad),
            )
            with progress() as bar:
                page = run(data, out, config, real, bar)
            console.print(f"report: {page}", soft_wrap=True, highlight=False)


def pairs(texts: list[str] | None, option: str) -> dict[str, Path]:
    """NAME=PATH options as a dict. Raises InvalidRequest."""
    from service.errors import InvalidRequest

    made = {}
    for text in texts or []:
        name, sign, path = text.partition("=")
        if not sign or not name or not path:
            raise InvalidRequest(f"{option}: got {text!r}, expected NAME=PATH, as in dino=runs/dino/model")
        made[name] = Path(path)
    return made
