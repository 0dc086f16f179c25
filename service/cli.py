"""The command `dopaint`. Every verb parses its arguments, calls one function of the library and prints what it gave.

Exit codes: 0 done, 1 failed, 2 refused (an argument, a SMILES, a missing model). A refusal is one line on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from service import (
    benchmark_real,
    cli_batch,
    cli_benchmark,
    cli_claim,
    cli_data,
    cli_embedders,
    cli_keys,
    cli_ldm,
    cli_molecules,
    cli_profiles,
    cli_real_pictures,
    profile,
    setup,
)
from service.errors import EXIT_FAILED, EXIT_REFUSED, fault_of, is_ours, sentence
from service.request import FAILED, INVALID, Outcome

app = typer.Typer(
    name="dopaint",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From a SMILES to Cell Painting pictures, profiles and mechanisms under do(compound).",
)
setup_app = typer.Typer(no_args_is_help=True, help="Install what needs an environment of its own.")
benchmark_app = typer.Typer(
    no_args_is_help=True, help="Measure the shipped model and the estimators against known truth."
)
app.add_typer(setup_app, name="setup")
app.add_typer(benchmark_app, name="benchmark")

out_console = Console()
error_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

Model = Annotated[str, typer.Option(help="a model folder, or a name below models/")]
Seed = Annotated[int, typer.Option(min=0, help="determines contexts and noise")]
Out = Annotated[Path, typer.Option(help="folder for the results")]
Json = Annotated[Path | None, typer.Option(help="write the numbers there, JSON")]
AllowSimulated = Annotated[
    bool, typer.Option("--allow-simulated", help="call mechanisms of molecules the simulated world knows nothing of")
]


@app.command()
def predict(
    smiles: Annotated[list[str], typer.Argument(help="one or more SMILES", metavar="SMILES...")],
    out: Out = Path("out"),
    draws: Annotated[int, typer.Option(help="pictures of each compound, 1 to 1000")] = 16,
    seed: Seed = 1,
    allow_simulated: AllowSimulated = False,
    abstain: Annotated[bool, typer.Option("--abstain", help="call no mechanism outside the model's domain")] = False,
    context: Annotated[
        list[str] | None, typer.Option(help="a source, batch or plate to draw from; repeat for more, default: all")
    ] = None,
    model: Model = "simulation-128",
    engine: Annotated[str, typer.Option(help="the measuring engine")] = "cellprofiler",
) -> None:
    """Paint molecules, measure the pictures and rank their mechanisms; writes a result folder for each."""
    with _doors():
        from service.engine import predict as run
        from service.errors import INVALID_SMILES
        from service.show import notes, table

        with _progress() as progress:
            outcomes = run(
                smiles,
                model=model,
                draws=draws,
                seed=seed,
                engine=engine,
                out=out,
                allow_simulated=allow_simulated,
                abstain=abstain,
                contexts=context or (),
                progress=progress,
            )
        used = [one for one in outcomes if one.answer is not None]
        if used:
            out_console.print(table(used))
            for line in notes([one.answer for one in used if one.answer is not None]):
                out_console.print(line, soft_wrap=True, highlight=False)
            out_console.print(f"results: {out}", soft_wrap=True, highlight=False)
        if code := _complain(outcomes, INVALID_SMILES.exit_code):
            raise typer.Exit(code)


def _complain(outcomes: list[Outcome], refused: int) -> int:
    """One line for each molecule that was refused or failed; the exit code."""
    code = 0
    for one in outcomes:
        if one.outcome in (INVALID, FAILED):
            place = f", character {one.position}" if one.position else ""
            error_console.print(
                f"dopaint: SMILES {one.index + 1} ({_short(one.input)}) {one.reason}{place}: {one.sentence}"
            )
            code = refused if one.outcome == INVALID else code or EXIT_FAILED
    return code


def _short(text: str, most: int = 40) -> str:
    return ascii(text if len(text) <= most else text[:most] + "...")


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Option(help="settings, TOML; default: the shipped configs/service/service.toml")
    ] = None,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one")] = None,
    model: Annotated[str | None, typer.Option(help="a model folder, or a name below models/")] = None,
    data: Annotated[Path | None, typer.Option(help="folder of the job store and the results")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="measuring processes")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="certificate chain, PEM; with --tls-key")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its private key, PEM")] = None,
    log_format: Annotated[str | None, typer.Option(help="plain, or json with request ids")] = None,
    auth: Annotated[str | None, typer.Option(help="auto: keys beyond loopback; required: always")] = None,
) -> None:
    """Serve the HTTP API and the page until interrupted. Beyond loopback keys are asked for (`dopaint keys`)."""
    with _doors():
        from service.serve import run
        from service.settings import load

        settings = load(
            config,
            host=host,
            port=port,
            model=model,
            data=str(data) if data else None,
            engine_workers=workers,
            tls_cert=str(tls_cert) if tls_cert else None,
            tls_key=str(tls_key) if tls_key else None,
            log_format=log_format,
            auth=auth,
        )
        run(settings, lambda url: out_console.print(f"dopaint serves {url} (interrupt to stop)", highlight=False))


@app.command()
def demo(
    exit_: Annotated[
        bool, typer.Option("--exit", help="end when the answers are there; the default without a terminal")
    ] = False,
    draws: Annotated[int, typer.Option(min=1, max=1000, help="pictures of each compound")] = 16,
    out: Out = Path("out/demo"),
    model: Model = "simulation-128",
) -> None:
    """Start the service, ask it about three molecules and show what it predicts."""
    with _doors():
        from service.demo import run

        run(out_console, draws=draws, out=out, model=model, stay=False if exit_ else None)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="a recipe, e.g. configs/ldm/small.toml")],
    out: Out,
    data: Annotated[Path | None, typer.Option(help="training data; default: DOPAINT_DATA")] = None,
    start_from: Annotated[Path | None, typer.Option(help="folder of trained weights to begin with")] = None,
) -> None:
    """Train what the recipe describes; a stopped run goes on where it was."""
    with _doors():
        from service.training import train as run

        out_console.print(f"trained: {run(config, data, out, start_from)}", soft_wrap=True, highlight=False)


@app.command()
def simulate(
    out: Out,
    config: Annotated[Path | None, typer.Option(help="default: the shipped configs/simulation/train.toml")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 2,
    encoder: Annotated[
        Path | None, typer.Option(help="encoder folder; adds the compound vectors that training needs")
    ] = None,
) -> None:
    """Paint the training set of the simulated world."""
    with _doors():
        from service.simulate import encode_compounds
        from service.simulate import simulate as run

        with _progress() as progress:
            rows = run(out, config, workers=workers, progress=lambda done, total: progress(done, total, "painting"))
        if encoder is not None:
            encode_compounds(out, encoder)
        out_console.print(f"{len(rows)} simulated fields: {out}", soft_wrap=True, highlight=False)


@app.command()
def reference(
    model: Model = "simulation-128",
    config: Annotated[Path | None, typer.Option(help="default: the shipped configs/service/reference.toml")] = None,
    workers: Annotated[int, typer.Option(min=1, help="measuring processes")] = 2,
) -> None:
    """Make the reference library of a model with this engine, and put it into the model's folder."""
    with _doors():
        from service.engine import make_reference

        with _progress() as progress:
            made = make_reference(
                model,
                config,
                workers=workers,
                progress=progress,
            )
        out_console.print_json(data=made.manifest["counts"])


