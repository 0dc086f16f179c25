"""Progress of a batch in the terminal: a bar for each stage with its speed and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from service.batch.executor import GENERATE, PROFILE, STAGES

UNITS = {GENERATE: "pictures/s", PROFILE: "pictures/s"}


class Speed(ProgressColumn):
    """How many of its units a stage does in a second."""

    def render(self, task: Task) -> Text:
        """As "3.4 pictures/s"; nothing before the first."""
        unit = UNITS.get(str(task.description).strip(), "compounds/s")
        return Text(f"{task.speed:.2f} {unit}" if task.speed else "")


@contextmanager
def bars(console: Console | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for every stage on stderr where that is a terminal; told (stage, done, total)."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        tasks = {stage: shown.add_task(f"{stage:<8}", total=None) for stage in STAGES}

        def tell(stage: str, done: int, total: int) -> None:
            shown.update(tasks[stage], completed=done, total=total)

        yield tell
