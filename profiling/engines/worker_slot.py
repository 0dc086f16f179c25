"""A place for one worker: started when first needed, replaced when it was stopped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from profiling.engines import settings as pipelines
from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess

START_TIMEOUT_S = 300.0  # the first start after an installation compiles the kernels
START_ATTEMPTS = 2  # a start may fail because the machine is out of memory for a moment
#: What a worker of ours needs in its environment: one thread for every library that would start more.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerSlot:
    """Keeps a worker up. `launch` starts one; `title` names the pipeline in messages.

    missing: raised with the reason and `remedy` where a worker does not start.
    """

    def __init__(
        self, launch: Callable[[], WorkerProcess], title: str, missing: type[Exception], what: str, remedy: str
    ) -> None:
        self._launch, self._title, self.missing, self._what, self._remedy = launch, title, missing, what, remedy
        self.worker: WorkerProcess | None = None
        self._hello: dict[str, Any] | None = None
        self.has_been_up = False

    def start(self) -> WorkerProcess:
        """The worker, started if there is none; it may not be ready yet."""
        if self.worker is None:
            self.worker, self._hello = self._launch(), None
        return self.worker

    def ready(self) -> tuple[WorkerProcess, dict[str, Any]]:
        """The worker and what it said of itself, once it is up.

        Raises:
            `missing`: it does not start. InvalidSettings: it cannot run the pipeline.
        """
        for attempt in range(START_ATTEMPTS):
            worker = self.start()
            if self._hello is not None:
                return worker, self._hello
            try:
                hello, _ = worker.receive(START_TIMEOUT_S)
            except (WorkerDied, WorkerHung) as error:
                self.stop()
                if attempt + 1 < START_ATTEMPTS:
                    continue
                raise self.missing(f"{self._what} does not start: {error}; {self._remedy}") from error
            if "refused" in hello:
                self.stop()
                raise pipelines.InvalidSettings(f"settings: {self._title} cannot be run here: {hello['refused']}")
            self._hello, self.has_been_up = hello, True
        assert self._hello is not None
        return self.start(), self._hello

    def stop(self) -> None:
        """Ends the worker now, if there is one."""
        if self.worker is not None:
            self.worker.kill()
            self.worker = self._hello = None


def module(name: str, config: Mapping[str, Any]) -> WorkerProcess:
    """A worker that is a module of ours, in this interpreter's environment, with one thread a library."""
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    variables = dict.fromkeys(ONE_THREAD, "1") | {"PYTHONPATH": path.rstrip(os.pathsep)}
    return WorkerProcess([sys.executable, "-m", name, json.dumps(config)], dict(os.environ) | variables)