@app.command()
def version() -> None:
    """Print the version."""
    from service.version import __version__

    out_console.print(__version__, highlight=False)


@setup_app.command("cellprofiler")
def setup_cellprofiler(
    target: Annotated[
        Path | None, typer.Option(help="where to make the environment; default: .venv-cellprofiler")
    ] = None,
) -> None:
    """Install the real CellProfiler 4 into an environment of its own."""
    with _doors():
        from service.setup import cellprofiler

        out_console.print(f"CellProfiler is in {cellprofiler(target)}", soft_wrap=True, highlight=False)


@benchmark_app.command("gate")
def benchmark_gate(
    model: Model = "simulation-128",
    out: Json = None,
    engine: Annotated[str, typer.Option(help="fast or cellprofiler")] = "fast",
    truth: Annotated[
        Path | None, typer.Option(help="folder that keeps the measured truth; the next model's gate reads it there")
    ] = None,
    draws: Annotated[
        list[str] | None, typer.Option(help="pictures at each end of a factor's pairs, as well=32; repeat for more")
    ] = None,
) -> None:
    """Does the model use what it is given? The gate on compound, source, batch and well, with its negative controls."""
    with _doors():
        from service.benchmark_gate import run
        from service.gate import with_draws

        config = with_draws(draws or ())
        with _progress() as progress:
            numbers = run(model, out, config, progress, engine=engine, truth_in=truth)
        out_console.print_json(data=numbers)


@benchmark_app.command("unseen")
def benchmark_unseen(
    model: Model = "simulation-128",
    out: Json = None,
    draws: Annotated[int, typer.Option(min=1, max=1000, help="pictures of each compound")] = 8,
) -> None:
    """Rank the true mechanism of drugs the model has never seen, beside what structure alone says."""
    with _doors():
        from service.benchmark_unseen import run

        with _progress() as progress:
            numbers = run(model, out, draws=draws, progress=progress)
        out_console.print_json(data=numbers)


@benchmark_app.command("causal")
def benchmark_causal(
    out: Annotated[Path, typer.Option(help="folder for causal.csv, causal.json and the figure causal.svg")] = Path(
        "out/causal"
    ),
    quick: Annotated[bool, typer.Option(help="fewer worlds: half a minute, too noisy for a verdict")] = False,
) -> None:
    """Bias, error and coverage of the estimators in worlds whose truth is known."""
    with _doors():
        from service.benchmark_causal import run
        from service.show import plain_table

        with _progress() as progress:
            numbers = run(out, quick, progress)
        columns = ["study", "setting", "estimator", "bias", "rmse", "coverage", "wanted", "holds"]
        out_console.print(plain_table(numbers[columns], "Estimators against known truth (simulation)"))
        out_console.print(f"table and figure: {out}", soft_wrap=True, highlight=False)


@contextmanager
def _doors() -> Iterator[None]:
    """Turns a refusal of any room into one line and its exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except ValueError as error:
        if not is_ours(type(error)) and fault_of(error).code == "internal":
            raise
        error_console.print(f"dopaint: {sentence(error)}")
        raise typer.Exit(fault_of(error).exit_code or EXIT_REFUSED) from error


cli_profiles.register(app, _doors, out_console)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr where that is a terminal; told (done, total, what is being done)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        yield lambda done, total, stage: bar.update(task, completed=done, total=total, description=stage)


benchmark_real.register(benchmark_app, _doors, _progress)
profile.register(app, _doors)
setup.register(setup_app, _doors)
cli_molecules.register(app, benchmark_app, _doors, _progress)
cli_data.register(app, _doors, _progress)
cli_keys.register(app, _doors, out_console)
cli_ldm.register(app, benchmark_app, _doors, _progress)
cli_embedders.register(app, benchmark_app, _doors, _progress)
cli_claim.register(benchmark_app, _doors, _progress)
cli_real_pictures.register(benchmark_app, _doors, _progress)
cli_benchmark.register(benchmark_app, _doors, _progress)
cli_batch.register(app, _doors, out_console)
