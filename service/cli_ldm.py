"""The commands about students, speed and quality: `dopaint distil`, `dopaint benchmark student`,
`dopaint benchmark sampling` and `dopaint benchmark quality`. Imports wait for use.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Doors = Callable[[], AbstractContextManager[None]]
Bar = Callable[[], AbstractContextManager[Callable[[int, int, str], None]]]


def register(app: typer.Typer, benchmark: typer.Typer, doors: Doors, progress: Bar) -> None:
    """Add the commands."""
    console = Console()

    @app.command("distil")
    def distil(
        config: Annotated[Path, typer.Argument(help="configs/ldm/distil.toml, small_decoder.toml or another")],
        out: Annotated[Path, typer.Option(help="folder for the results")],
        data: Annotated[Path | None, typer.Option(help="training data; default: DOPAINT_DATA")] = None,
        teacher: Annotated[Path | None, typer.Option(help="goes before the recipe's teacher")] = None,
    ) -> None:
        """Train a few-step student of a model, or a small decoder; a stopped run goes on where it was."""
        with doors():
            from service.training import train as run

            console.print(f"distilled: {run(config, data, out, teacher)}", soft_wrap=True, highlight=False)

    @benchmark.command("student")
    def student(
        model: Annotated[str, typer.Argument(help="folder of the student, or of a model with a small decoder")],
        teacher: Annotated[str, typer.Option(help="a model folder, or a name below models/")] = "simulation-128",
        out: Annotated[Path | None, typer.Option(help="write the numbers there, JSON")] = None,
        compounds: Annotated[int, typer.Option(min=3, help="active drugs, beside DMSO")] = 48,
        draws: Annotated[int, typer.Option(min=1, help="pictures of each; 200 rows are needed for a verdict")] = 5,
        engine: Annotated[str, typer.Option(help="fast or cellprofiler")] = "fast",
    ) -> None:
        """Does a student paint what its teacher paints? Paired rows, mechanisms, and both gates where measured."""
        with doors():
            from service.benchmark_student import StudentConfig
            from service.benchmark_student import run as judge

            with progress() as bar:
                result = judge(model, teacher, out, StudentConfig(compounds=compounds, draws=draws), bar, engine=engine)
            console.print_json(data=result)

    @benchmark.command("sampling")
    def sampling(
        model: Annotated[str, typer.Option(help="a model folder, or a name below models/")] = "simulation-128",
        out: Annotated[Path | None, typer.Option(help="write the numbers there, JSON")] = None,
        steps: Annotated[int, typer.Option(min=1, help="of the shipped model")] = 15,
        batch: Annotated[int, typer.Option(min=1, help="of the shipped model")] = 8,
        paper: Annotated[bool, typer.Option(help="time the paper's U-Net too")] = True,
        paper_steps: Annotated[int, typer.Option(min=1, help="of the paper's U-Net")] = 2,
        paper_batch: Annotated[int, typer.Option(min=1, help="of the paper's U-Net; 64 on a GPU")] = 1,
        decode_paper: Annotated[bool, typer.Option(help="decode with SDXL's shape: 2.8 TFLOP a picture")] = False,
        repeats: Annotated[int, typer.Option(min=1, help="medians are taken over these")] = 3,
        compile_: Annotated[bool, typer.Option("--compile", help="torch.compile too; CUDA graphs on a GPU")] = False,
        threads: Annotated[int, typer.Option(min=0, help="0 leaves torch's number")] = 0,
        device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    ) -> None:
        """Pictures a second, FLOP/s and its share of the matrix rate, beside stock diffusers at equal steps."""
        with doors():
            from service.benchmark_sampling import SamplingConfig, table
            from service.benchmark_sampling import run as measure
            from service.show import plain_table

            config = SamplingConfig(
                model=model,
                paper=paper,
                decode_paper=decode_paper,
                steps=steps,
                paper_steps=paper_steps,
                batch=batch,
                paper_batch=paper_batch,
                repeats=repeats,
                threads=threads,
                device=device,
                compile=compile_,
            )
            with progress() as bar:
                result = measure(config, out, bar)
            console.print(plain_table(table(result), f"Sampling on {result['device']}, {result['threads']} threads"))

    @benchmark.command("quality")
    def quality(
        model: Annotated[str, typer.Option(help="a model folder, or a name below models/")] = "simulation-128",
        out: Annotated[Path, typer.Option(help="folder for quality.json and grid.png")] = Path("out/quality"),
        data: Annotated[Path | None, typer.Option(help="training data, for memorisation")] = None,
        compounds: Annotated[int, typer.Option(min=2, help="active drugs")] = 24,
        draws: Annotated[int, typer.Option(min=1, help="pictures of each, and of DMSO")] = 6,
    ) -> None:
        """FID, KID, density, coverage, counterfactual axioms and memorisation, with an unconditional model beside."""
        with doors():
            from service.benchmark_quality import QualityConfig
            from service.benchmark_quality import run as measure

            with progress() as bar:
                result = measure(model, out, data, QualityConfig(compounds=compounds, draws=draws), bar)
            console.print_json(data=result)
