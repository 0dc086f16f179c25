"""A place for one worker of CellProfiler: started when first needed, replaced when it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiling.engines import environment
from profiling.engines import settings as pipelines
from profiling.engines.worker_process import WorkerDied, WorkerHung, WorkerProcess

START_TIMEOUT_S = 300.0  # the first start after an installation compiles the kernels
START_ATTEMPTS = 2  # a start may fail because the machine is out of memory for a moment


class WorkerSlot:
    """Keeps a worker up. `launch` starts one; `title` names the pipeline in messages."""

    def __init__(self, launch: Callable[[], WorkerProcess], title: str) -> None:
        self._launch, self._title = launch, title
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
            CellProfilerMissing: it does not start. InvalidSettings: it cannot run the pipeline.
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
                raise environment.CellProfilerMissing(
                    f"CellProfiler does not start: {error}; reinstall it with `dopaint setup cellprofiler`"
                ) from error
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
