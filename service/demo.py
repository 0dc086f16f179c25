"""`dopaint demo`: start the service, POST three molecules, wait with a progress bar, show the answer."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from service.client import Client
from service.errors import EngineFailure
from service.library import library
from service.serve import bound, server_of, url_of
from service.settings import load
from service.show import answers_table, notes

KNOWN = ("AMG900", "paclitaxel")


def molecules() -> list[tuple[str, str]]:
    """Name and SMILES of AMG-900, paclitaxel and the first unseen drug of the library: one the model has never met."""
    table = library()
    unseen = table[table["split"] != "seen"].sort_values("compound").iloc[0]
    known = table.set_index(table["name"].str.lower())["smiles"]
    return [(name, str(known[name.lower()])) for name in KNOWN] + [(str(unseen["name"]), str(unseen["smiles"]))]


def run(console: Console, *, draws: int, out: Path, model: str, stay: bool | None = None) -> None:
    """The whole demonstration. `stay`: keep serving afterwards; None: only when a terminal is attached.

    Raises `EngineFailure` when the service does not start or a molecule fails.
    """
    began = time.monotonic()
    settings = load(port=0, model=model, data=str(out / "service"))
    server = server_of(settings)
    with bound(settings) as made:
        url = url_of(settings, made)
        with _running(server, made):
            console.print(f"dopaint serves {url}", highlight=False)
            answer = _ask(console, url, draws)
            _show(console, answer)
            folder = out / "results"
            _copy(Path(settings.data) / "results" / answer["id"], folder)
            console.print(f"result folders: {folder.absolute()}", soft_wrap=True, highlight=False)
            console.print(f"page: {url}#{answer['id']}", soft_wrap=True, highlight=False)
            console.print(f"took {time.monotonic() - began:.0f} s", highlight=False)
            if stay is None:
                stay = sys.stdin.isatty()
            if stay:
                console.print("serving; interrupt to stop", highlight=False)
                _until_interrupted()


@contextmanager
def _running(server: uvicorn.Server, made: Any) -> Iterator[None]:
    thread = threading.Thread(target=lambda: server.run(sockets=[made]), name="dopaint-http", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _ask(console: Console, url: str, draws: int) -> dict[str, Any]:
    names = molecules()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Client(url) as client, Progress(*columns, console=console) as bar:
        task = bar.add_task("loading the model", total=None)
        client.wait_until_ready(timeout_s=600.0)
        console.print("POST /v1/predictions: " + ", ".join(name for name, _ in names), highlight=False)
        key = client.submit([smiles for _, smiles in names], draws=draws)
        while (answer := client.get(key))["status"] in ("queued", "running"):
            now = answer["progress"]
            bar.update(task, completed=now["done"], total=now["total"] or None, description=now["stage"])
            time.sleep(0.25)
        bar.update(
            task, completed=answer["progress"]["total"], total=answer["progress"]["total"], description=answer["status"]
        )
    if answer["status"] == "failed":
        raise EngineFailure(answer["problem"]["detail"])
    return answer


def _show(console: Console, answer: dict[str, Any]) -> None:
    failed = [one for one in answer["molecules"] if one["predictions"] is None]
    if failed:
        raise EngineFailure(
            f"{len(failed)} of {len(answer['molecules'])} molecules failed, the first: {failed[0]['sentence']}"
        )
    answers = [one["predictions"] for one in answer["molecules"]]
    console.print(answers_table(answers))
    for line in notes(answers):
        console.print(line, soft_wrap=True, highlight=False)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
