"""Kills workers of the job store, again and again, and counts what is lost and what is there twice.

    python tests/crash_store.py FOLDER KILLS [URL]

Each life is a forked process that does what a service does, by the same calls: submits jobs under idempotency keys,
takes over jobs whose lease ran out, claims, keeps rows in files, notes them, finishes. It is killed by SIGKILL at a
random change of persistent state; every third life has a second worker beside it that lives on. Jobs are added while
this goes on, so that there is always something to lose. In the end one life may finish. Prints one JSON line.
"""

import json
import logging
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import service.database
from service.database import Database
from service.durable import write
from service.faults import hooked
from service.job import DONE
from service.job_files import REQUEST, JobFiles
from service.leases import LeaseLost, Leases
from service.ledger import Note, row_note
from service.quota import Rules
from service.rooms import Measured
from service.store import Store

ROWS = 6
FOLDER = "control"
RULES = Rules(max_attempts=1000, max_waiting_jobs=10_000, max_waiting_jobs_per_owner=10_000, lease_s=60, heartbeat_s=1)


def store_of(data: Path, url: str | None, life: int) -> Store:
    """Leases of earlier lives have run out: the clock goes on by two leases with every life."""
    database = Database(url) if url else Database.of_file(data / "jobs.sqlite")
    return Store(database, "here", RULES, lambda: time.time() + 2 * RULES.lease_s * life)


def work(data: Path, url: str | None, life: int, jobs: int, at_most: int | None) -> None:
    """A worker's life, to its end or until it has done `at_most` rows."""
    store = store_of(data, url, life)
    leases = Leases(store, f"worker-{life}-{os.getpid()}")
    if at_most is None:
        acknowledged = {path.name for path in (data / "acknowledged").iterdir()}
        for n in range(jobs):
            if str(n) not in acknowledged:
                job, _ = store.add({"n": n}, idempotency_key=f"job-{n}", rows=ROWS, owner=f"client-{n % 3}")
                (data / f".aside-{os.getpid()}").write_text(job.id)
                os.replace(data / f".aside-{os.getpid()}", data / "acknowledged" / str(n))
    store.recover({"title": "died"})
    done = 0
    while (job := leases.claim()) is not None:
        files = JobFiles(data, job.id)
        try:
            found = [row_note(FOLDER, draw, "ok") for draw in files.draws_with_rows(FOLDER)]
            leases.plan(job.id, ROWS, "working", [Note("planned", ""), *found])
            for draw in sorted(set(range(ROWS)) - {int(note.subject[-4:]) for note in found}):
                files.save_row(FOLDER, draw, Measured(np.full((1, 2), float(draw)), ("a", "b"), ("ok",), ("",)))
                if leases.note({job.id: [row_note(FOLDER, draw, "ok")]}):
                    raise LeaseLost(job.id)
                done += 1
                if done == at_most:
                    leases.release(job.id)
                    store.close()
                    return
            files.results.mkdir(parents=True, exist_ok=True)
            write(files.results / REQUEST, b"{}", "results")
            leases.finish(job.id)
        except LeaseLost:
            continue
    store.close()


def child(act: Callable[[], None], kill_at: int | None) -> int:
    """Forks a process; its id."""
    pid = os.fork()
    if pid:
        return pid
    passed = 0

    def hook(_: str) -> None:
        nonlocal passed
        passed += 1
        if passed == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        with hooked(hook):
            act()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"child: {error!r}\n")
    finally:
        os._exit(code)


def ended(pid: int) -> bool:
    """Waits; whether the child was killed. Raises AssertionError when it failed by itself."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return True
    assert os.WEXITSTATUS(status) == 0, "a worker failed"
    return False


def main(data: Path, kills: int, url: str | None) -> dict[str, object]:
    (data / "acknowledged").mkdir(parents=True)
    service.database.SYNCHRONOUS = "OFF"  # a killed process loses nothing of what it gave to the system
    logging.disable()  # standard error is for what goes wrong
    choose = random.Random(8)
    killed = life = 0
    began = time.monotonic()
    while killed < kills:
        life += 1
        jobs = 2 + killed // 4
        victim = child(lambda jobs=jobs, life=life: work(data, url, life, jobs, None), choose.randint(1, 45))
        if life % 3 == 0:
            ended(child(lambda jobs=jobs, life=life: work(data, url, life, jobs, 5), None))
        killed += ended(victim)
    jobs = 2 + killed // 4
    assert not ended(child(lambda: work(data, url, life + 1, jobs, None), None))
    return {"kills": killed, "lives": life, "seconds": round(time.monotonic() - began, 1), **counted(data, url, jobs)}


def counted(data: Path, url: str | None, jobs: int) -> dict[str, object]:
    """What is lost, and what is there twice."""
    store = store_of(data, url, 0)
    lost = double = 0
    found = []
    cursor: str | None = None
    while True:
        page = store.page(limit=500, cursor=cursor)
        found += page.jobs
        cursor = page.next
        if cursor is None:
            break
    by_key = Counter(job.idempotency_key for job in found)
    double += sum(n - 1 for n in by_key.values())
    lost += sum(f"job-{n}" not in by_key for n in range(jobs))
    acknowledged = {path.read_text() for path in (data / "acknowledged").iterdir()}
    lost += len(acknowledged - {job.id for job in found})
    for job in found:
        events = store.events(job.id, 0, 100_000)
        rows = Counter(event.data["draw"] for event in events if event.kind == "row")
        files = JobFiles(data, job.id)
        lost += ROWS - len(rows) + (job.state != DONE) + (len(files.draws_with_rows(FOLDER)) < ROWS)
        lost += not files.complete
        double += sum(n - 1 for n in rows.values()) + (sum(event.kind == DONE for event in events) != 1)
        double += job.done != ROWS or job.total != ROWS
        lost += [event.number for event in events] != list(range(1, len(events) + 1))
    store.close()
    return {"jobs": len(found), "lost": lost, "double": double}


if __name__ == "__main__":
    found = main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    sys.stdout.write(json.dumps(found) + "\n")
