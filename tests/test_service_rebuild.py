"""A damaged job store is set aside and made again from the files: nothing that a client was told is lost."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import ServiceError
from service.fake import FakeRoom
from service.faults import hooked
from service.janitor import sweep
from service.job import CANCELLED, DONE, FAILED
from service.jobs import Desk
from service.ledger import MOLECULE
from service.quota import Rules
from service.rebuild import FIRST_NUMBER
from service.store import Store

ROOM = FakeRoom()
RULES = Rules(min_free_bytes=1)
SMALL = {"smiles": ["CCCN", "not-a-smiles"], "draws": 2, "seed": 1, "allow_simulated": False}


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def desk_of(data: Path, room: FakeRoom = ROOM) -> Desk:
    return Desk(data, lambda: room, rules=RULES)


@pytest.fixture
def stopped(tmp_path: Path) -> dict[str, str]:
    """A service that was stopped: a job that is done, one that failed, one cancelled, one in the middle."""
    slow = FakeRoom(slow=lambda _: time.sleep(0.03))
    slow.reference = ROOM.reference  # type: ignore[method-assign]
    keys: dict[str, str] = {}
    with desk_of(tmp_path, slow) as desk:
        keys["done"] = desk.submit(SMALL, owner="ann", idempotency_key="k").job.id
        keys["failed"] = desk.submit({**SMALL, "contexts": ["nowhere"]}, owner="bob").job.id
        until(lambda: desk.get(keys["done"]).ended and desk.get(keys["failed"]).ended)
        keys["middle"] = desk.submit({**SMALL, "draws": 16}, owner="ann").job.id
        keys["cancelled"] = desk.submit({**SMALL, "seed": 9}).job.id
        desk.cancel(keys["cancelled"])
        until(lambda: desk.get(keys["middle"]).done >= 6)
    return keys


def flip_pages(file: Path) -> None:
    """Zeroes in the middle of every page but the first: trees that lead nowhere."""
    raw = bytearray(file.read_bytes())
    size = int.from_bytes(raw[16:18], "big")
    assert len(raw) > 3 * size
    for page in range(1, len(raw) // size):
        raw[page * size : page * size + size // 2] = bytes(size // 2)
    file.write_bytes(raw)


def flip_a_letter(file: Path) -> None:
    """One letter of a stored request: no structure is hurt, only what it says."""
    raw = file.read_bytes()
    assert b'"CCCN"' in raw
    file.write_bytes(raw.replace(b'"CCCN"', b'"CCCO"'))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])


def overwrite(file: Path) -> None:
    file.write_bytes(b"no database " * 1000)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [flip_pages, flip_a_letter, cut, overwrite, empty, remove])
def test_after_damage_everything_is_there_again(
    tmp_path: Path, stopped: dict[str, str], damage: Callable[[Path], None]
) -> None:
    results = tmp_path / "results" / stopped["done"]
    before = {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    kept = len(list((tmp_path / "work" / stopped["middle"] / "rows").rglob("*.row")))
    damage(tmp_path / "jobs.sqlite")
    painted: list[int] = []
    counting = FakeRoom(slow=painted.append)
    counting.reference = ROOM.reference  # type: ignore[method-assign]
    with desk_of(tmp_path, counting) as desk:
        assert desk.get(stopped["done"], "ann").state == DONE
        assert desk.get(stopped["done"]).request == SMALL
        assert [one.outcome for one in desk.molecules(stopped["done"])] == ["ok", "invalid"]
        assert {path.name: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before
        failed = desk.get(stopped["failed"], "bob")
        assert failed.state == FAILED
        assert failed.problem is not None
        assert failed.problem["code"] == "unknown_name"
        assert desk.get(stopped["cancelled"]).state == CANCELLED
        again = desk.submit(SMALL, owner="ann", idempotency_key="k")
        assert (again.created, again.job.id) == (False, stopped["done"])
        until(lambda: desk.get(stopped["middle"]).ended)
        assert desk.get(stopped["middle"]).state == DONE
        assert len(painted) == 2 * 16 - kept
        rows = [one for one in desk.events(stopped["middle"], limit=10_000) if one.kind == "row"]
        assert len(rows) == 32
    if damage not in (remove, empty):
        assert (tmp_path / "jobs.sqlite.damaged-1").is_file()


def test_readers_of_a_rebuilt_ledger_get_everything_again(tmp_path: Path, stopped: dict[str, str]) -> None:
    with desk_of(tmp_path) as desk:
        last = desk.get(stopped["done"]).last_event
    remove(tmp_path / "jobs.sqlite")
    with desk_of(tmp_path) as desk:
        events = desk.events(stopped["done"], last)
        assert events[0].number == FIRST_NUMBER + 1
        assert [one.kind for one in events if one.kind in (MOLECULE, DONE)] == [MOLECULE, DONE]


def test_a_rebuilding_that_is_cut_short_is_done_again(tmp_path: Path, stopped: dict[str, str]) -> None:
    overwrite(tmp_path / "jobs.sqlite")
    points: list[str] = []

    class Cut(BaseException):
        pass

    def at(k: int) -> Callable[[str], None]:
        def hook(name: str) -> None:
            points.append(name)
            if len(points) == k:
                raise Cut

        return hook

    for k in range(1, 40, 3):
        points.clear()
        with hooked(at(k)):
            try:
                with desk_of(tmp_path):
                    break
            except Cut:
                continue
    with desk_of(tmp_path) as desk:
        assert {desk.get(key).id for key in stopped.values()} == set(stopped.values())
        assert desk.get(stopped["done"]).state == DONE


def test_damage_while_it_runs_is_said_honestly(tmp_path: Path, stopped: dict[str, str]) -> None:
    with desk_of(tmp_path) as desk:
        until(lambda: desk.get(stopped["middle"]).ended)
        with sqlite3.connect(tmp_path / "jobs.sqlite") as other:
            other.execute("UPDATE jobs SET request = '{}' WHERE id = ?", (stopped["done"],))
        other.close()
        with pytest.raises(ServiceError, match="rebuilds it when it starts again"):
            desk.get(stopped["done"])
        assert desk.get(stopped["middle"]).state == DONE
    with desk_of(tmp_path) as desk:
        assert desk.get(stopped["done"]).request == SMALL


def test_jobs_from_before_requests_had_files_are_taken_up(tmp_path: Path, stopped: dict[str, str]) -> None:
    (tmp_path / "requests" / f"{stopped['done']}.json").unlink()
    remove(tmp_path / "jobs.sqlite")
    with desk_of(tmp_path) as desk:
        job = desk.get(stopped["done"], "local")
        assert job.state == DONE
        assert job.request["smiles"] == SMALL["smiles"]


def test_files_of_no_job_are_swept_and_those_of_an_unknown_database_are_not(
    tmp_path: Path, stopped: dict[str, str]
) -> None:
    for shelf in ("requests", "work", "results"):
        (tmp_path / shelf / ("f" * 32)).mkdir()
    store = Store(tmp_path / "jobs.sqlite")
    assert sweep(store, tmp_path, 3600.0) == 0  # they are young
    assert sweep(store, tmp_path, 0.0) == 3
    store.close()
    assert (tmp_path / "results" / stopped["done"] / "request.json").is_file()
    wrong = Store(tmp_path / "other.sqlite")
    assert sweep(wrong, tmp_path, 0.0) == 0
    wrong.close()
    assert json.loads((tmp_path / "requests" / f"{stopped['done']}.json").read_text())["owner"] == "ann"
