"""Runs a service with a fake machine room and kills it: at the k-th change of persistent state, and starts it again.

    python tests/crash_service.py FOLDER [EVERY]

A client that acts by the real protocol (idempotency keys, its own notes of what was acknowledged) wants three things:
job A done, job B cancelled, job C done and then deleted. For every EVERY-th k the process is killed by SIGKILL at point
k, then started again and left alone. In the end there must be what the uninterrupted service leaves: job A's files
byte for byte, every picture in the ledger once, nothing of C, and no stray file. What lay finished when the process
died must not have been painted again. Prints one JSON line.

Children are forked, so that the imports are paid for once; the parent starts no thread.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import service.database
import service.durable
from service.errors import NotFound
from service.fake import FakeRoom
from service.faults import hooked
from service.jobs import Desk
from service.quota import Rules
from service.store import CANCELLED, DONE, Store

A = {"smiles": ["CCCCO", "not-a-smiles"], "draws": 3, "seed": 1, "allow_simulated": False}
B = {"smiles": ["CCCCN"], "draws": 200, "seed": 2, "allow_simulated": False}
C = {"smiles": ["CCCN"], "draws": 1, "seed": 3, "allow_simulated": False}
RULES = Rules(max_attempts=5, min_free_bytes=1)
PATIENCE_S = 120.0


class Killed(Exception):
    """What a child must not end with."""


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def client(desk: Desk, notes: Path) -> None:
    """Goes on with what was not acknowledged yet."""

    def once(step: str, act: object) -> None:
        if not (notes / step).exists():
            (notes / ".aside").write_text(str(act()))  # type: ignore[operator]
            os.replace(notes / ".aside", notes / step)

    def told(step: str) -> str:
        return (notes / step).read_text()

    once("a", lambda: desk.submit(A, idempotency_key="a").job.id)
    once("a is done", lambda: wait(desk, told("a")))
    once("b", lambda: desk.submit(B, idempotency_key="b").job.id)
    once("b is cancelled", lambda: desk.cancel(told("b")).state)
    once("c", lambda: desk.submit(C, idempotency_key="c").job.id)
    once("c is done", lambda: wait(desk, told("c")))
    with suppress(NotFound):  # the service died after it had deleted, before it could say so
        once("c is gone", lambda: desk.delete(told("c")))


def wait(desk: Desk, key: str) -> str:
    until = time.monotonic() + PATIENCE_S
    while not desk.get(key).ended:
        if time.monotonic() > until:
            raise Killed(f"job {key} never ended: {desk.get(key)}")
        time.sleep(0.005)
    return desk.get(key).state


def serve(data: Path, notes: Path, room: FakeRoom, kill_at: int | None, report: Path) -> None:
    """One life of the service. Writes what it painted, and the points it passed."""
    passed: list[str] = []
    painted = Counter[str]()
    lock = threading.Lock()
    paint = room.paint

    def counted(vector, rows, tick):  # type: ignore[no-untyped-def]
        painted.update(f"{compound}/{seed}" for compound, seed in zip(rows["compound"], rows["seed"], strict=True))
        return paint(vector, rows, tick)

    room.paint = counted  # type: ignore[method-assign]

    def hook(name: str) -> None:
        with lock:
            passed.append(name)
            if len(passed) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    with hooked(hook), Desk(data, lambda: room, rules=RULES) as desk:
        while desk.trouble() is None and not ready(desk):
            time.sleep(0.005)
        client(desk, notes)
    report.write_text(json.dumps({"points": passed, "painted": painted}))


def ready(desk: Desk) -> bool:
    try:
        desk.room()
    except ValueError:
        return False
    return True


def life(data: Path, notes: Path, room: FakeRoom, kill_at: int | None, report: Path) -> bool:
    """A child; whether it came to its end."""
    report.unlink(missing_ok=True)
    notes.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            serve(data, notes, room, kill_at, report)
            code = 0
        except BaseException as error:
            sys.stderr.write(f"child: {error!r}\n")
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL or kill_at is None:
            raise Killed(f"a child ended by signal {os.WTERMSIG(status)}")
        return False
    if os.WEXITSTATUS(status) != 0:
        raise Killed(f"a child failed, kill point {kill_at}")
    return True


def finished_rows(data: Path) -> int:
    return len(list((data / "work").glob("*/rows/*/[0-9]*.row")))


def what_is_left(data: Path, notes: Path) -> dict[str, object]:
    """Everything a client could see, and every file; ids are replaced by the client's names."""
    a, b = (notes / "a").read_text(), (notes / "b").read_text()
    store = Store(data / "jobs.sqlite")
    jobs = {job.id: job for job in store.page(limit=100).jobs}
    events = Counter((event.kind, event.data.get("folder"), event.data.get("draw")) for event in store.events(a))
    numbers = [event.number for event in store.events(a)]
    left = {
        "states": {"a": jobs[a].state, "b": jobs[b].state, "others": sorted(set(jobs) - {a, b})},
        "units": (jobs[a].done, jobs[a].total),
        "ledger": {
            str(key): n for key, n in sorted(events.items(), key=str) if key[0] in ("picture", "row", "molecule")
        },
        "numbers": numbers == list(range(1, len(numbers) + 1)),
        "a": digests(data / "results" / a),
        "stray": sorted(
            path.relative_to(data).as_posix().replace(a, "A").replace(b, "B")
            for path in data.rglob("*")
            if path.is_file() and "results" not in path.parts and not path.name.startswith(("jobs.sqlite", "owner"))
        ),
        "results": sorted(path.name.replace(a, "A").replace(b, "B") for path in (data / "results").glob("*")),
    }
    store.close()
    return left


