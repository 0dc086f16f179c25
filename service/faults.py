"""Named moments at which persistent state changes, so that a test can stop the process, or fill the disk, at each one.

Nothing in the product sets a hook: without one a point costs one comparison. A hook is called with the point's name
and may raise (a full disk) or never return (a kill).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Hook = Callable[[str], None]

_hook: Hook | None = None


def point(name: str) -> None:
    """Tells the hook, if there is one, that the moment `name` has come."""
    if _hook is not None:
        _hook(name)


@contextmanager
def hooked(hook: Hook) -> Iterator[None]:
    """`hook` is called at every point of this process, in whichever thread it lies, until the block ends."""
    global _hook
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before
