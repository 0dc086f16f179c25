"""Jobs in a real PostgreSQL that the tests start: a service, its restart, kills, a server that goes away.

The store's own tests run on it too: tests/test_service_store.py.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres_server
import pytest

from service.errors import Damaged, InvalidRequest
from service.fake import FakeRoom
from service.job import DONE
from service.jobs import Desk
from service.quota import Rules
from service.store import Store

ROOM = FakeRoom()
RULES = Rules(min_free_bytes=1)
SMALL = {"smiles": ["CCCN"], "draws": 2, "seed": 1, "allow_simulated": False}

pytestmark = [
    pytest.mark.skipif(bool(postgres_server.why_not()), reason=postgres_server.why_not() or "here"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server.server() as url:
        yield url


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_service_with_its_jobs_in_postgresql_and_its_restart(server: str, tmp_path: Path) -> None:
    url = postgres_server.fresh_database(server)
    slow = FakeRoom(slow=lambda _: time.sleep(0.02))
    slow.reference = ROOM.reference  # type: ignore[method-assign]
    with Desk(tmp_path / "one", lambda: slow, rules=RULES, url=url) as desk:
        first = desk.submit(SMALL, idempotency_key="k").job.id
        until(lambda: desk.get(first).ended)
        middle = desk.submit({**SMALL, "draws": 20}).job.id
        until(lambda: desk.get(middle).done >= 4)
    assert not (tmp_path / "one" / "jobs.sqlite").exists()
    with (
        Desk(tmp_path / "one", lambda: ROOM, rules=RULES, url=url) as desk,
        Desk(tmp_path / "two", lambda: ROOM, rules=RULES, url=url) as other,  # another folder, the same database
    ):
        assert desk.get(first).state == DONE
        assert not desk.submit(SMALL, idempotency_key="k").created
        until(lambda: desk.get(middle).ended)
        kinds = [one.kind for one in desk.events(middle, limit=10_000)]
        assert (desk.get(middle).state, kinds.count("row")) == (DONE, 40)
        assert other.page().jobs == ()
        mine = other.submit(SMALL, idempotency_key="k")
        assert mine.created
        until(lambda: other.get(mine.job.id).ended)
    assert (tmp_path / "two" / "results" / mine.job.id / "request.json").is_file()


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_workers_lose_nothing_and_do_nothing_twice(server: str, tmp_path: Path, kills: int) -> None:
    url = postgres_server.fresh_database(server)
    script = Path(__file__).with_name("crash_store.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path / "store"), str(kills), url]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["kills"], found["lost"], found["double"]) == (kills, 0, 0)


def test_a_server_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="job store"):
        Desk(tmp_path, lambda: ROOM, url="postgresql+pg8000://nobody@127.0.0.1:9/none")


def test_a_server_that_goes_away_is_said_honestly(tmp_path: Path) -> None:
    from service.database import Database

    with postgres_server.server() as url:
        store = Store(Database(postgres_server.fresh_database(url)))
        key = store.add({}, rows=1)[0].id
    with pytest.raises(Damaged) as refused:
        store.get(key)
    assert refused.value.retry_after_s
    store.close()


def test_the_driver_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from service.database import Database

    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(InvalidRequest, match=r"dopaint\[postgres\]"):
        Database("postgresql+pg8000://nobody@127.0.0.1:9/none")
