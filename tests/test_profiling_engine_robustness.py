"""Workers that die, hang or grow: nobody else's picture is lost, order is kept, and the reason is told.

The worker here is a fake that speaks the same frames and misbehaves on cue, so that each accident happens where it is
meant to. Two accidents are repeated with the real CellProfiler in test_profiling_engine_cellprofiler.py.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiling.engines import CellProfilerEngine, CellProfilerMissing, FieldMeasurement, InvalidSettings, environment
from profiling.engines import cellprofiler as client
from profiling.engines.worker_process import WorkerProcess

FAKE = """
import importlib.util, json, os, pathlib, sys, time
import numpy as np
spec = importlib.util.spec_from_file_location("frames", {frames!r})
frames = importlib.util.module_from_spec(spec)
spec.loader.exec_module(frames)
config = json.loads(sys.argv[1])
here = pathlib.Path({folder!r})
starts = here / "starts"
with starts.open("a") as file:
    file.write("x")
started = len(starts.read_text())
if started in {broken_starts!r}:
    sys.exit("no room for a start")
if {refused!r}:
    sys.stdout.buffer.write(frames.encode({{"refused": {refused!r}}}))
    sys.exit(1)

def send(header, arrays=None):
    sys.stdout.buffer.write(frames.encode(header, arrays))
    sys.stdout.buffer.flush()

send({{"versions": {{}}, "columns": {{"Image": [], "Cells": ["id", "pid"]}}, "images": ["DNA"]}})
while True:
    prefix = sys.stdin.buffer.read(8)
    if len(prefix) < 8:
        break
    header, arrays = frames.decode(sys.stdin.buffer.read(frames.PREFIX.unpack(prefix)[0]))
    number, cue = (int(v) for v in np.rint(arrays["picture"][0, 0, :2] * 100))
    once = here / f"{{number}}.seen"
    first = not once.exists()
    once.touch()
    if cue == 1 or (cue == 2 and first):
        sys.stderr.write("a crash on purpose\\n")
        os._exit(7)
    if cue == 3 or (cue == 4 and first):
        time.sleep(600)
    if cue == 5 or (cue == 6 and first):  # in the middle of the answer
        sys.stdout.buffer.write(frames.PREFIX.pack(1000) + b"half")
        sys.stdout.buffer.flush()
        os._exit(9)
    if cue == 8:
        send({{"error": "MeasureX (module 3) raised ValueError: on purpose"}})
        continue
    memory = 5000.0 if cue == 7 else 100.0
    send({{"image_names": [], "memory_mib": memory}},
         {{"image": np.zeros(0), "values/Cells": np.array([[number, os.getpid()]], float)}})
"""

FINE, CRASH, CRASH_ONCE, HANG, HANG_ONCE, TORN, TORN_ONCE, GROWN, ERROR = range(9)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CellProfilerEngine]:
    """Makes engines whose worker is the fake."""
    frames = Path(client.__file__).parent / "cellprofiler_worker/frames.py"

    def make(workers: int = 1, broken_starts: tuple[int, ...] = (), refused: str = "") -> CellProfilerEngine:
        script = tmp_path / "fake.py"
        text = FAKE.format(frames=str(frames), folder=str(tmp_path), broken_starts=broken_starts, refused=refused)
        script.write_text(text)
        monkeypatch.setattr(client, "WORKER", script)
        return CellProfilerEngine(workers=workers, timeout_s=1.5, objects=("Cells",), venv=Path(sys.prefix))

    return make


def cued(*cues: int) -> np.ndarray:
    """Pictures that tell the fake their number and what to do."""
    pictures = np.zeros((len(cues), 1, 2, 2), np.float32)
    pictures[:, 0, 0, 0] = np.arange(len(cues)) / 100
    pictures[:, 0, 0, 1] = np.array(cues) / 100
    return pictures


def numbers(fields: list[FieldMeasurement]) -> list[int | None]:
    return [int(f.objects["Cells"].values[0, 0]) if f.outcome == "ok" else None for f in fields]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_accident_costs_its_own_picture_alone_and_order_is_kept(
    fake: Callable[..., CellProfilerEngine], workers: int
) -> None:
    cues = (FINE, CRASH, FINE, CRASH_ONCE, HANG, TORN, FINE, HANG_ONCE, TORN_ONCE, ERROR, FINE)
    done: list[int] = []
    with fake(workers) as engine:
        fields = engine.measure(cued(*cues), ["DNA"], done.append)
    assert numbers(fields) == [0, None, 2, 3, None, None, 6, 7, 8, None, 10]
    assert done == list(range(1, 12))
    assert fields[1].reason == "worker process ended with exit code 7: a crash on purpose (2 attempts)"
    assert fields[4].reason == "no answer within 1.5 s (2 attempts)"
    assert fields[5].reason == "worker process ended with exit code 9 (2 attempts)"
    assert fields[9].reason == "MeasureX (module 3) raised ValueError: on purpose"


def test_grown_worker_is_replaced_before_its_next_picture_and_its_answer_is_kept(
    fake: Callable[..., CellProfilerEngine],
) -> None:
    with fake() as engine:
        fields = engine.measure(cued(FINE, GROWN, FINE, FINE), ["DNA"])
    assert numbers(fields) == [0, 1, 2, 3]
    pids = [field.objects["Cells"].values[0, 1] for field in fields]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_start_that_fails_once_is_tried_again(fake: Callable[..., CellProfilerEngine]) -> None:
    with fake(broken_starts=(1,)) as engine:
        assert numbers(engine.measure(cued(FINE), ["DNA"])) == [0]


def test_restart_that_fails_for_good_costs_no_finished_picture(fake: Callable[..., CellProfilerEngine]) -> None:
    # The first worker dies on picture 1; no later start succeeds but the sixth.
    with fake(broken_starts=(2, 3, 4, 5)) as engine:
        fields = engine.measure(cued(FINE, CRASH_ONCE, FINE, FINE), ["DNA"])
    assert numbers(fields) == [0, None, 2, 3]
    assert "no room for a start" in fields[1].reason


def test_engine_that_never_starts_says_so(fake: Callable[..., CellProfilerEngine]) -> None:
    with fake(broken_starts=(1, 2)) as engine, pytest.raises(CellProfilerMissing, match="no room for a start"):
        engine.measure(cued(FINE), ["DNA"])


def test_refused_pipeline_is_an_error_of_the_settings(fake: Callable[..., CellProfilerEngine]) -> None:
    with (
        fake(refused="its module 4, EditObjectsManually, waits for a person") as engine,
        pytest.raises(InvalidSettings, match=r"cell_painting_128\.cppipe cannot be run here: its module 4"),
    ):
        engine.measure(cued(FINE), ["DNA"])


def test_a_worker_that_stops_reading_hangs_like_any_other(tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text("import time; time.sleep(600)")
    python = environment.interpreter(Path(sys.prefix))
    worker = WorkerProcess([str(python), str(script)], environment.worker_environment(python))
    try:
        with pytest.raises(Exception, match=r"no answer within 0\.5 s"):
            worker.send({}, {"picture": np.zeros((5, 600, 600), np.float32)}, timeout_s=0.5)  # more than a pipe holds
    finally:
        worker.kill()
