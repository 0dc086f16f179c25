"""Worker processes of this machine: the same bytes as one process, also when workers or the whole run are killed."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from service.batch.ask import BatchRequest
from service.batch.drive import Summary, run
from service.batch.inline import InlineExecutor
from service.batch.local import LocalExecutor
from service.batch.machine import LocalConfig, resolved
from service.batch.output import done_parts
from service.batch.room import FAKE
from service.batch.store import Store

SMALL = LocalConfig(painters=1, profilers=2, desks=1, devices=("cpu",), pack=8, timeout_s=120.0)


def molecules(n: int) -> list[str]:
    """Different ones of all classes of the fake room, with broken ones, a duplicate and a mixture among them."""
    good = [f"{'C' * (1 + i // 3)}{('O', 'N', 'c1ccccc1')[i % 3]}" for i in range(n)]
    bad = {5: "not-a-smiles", 11: "", 17: good[2], 23: "CC(=O)[O-].[Na+]", 29: "C" * 10_000}
    return [bad.get(i, one) for i, one in enumerate(good)]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(path: Path, n: int) -> Path:
    path.write_text("".join(f"{one} m{i}\n" for i, one in enumerate(molecules(n))))
    return path


def batch(source: Path, out: Path, executor: LocalExecutor | InlineExecutor, request: BatchRequest) -> Summary:
    with executor:
        return run(source, request, Store(str(out)), executor)


def test_the_number_of_processes_is_chosen() -> None:
    assert resolved(LocalConfig(devices=("cpu",))).painters == 1
    eight = resolved(LocalConfig(devices=("cuda:0", "cuda:1"), profilers=16))
    assert (eight.painters, eight.desks) == (2, 2)


@pytest.mark.slow
def test_workers_give_the_bytes_of_one_process_and_survive_their_death(tmp_path: Path) -> None:
    source = write(tmp_path / "a.smi", 32)
    request = BatchRequest(model=FAKE, draws=9, part=8, width=0.2, pilot=3, profiles="draws", pictures="preview")
    inline = batch(source, tmp_path / "inline", InlineExecutor(), request)
    executor = LocalExecutor(SMALL)
    killed: list[int] = []

    def kill() -> None:
        """One worker of each role, when it has been at work for a moment."""
        for role in ("paint", "profile", "desk"):
            while not executor.timings.by_task.get({"desk": "finish"}.get(role, role)):
                time.sleep(0.02)
                if done.is_set():
                    return
            pid = executor.pids[role][0]
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    done = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        local = batch(source, tmp_path / "local", executor, request)
    finally:
        done.set()
        killer.join()
    assert executor.lost == len(killed) > 0
    assert local.outcomes == inline.outcomes == {"duplicate": 1, "invalid": 3, "ok": 16, "out_of_domain": 12}
    assert digests(tmp_path / "local") == digests(tmp_path / "inline")
    assert not [path for pid in killed if (path := Path(f"/proc/{pid}")).exists()]


SCRIPT = """
import sys
from pathlib import Path
from service.batch.ask import BatchRequest
from service.batch.drive import run
from service.batch.local import LocalExecutor
from service.batch.machine import LocalConfig
from service.batch.store import Store
source, out, model, draws, part = sys.argv[1:]
if __name__ == "__main__":
    executor = LocalExecutor(LocalConfig(painters=1, profilers=1, desks=1, devices=("cpu",), pack=8))
    with executor:
        run(Path(source), BatchRequest(model=model, draws=int(draws), part=int(part)), Store(out), executor)
"""


def started(repository: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_at_random(repository: Path, source: Path, out: Path, model: str, seed: int, times: int) -> int:
    """Kill the run -9 at random instants, go on each time, then let it end; returns how often it was killed."""
    chance = random.Random(seed)
    arguments = (str(source), str(out), model, "2", "4")
    begun = time.monotonic()
    whole = started(repository, *arguments[:1], f"{out}-timing", *arguments[2:])
    assert whole.communicate()[0] == b""
    lasts = time.monotonic() - begun
    killed = 0
    for _ in range(times):
        process = started(repository, *arguments)
        try:
            process.wait(chance.uniform(0.1, 0.9) * lasts)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
    last = started(repository, *arguments)
    assert last.communicate()[0] == b""
    assert last.returncode == 0
    return killed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_instants_it_ends_the_same(tmp_path: Path, repository: Path) -> None:
    """40 molecules, 2 draws, 20 kills of the whole run with its workers at work."""
    source = write(tmp_path / "a.smi", 40)
    batch(source, tmp_path / "whole", InlineExecutor(), BatchRequest(model=FAKE, draws=2, part=4))
    kill_at_random(repository, source, tmp_path / "out", FAKE, seed=1, times=20)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert digests(tmp_path / "out-timing") == digests(tmp_path / "whole")


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (thread / "children").read_text().split()]
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_interrupt_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path, repository: Path) -> None:
    source, out = write(tmp_path / "a.smi", 40), tmp_path / "out"
    words = ["batch", str(source), "--model", "fake", "--draws", "2", "--part", "4", "--out", str(out)]
    command = [sys.executable, "-c", "from service.cli import app; app()", *words, "--profilers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not done_parts(Store(str(out))) and process.poll() is None:
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "dopaint: stopped; finished parts are kept, the same command goes on\n"
    assert len(workers) >= 3
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert not (out / "manifest.json").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 3  # broken entries among them
    assert "parts were finished by an earlier run" in again.stdout
    batch(source, tmp_path / "whole", InlineExecutor(), BatchRequest(model=FAKE, draws=2, part=4))
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shipped_model_packed_with_others_killed_and_alone(tmp_path: Path, repository: Path) -> None:
    """The real network, engine and library: rows of several compounds share micro-batches, one run is killed, and the
    effects are those that `InlineExecutor` gets with other parts."""
    source = tmp_path / "a.smi"
    source.write_text("CC(=O)Oc1ccccc1C(=O)O aspirin\nnot\nCn1cnc2c1c(=O)n(C)c(=O)n2C caffeine\n")
    request = BatchRequest(draws=3, part=1)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(tmp_path / "out"), "simulation-128", "3", "1"],
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    while not done_parts(Store(str(tmp_path / "out"))) and process.poll() is None:
        time.sleep(0.1)
    process.kill()
    process.wait()
    batch(source, tmp_path / "out", LocalExecutor(SMALL), request)
    batch(source, tmp_path / "inline", InlineExecutor(), BatchRequest(draws=3, part=8))
    tables = {}
    for name in ("out", "inline"):
        for table in ("effects", "errors", "predictions", "outcomes"):
            parts = [pd.read_parquet(path) for path in sorted((tmp_path / name / table).iterdir())]
            tables[name, table] = pd.concat(parts, ignore_index=True)
    for table in ("effects", "errors", "predictions", "outcomes"):
        pd.testing.assert_frame_equal(tables["out", table], tables["inline", table])
    assert len(tables["out", "effects"]) == 2