def main(folder: Path, every: int) -> dict[str, object]:
    service.database.SYNCHRONOUS = "OFF"  # a killed process loses nothing of what it gave to the system
    service.durable.os.fsync = lambda _: None  # type: ignore[assignment]
    logging.disable()  # standard error is for what goes wrong
    room = FakeRoom()
    room.reference()
    report = folder / "report.json"
    life(folder / "whole" / "data", folder / "whole" / "notes", room, None, report)
    whole = what_is_left(folder / "whole" / "data", folder / "whole" / "notes")
    points: list[str] = json.loads(report.read_text())["points"]
    assert whole["states"] == {"a": DONE, "b": CANCELLED, "others": []}, whole["states"]
    assert whole["units"][0] == whole["units"][1], whole["units"]  # type: ignore[index]
    lives = lost = double = differ = repainted = 0
    names: set[str] = set()
    for k in range(1, len(points) + 1, every):
        place = folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        data, notes = place / "data", place / "notes"
        if life(data, notes, room, k, report):
            break  # this life had fewer points
        lives += 1
        names.add(points[k - 1])
        rows, a_done = finished_rows(data), (notes / "a is done").exists()
        a_complete = any((data / "results").glob("*/request.json"))
        life(data, notes, room, None, report)
        left = what_is_left(data, notes)
        again = json.loads(report.read_text())["painted"]
        repainted += sum(n > 1 for n in again.values())
        wanted = 2 * 3 - rows if not (a_done or a_complete) else None
        seeds_of_a = seeds(data, notes)
        painted_a = sum(int(key.split("/")[1]) in seeds_of_a for key in again)
        if wanted is not None and painted_a > wanted:
            double += 1
            sys.stderr.write(f"k={k} {points[k - 1]}: {rows} rows were finished, {painted_a} painted again\n")
        lost += left["ledger"] != whole["ledger"] or left["a"].keys() != whole["a"].keys()  # type: ignore[union-attr]
        if left != whole:
            differ += 1
            for key in whole:
                if left[key] != whole[key]:
                    sys.stderr.write(f"k={k} {points[k - 1]}: {key}: {left[key]} != {whole[key]}\n")
    return {
        "points": len(points),
        "names": len(set(points)),
        "killed": lives,
        "killed_at_names": len(names),
        "lost": lost,
        "double": double + repainted,
        "differ": differ,
    }


def seeds(data: Path, notes: Path) -> set[int]:
    """Seeds of job A's rows, from its result."""
    import pandas as pd

    file = data / "results" / (notes / "a").read_text() / "control" / "profiles.parquet"
    return {int(seed) for seed in pd.read_parquet(file, columns=["Metadata_seed"])["Metadata_seed"]}


if __name__ == "__main__":
    found = main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    sys.stdout.write(json.dumps(found) + "\n")
