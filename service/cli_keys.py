"""`dopaint keys`: who may ask a service that listens beyond this machine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from service.keys import Keys

Data = Annotated[Path, typer.Option(help="data folder of the service; its keys.json is changed")]
File = Annotated[Path | None, typer.Option("--keys", help="another file of keys")]


def register(app: typer.Typer, doors: Callable[[], AbstractContextManager[None]], console: Console) -> None:
    """Adds the commands to the application."""
    keys_app = typer.Typer(no_args_is_help=True, help="Keys of a service that listens beyond this machine.")
    app.add_typer(keys_app, name="keys")

    @keys_app.command("add")
    def add(
        name: Annotated[str, typer.Argument(help="whose key it is")],
        data: Data = Path("runs/service"),
        file: File = None,
        per_minute: Annotated[int, typer.Option(min=0, help="requests a minute; 0: no limit")] = 600,
        pictures_a_day: Annotated[int, typer.Option(min=0, help="pictures a day; 0: no limit")] = 0,
    ) -> None:
        """Make a key and print it, once: only its hash is kept."""
        with doors():
            _, text = _keys(data, file).add(name, per_minute=per_minute, pictures_a_day=pictures_a_day)
            console.print(text, soft_wrap=True, highlight=False, markup=False)

    @keys_app.command("list")
    def list_(data: Data = Path("runs/service"), file: File = None) -> None:
        """Print the keys: id, name, state, requests a minute, pictures a day, when made."""
        with doors():
            for one in _keys(data, file).all():
                made = datetime.fromtimestamp(one.created, UTC).strftime("%Y-%m-%d")
                state = "active" if one.revoked is None else "revoked"
                limits = f"{one.per_minute or 'unlimited'}/min, {one.pictures_a_day or 'unlimited'} pictures/day"
                console.print(f"{one.id}  {state}  {made}  {limits}  {one.name}", soft_wrap=True, highlight=False)

    @keys_app.command("revoke")
    def revoke(
        which: Annotated[str, typer.Argument(help="its id or name")],
        data: Data = Path("runs/service"),
        file: File = None,
    ) -> None:
        """Shut a key out; a running service knows at once."""
        with doors():
            gone = _keys(data, file).revoke(which)
            console.print(f"revoked {gone.id} ({gone.name})", soft_wrap=True, highlight=False)


def _keys(data: Path, file: Path | None) -> Keys:
    from service.keys import Keys as Opened

    return Opened(file or data / "keys.json")
