"""The engine room yields to the HTTP doors: a question for the status of a job is answered while pictures are made."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

NICE = 5  # above the service's own


def yield_to_the_doors() -> None:
    """Lowers the priority of this thread, and of the threads and processes that it will start (on Linux)."""
    with suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICE))
