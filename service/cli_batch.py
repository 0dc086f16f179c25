"""The commands for whole libraries: `dopaint batch`, `plan`, `screen` and `expand`. Imports wait for use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from service.errors import EXIT_FAILED

if TYPE_CHECKING:
    import pandas as pd

    from service.batch import Summary

Doors = Callable[[], AbstractContextManager[None]]
Model = Annotated[str, typer.Option(help="a model folder, or a name below models/")]
Storage = Annotated[
    list[str] | None, typer.Option("--storage", help="KEY=VALUE for the address, such as endpoint_url=...; repeat")
]
Kind = Annotated[str, typer.Option(help="moa or target")]
#: Exit code of a run in which some entries were refused or failed: they are named in outcomes/.
EXIT_INCOMPLETE = 3


def register(app: typer.Typer, doors: Doors, console: Console) -> None:
    """Add the verbs."""

    def told(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    @app.command("batch")
    def batch(
        compounds: Annotated[Path, typer.Argument(help="CSV, TSV, SMILES, SDF (each also .gz) or parquet")],
        out: Annotated[str, typer.Option(help="folder or fsspec address (s3://...) of the results")],
        draws: Annotated[int, typer.Option(help="pictures of each compound, or the most of them")] = 16,
        seed: Annotated[int, typer.Option(min=0, help="determines contexts and noise")] = 1,
        adaptive: Annotated[
            float, typer.Option(help="stop a compound when its responses are known within this many control MADs")
        ] = 0.0,
        pilot: Annotated[int, typer.Option(help="adaptive: draws of every compound before the decision")] = 8,
        model: Model = "simulation-128",
        engine: Annotated[str, typer.Option(help="fast, cellprofiler or cp_measure")] = "fast",
        column: Annotated[str | None, typer.Option(help="column of the SMILES; default: the usual names")] = None,
        name_column: Annotated[str | None, typer.Option(help="column of the name; default: the usual names")] = None,
        part: Annotated[int, typer.Option(help="entries kept together in one file")] = 64,
        context: Annotated[list[str] | None, typer.Option(help="a source, batch or plate to draw from; repeat")] = None,
        allow_simulated: Annotated[
            bool, typer.Option("--allow-simulated", help="call mechanisms of molecules the simulation does not know")
        ] = False,
        abstain: Annotated[
            bool, typer.Option("--abstain", help="call no mechanism outside the model's domain")
        ] = False,
        sampler: Annotated[str | None, typer.Option(help="other than the model's: effects, no mechanisms")] = None,
        sampler_steps: Annotated[int | None, typer.Option(help="the same for the number of steps")] = None,
        keep_pictures: Annotated[str, typer.Option(help="none, preview (one PNG a compound) or all")] = "none",
        keep_profiles: Annotated[str, typer.Option(help="none, or draws: the profile of every picture")] = "none",
        executor: Annotated[str, typer.Option(help="local, ray or inline")] = "local",
        address: Annotated[str | None, typer.Option(help="ray: of the cluster; default: one of this machine")] = None,
        device: Annotated[list[str] | None, typer.Option(help="cpu, cuda:0, ...; repeat; default: every GPU")] = None,
        painters: Annotated[int, typer.Option(help="painting processes; 0: one a device")] = 0,
        profilers: Annotated[int, typer.Option(help="measuring processes; 0: one a core")] = 0,
        desks: Annotated[int, typer.Option(help="processes for vectors, effects and predictions; 0: chosen")] = 0,
        storage: Storage = None,
        shard: Annotated[str, typer.Option(help="K/N: this driver does every N-th part from K, of N drivers")] = "0/1",
        retry: Annotated[bool, typer.Option("--retry", help="do parts with failed compounds again")] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="plan and estimate; paint nothing")] = False,
        timings: Annotated[Path | None, typer.Option(help="write what the stages took there, JSON")] = None,
    ) -> None:
        """Effects and predictions of a whole library, on every GPU and core, or on a Ray cluster.

        Finished parts are kept at OUT, whole or not at all; the same command goes on where it was stopped. Ends with 0
        if every entry has an answer, 3 if some were refused or failed (see OUT/outcomes), 2 if the run was refused.
        """
        with doors():
            from service.batch.ask import BatchRequest
            from service.batch.bars import bars
            from service.batch.choose import Machine, executor_of, forecast, timings_document
            from service.batch.drive import plan as make
            from service.batch.drive import run
            from service.batch.store import Store

            request = BatchRequest(
                draws=draws,
                seed=seed,
                width=adaptive,
                pilot=pilot,
                part=part,
                model=model,
                engine=engine,
                column=column,
                name_column=name_column,
                allow_simulated=allow_simulated,
                abstain=abstain,
                contexts=tuple(context or ()),
                steps=sampler_steps,
                sampler=sampler,
                pictures=keep_pictures,
                profiles=keep_profiles,
            )
            machine = Machine(executor, address, tuple(device or ()), painters, profilers, desks)
            store = Store(out, options_of(storage))
            made, room = make(compounds, request, store)
            for line in forecast(made, machine):
                told(line)
            if dry_run:
                return
            try:
                with executor_of(machine) as chosen, bars() as report:
                    summary = run(
                        compounds, request, store, chosen, report=report, retry=retry, shard=shard_of(shard), room=room
                    )
            except KeyboardInterrupt:
                typer.echo("dopaint: stopped; finished parts are kept, the same command goes on", err=True)
                raise
            if timings is not None:
                timings.parent.mkdir(parents=True, exist_ok=True)
                timings.write_text(json.dumps(timings_document(chosen, summary), indent=1) + "\n", encoding="utf-8")
            for line in lines_of(summary, out):
                told(line)
            raise typer.Exit(exit_code(summary.outcomes))

    @app.command("plan")
    def plan(
        compounds: Annotated[int, typer.Argument(help="distinct molecules")],
        draws: Annotated[int, typer.Option(min=1, help="pictures of each compound")] = 16,
        model: Annotated[str, typer.Option(help='a model folder or name, or "paper": the paper\'s network')] = (
            "simulation-128"
        ),
        device: Annotated[str, typer.Option(help="a name of configs/service/devices.toml")] = "cpu-core",
        gpus: Annotated[int, typer.Option(min=0, help="GPUs; 0: paint on the cores")] = 0,
        cores: Annotated[int, typer.Option(min=1, help="cores in all")] = 2,
        engine: Annotated[str, typer.Option(help="fast or cellprofiler")] = "fast",
        steps: Annotated[int | None, typer.Option(help="sampler steps; default: the model's")] = None,
        bandwidth: Annotated[float, typer.Option(help="MB/s that the storage takes")] = 1000.0,
        keep_pictures: Annotated[str, typer.Option(help="none, preview or all")] = "none",
        keep_profiles: Annotated[str, typer.Option(help="none or draws")] = "none",
        timings: Annotated[Path | None, typer.Option(help="rates of a run (`dopaint batch --timings`)")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="print the numbers as JSON")] = False,
    ) -> None:
        """What a library costs: FLOP, GPU hours, core hours, wall time, storage, and which stage is the limit."""
        with doors():
            from service import cost

            shape = cost.shape_of(model, steps)
            rates = cost.rates_from(timings) if timings else cost.rates_of(shape, device, engine)
            found = cost.estimate(
                shape,
                compounds,
                draws,
                rates,
                cost.Machines(gpus, cores, bandwidth * 1e6),
                pictures_kept=keep_pictures,
                profiles_kept=keep_profiles,
            )
            if as_json:
                console.print_json(data=found.document())
                return
            for line in cost.lines(found):
                told(line)

    @app.command("screen")
    def screen(
        library: Annotated[str, typer.Argument(help="address of a finished batch, or a table of effects")],
        label: Annotated[str | None, typer.Option(help="a mechanism or target; default: the nearest of each")] = None,
        kind: Kind = "moa",
        top: Annotated[int, typer.Option(min=1, help="compounds, with --label")] = 100,
        model: Model = "simulation-128",
        out: Annotated[Path | None, typer.Option(help="table: parquet, CSV or TSV (gz too)")] = None,
        storage: Storage = None,
    ) -> None:
        """Nearest mechanisms or targets for a library, from effects computed before."""
        with doors():
            from service.library_effects import open_library
            from service.screen import nearest_labels, nearest_to_label

            reference = _reference(model)
            opened = open_library(library, options_of(storage))
            if label is None:
                found = nearest_labels(opened, reference, kind)
            else:
                found = nearest_to_label(opened, reference, label, kind, top)
            _show(found, out, console, told)

    @app.command("expand")
    def expand(
        query: Annotated[str, typer.Argument(help="a SMILES, an InChIKey, moa:NAME or target:NAME")],
        library: Annotated[str, typer.Option(help="address of a finished batch, or a table of effects")],
        by: Annotated[str, typer.Option(help="biology, structure or both")] = "both",
        top: Annotated[int, typer.Option(min=1, help="compounds")] = 50,
        model: Model = "simulation-128",
        keep_query: Annotated[bool, typer.Option("--keep-query", help="also list the query itself")] = False,
        out: Annotated[Path | None, typer.Option(help="table: parquet, CSV or TSV (gz too)")] = None,
        storage: Storage = None,
    ) -> None:
        """The compounds of a library most like a hit: by what they do to cells, by structure, or by both."""
        with doors():
            from service.expand import expand as run
            from service.library_effects import open_library

            opened = open_library(library, options_of(storage))
            _show(run(query, opened, _reference(model), by, top, keep_query), out, console, told)


def options_of(pairs: list[str] | None) -> dict[str, Any]:
    """KEY=VALUE options of an address. Raises `InvalidRequest`."""
    from service.errors import InvalidRequest

    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise InvalidRequest(f"storage: got {pair!r}, expected KEY=VALUE")
        found[key] = value
    return found


def shard_of(text: str) -> tuple[int, int]:
    """ "3/8" -> (3, 8). Raises `InvalidRequest`."""
    from service.errors import InvalidRequest

    k, sign, n = text.partition("/")
    if not (sign and k.isdigit() and n.isdigit() and int(k) < int(n)):
        raise InvalidRequest(f"shard: got {text!r}, expected K/N with K from 0 to N - 1")
    return int(k), int(n)


def exit_code(outcomes: Mapping[str, int]) -> int:
    """0 every entry has an answer, 3 some were refused or failed, 1 none has."""
    bad = outcomes.get("invalid", 0) + outcomes.get("failed", 0)
    if not bad:
        return 0
    return EXIT_INCOMPLETE if sum(outcomes.values()) > bad else EXIT_FAILED


def lines_of(summary: Summary, out: str) -> list[str]:
    """What stands on stdout after a run."""
    counts = ", ".join(f"{n} {name}" for name, n in summary.outcomes.items())
    painted = summary.manifest["pictures"]
    lines = [f"entries: {counts or 'none'}"]
    if painted["draws_saved"]:
        asked = painted["compounds"] + painted["draws_saved"]
        lines.append(f"draws saved: {painted['draws_saved']} of {asked} ({100 * painted['draws_saved'] / asked:.0f} %)")
    if not summary.manifest["complete"]:
        there = len(summary.manifest["parts"])
        lines.append(f"{there} of {summary.manifest['counts']['parts']} parts are there: other drivers have the rest")
    if summary.kept:
        lines.append(f"{summary.kept} parts were finished by an earlier run")
    if summary.pictures:
        lines.append(f"{summary.pictures} pictures in {summary.seconds:.0f} s")
    return [*lines, f"results: {out} (evidence: {summary.manifest['evidence']})"]


def _reference(model: str) -> Any:
    from service.batch.ask import BatchRequest
    from service.batch.room import FAKE, FakeBatchRoom
    from service.engine import find_model
    from service.reference import Reference

    if model == FAKE:
        return FakeBatchRoom().reference()
    return Reference.read(find_model(BatchRequest(model=model).model) / "reference")


def _show(found: pd.DataFrame, out: Path | None, console: Console, told: Callable[[str], None]) -> None:
    from profiling.tables import write_table
    from service.show import plain_table

    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_table(found, out)
        told(f"{len(found)} rows: {out}")
    else:
        console.print(plain_table(found.head(20), "Library"))
