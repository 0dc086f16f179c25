"""What an executor is: something that takes the parts of a plan through the stages, in any order, on any machine.

An executor tells how far each stage is, and hands over every part once, when all its compounds are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from service.batch.plan import Entry, Plan
from service.batch.stages import Item
from service.batch.store import Store

CHEM, GENERATE, PROFILE, EFFECTS = "chem", "generate", "profile", "effects"
STAGES = (CHEM, GENERATE, PROFILE, EFFECTS)
Tell = Callable[[str, int], None]
"""Called with (stage, how many more are through it): pictures for generate and profile, compounds for the others."""
Sink = Callable[[int, Sequence[Entry], Mapping[int, Item]], None]
"""Takes a whole part: its number, entries, and results by entry number."""


@runtime_checkable
class Executor(Protocol):
    """See the module. Use with `with`."""

    @property
    def name(self) -> str: ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...

    def begin(self, plan: Plan, store: Store) -> None:
        """Start what is needed. Raises `ServiceError` where the model or an engine cannot be loaded."""
        ...

    def control(self, tell: Tell) -> list[Item]:
        """All measured pieces of the control."""
        ...

    def run(self, parts: Iterable[int], sink: Sink, tell: Tell) -> None:
        """Take all parts through the stages; the control's profiles are at the address."""
        ...
