"""What a training says as it runs: a bar on a terminal with pictures a second and time left; numbers to a tracker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ldm.config import ConfigError

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "aim": "aim"}


Bar = Callable[[float, float, float, float], None]
"""Told after every step: the share of the run that is done (0 to 1), pictures a second, seconds left, the loss."""


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss; "?" where there is no telling."""
    if not 0.0 <= seconds < 1e8:
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


@contextmanager
def training_bar(what: str, show: bool = True, console: Console | None = None) -> Iterator[Bar]:
    """A bar on standard error where that is a terminal; elsewhere the log lines have to do."""
    console = console or Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(what, total=1.0)

        def told(fraction: float, speed: float, left: float, loss: float) -> None:
            words = f"{what}: {speed:.0f} pictures/s, {clock(left)} left, loss {loss:.4f}"
            bar.update(task, completed=min(fraction, 1.0), description=words)

        yield told


def check_tracker(name: str) -> None:
    """Raise ConfigError for a tracker that is not known or not installed; "" is none."""
    if name and name not in TRACKERS:
        raise ConfigError(f"tracker: got {name!r}, expected one of {', '.join(TRACKERS)}, or an empty text for none")
    if name and find_spec(TRACKERS[name]) is None:
        raise ConfigError(
            f"tracker: {name} is not installed; install it (pip install {TRACKERS[name]}), or take another"
        )
