"""The job store and its ledger: leases, exactly-once, shares, idempotency, what is refused, what a restart finds."""

import sqlite3
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
import sqlalchemy as sa

from service.database import JOBS, Database
from service.errors import (
    Damaged,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    QueueFull,
    QuotaExceeded,
    StorageFull,
)
from service.job import CANCELLED, DONE, EXPIRED, FAILED, QUEUED, RUNNING
from service.leases import LeaseLost, Leases
from service.ledger import Note, row_note
from service.quota import OwnerRules, Rules
from service.store import Store

RULES = Rules(max_waiting_jobs=50, max_waiting_jobs_per_owner=40, lease_s=60.0, heartbeat_s=10.0, max_attempts=3)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a database in a PostgreSQL server of the tests' own."""
    if reason := postgres_server.why_not():
        pytest.skip(reason)
    with postgres_server.server() as url:
        yield postgres_server.fresh_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    if request.param == "sqlite":
        made = Store(tmp_path / "jobs.sqlite", "here", RULES, clock)
    else:
        made = Store(Database(request.getfixturevalue("postgres")), uuid.uuid4().hex, RULES, clock)
    yield made
    made.close()


@pytest.fixture
def in_sqlite(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "jobs.sqlite")
    yield made
    made.close()


def test_a_job_from_its_request_to_its_end(store: Store, clock: Clock) -> None:
    job, created = store.add({"smiles": ["CCO"]}, owner="ann", rows=4)
    assert created
    assert (job.state, job.owner, job.request, job.rows) == (QUEUED, "ann", {"smiles": ["CCO"]}, 4)
    leases = Leases(store, "w")
    clock.now += 5
    taken = leases.claim()
    assert taken is not None
    assert (taken.id, taken.state, taken.attempts, taken.started) == (job.id, RUNNING, 1, 1005.0)
    assert leases.claim() is None
    leases.plan(job.id, 4, "painting", [Note("planned", "")])
    leases.note({job.id: [Note("picture", "control/0000"), row_note("control", 0, "ok")]}, {job.id: "measuring"})
    assert (store.get(job.id).done, store.get(job.id).total, store.get(job.id).stage) == (2, 4, "measuring")
    leases.finish(job.id, size=77, expires=5000.0)
    ended = store.get(job.id)
    assert (ended.state, ended.done, ended.bytes, ended.expires) == (DONE, 4, 77, 5000.0)
    assert [one.kind for one in store.events(job.id)] == ["queued", "running", "planned", "picture", "row", "done"]
    assert [one.number for one in store.events(job.id)] == [1, 2, 3, 4, 5, 6]
    assert [one.number for one in store.events(job.id, after=4)] == [5, 6]


def test_nothing_is_counted_twice(store: Store) -> None:
    key = store.add({}, rows=2)[0].id
    leases = Leases(store, "w")
    leases.claim()
    notes = [row_note("control", 0, "ok"), row_note("control", 1, "ok"), row_note("control", 0, "ok")]
    for _ in range(3):
        assert leases.note({key: notes}) == set()
    assert store.get(key).done == 2
    assert store.counts(key) == {("row", "control"): 2}


def test_two_threads_with_the_same_rows_count_them_once(store: Store) -> None:
    key = store.add({}, rows=2)[0].id
    leases = Leases(store, "w")
    leases.claim()
    notes = [row_note("control", i, "ok") for i in range(12)]
    threads = [
        threading.Thread(target=lambda: [leases.note({key: [one]}) for one in notes], daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(key).done == 12
    numbers = [one.number for one in store.events(key)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_lease_that_ran_out_goes_to_another_and_the_first_changes_nothing_more(store: Store, clock: Clock) -> None:
    key = store.add({}, rows=2)[0].id
    first, second = Leases(store, "first"), Leases(store, "second")
    first.claim()
    clock.now += 50
    assert first.heartbeat() == 1
    clock.now += 50
    assert store.recover({}) == 0  # the heartbeat kept it
    clock.now += 20
    assert store.recover({}) == 1
    assert second.claim() is not None
    assert first.heartbeat() == 0
    assert first.note({key: [row_note("control", 0, "ok")]}) == {key}
    for act in (
        lambda: first.finish(key),
        lambda: first.fail(key, {}),
        lambda: first.release(key),
        lambda: first.plan(key, 2, "", []),
        lambda: first.progress(key, 1, 2, ""),
    ):
        with pytest.raises(LeaseLost):
            act()
    assert store.counts(key) == {}
    second.finish(key)
    assert store.get(key).state == DONE


def test_a_job_that_kills_its_worker_without_progress_fails_and_one_with_progress_goes_on(store: Store) -> None:
    killer, slow = (store.add({}, rows=9)[0].id for _ in range(2))
    for attempt in range(1, 4):
        leases = Leases(store, f"w{attempt}")
        assert {one.id for one in (leases.claim(), leases.claim()) if one is not None} == {killer, slow}
        leases.note({slow: [row_note("control", attempt, "ok")]})
        store.recover({"title": "died"}, all_of_place=True)
        assert store.get(slow).state == QUEUED
    assert store.get(killer).state == FAILED
    assert store.get(killer).problem == {"title": "died"}
    assert [one.kind for one in store.events(killer)].count("failed") == 1
    assert store.get(slow).done == 3


def test_a_stop_does_not_count_as_an_attempt(store: Store) -> None:
    key = store.add({}, rows=1)[0].id
    for i in range(5):
        leases = Leases(store, f"w{i}")
        leases.claim()
        leases.release(key)
    assert (store.get(key).attempts, store.get(key).state) == (0, QUEUED)


def test_the_client_with_the_fewest_active_jobs_comes_first(store: Store) -> None:
    for _ in range(3):
        store.add({}, owner="greedy")
    late = store.add({}, owner="late")[0]
    leases = Leases(store, "w")
    first = leases.claim()
    assert first is not None
    assert first.owner == "greedy"
    second = leases.claim({"greedy": 1})
    assert second == store.get(late.id)
    assert leases.claim({"greedy": RULES.max_active_jobs_per_owner, "late": 1}) is None


def test_an_idempotency_key_gives_the_first_job(store: Store) -> None:
    first, created = store.add({"n": 1}, owner="ann", idempotency_key="k")
    again, created_again = store.add({"n": 1}, owner="ann", idempotency_key="k")
    other, created_other = store.add({"n": 1}, owner="bob", idempotency_key="k")
    assert (created, created_again, created_other) == (True, False, True)
    assert first == again
    assert other.id != first.id
    with pytest.raises(IdempotencyConflict):
        store.add({"n": 2}, owner="ann", idempotency_key="k")
    assert store.find("ann", "k") == first
    assert store.find("ann", "unknown") is None


def test_what_is_refused_and_when_to_come_back(tmp_path: Path) -> None:
    rules = Rules(
        max_waiting_jobs=3,
        max_waiting_jobs_per_owner=2,
        max_rows_waiting=100,
        max_disk_bytes=1000,
        max_disk_bytes_per_owner=600,
    )
    store = Store(tmp_path / "jobs.sqlite", rules=rules)
    store.add({}, owner="ann", rows=10)
    store.add({}, owner="ann", rows=10)
    with pytest.raises(QuotaExceeded, match="2 of your jobs") as mine:
        store.add({}, owner="ann", retry_after_s=7.0)
    assert mine.value.retry_after_s == 7.0
    store.add({}, owner="ann", owner_rules=OwnerRules(max_waiting_jobs=9))
    with pytest.raises(QueueFull, match="3 jobs are waiting"):
        store.add({}, owner="bob")
    leases = Leases(store, "w")
    for _ in range(3):
        leases.claim()
    with pytest.raises(QueueFull, match="pictures"):
        store.add({}, owner="bob", rows=90)
    with pytest.raises(QuotaExceeded, match="bytes"):
        store.add({}, owner="bob", size=601)
    store.add({}, owner="bob", size=600)
    with pytest.raises(StorageFull, match="all results"):
        store.add({}, owner="eve", size=500)
    used = store.used("bob")
    assert (used.jobs_waiting, used.jobs_running, used.bytes) == (1, 0, 600)
    store.close()


def test_pages_newest_first_without_gap_or_repeat(store: Store) -> None:
    keys = [store.add({}, owner="ann" if i % 2 else "bob")[0].id for i in range(11)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = store.page(limit=3, cursor=cursor)
        found += [job.id for job in page.jobs]
        if page.next is None:
            break
        cursor = page.next
    assert found == keys[::-1]
    assert [job.id for job in store.page("ann").jobs] == keys[1::2][::-1]
    assert store.page("eve").jobs == ()
    assert len(store.page(states=(QUEUED,), kind="prediction").jobs) == 11
    for bad in ("x", "-1", "9" * 30, "", "１"):
        with pytest.raises(NotFound):
            store.page(cursor=bad)


def test_of_another_client_nothing_is_found(store: Store) -> None:
    key = store.add({}, owner="ann")[0].id
    assert store.get(key, "ann").id == key
    for owner in ("bob", ""):
        with pytest.raises(NotFound):
            store.get(key, owner)


def test_cancel_expire_and_forget(store: Store, clock: Clock) -> None:
    key, other = (store.add({}, rows=1)[0].id for _ in range(2))
    leases = Leases(store, "w")
    leases.claim()
    assert store.cancel(key, expires=2000.0).state == CANCELLED
    assert leases.note({key: [row_note("control", 0, "ok")]}) == {key}
    assert store.cancel(key).state == CANCELLED
    assert [one.kind for one in store.events(key)][-1] == "cancelled"
    assert store.due((CANCELLED, DONE, FAILED), 1999.0) == []
    assert store.due((CANCELLED, DONE, FAILED), 2001.0) == [key]
    store.expire(key)
    store.expire(other)  # still waits: nothing happens
    assert (store.get(key).state, store.get(other).state) == (EXPIRED, QUEUED)
    store.forget(key)
    with pytest.raises(NotFound):
        store.get(key)
    assert store.events(key) == []


def test_two_folders_in_one_database_do_not_see_each_other(tmp_path: Path) -> None:
    one = Store(Database.of_file(tmp_path / "jobs.sqlite"), "one")
    two = Store(Database.of_file(tmp_path / "jobs.sqlite"), "two")
    key = one.add({})[0].id
    with pytest.raises(NotFound):
        two.get(key)
    assert Leases(two, "w").claim() is None
    assert two.page().jobs == ()
    two.recover({}, all_of_place=True)
    two.forget(key)
    assert one.get(key).state == QUEUED
    one.close()
    two.close()


def test_a_changed_record_is_noticed(in_sqlite: Store, tmp_path: Path) -> None:
    store = in_sqlite
    key = store.add({"smiles": ["CCO"]})[0].id
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.execute("UPDATE jobs SET request = replace(request, 'CCO', 'CCN')")
    connection.close()
    with pytest.raises(Damaged, match="damaged"):
        store.get(key)


def test_a_full_database_is_storage_full_and_keeps_what_it_had(in_sqlite: Store) -> None:
    store = in_sqlite
    key = store.add({"text": "x" * 1000})[0].id
    with store.database.write("limit the file") as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        store.add({"text": "x" * 100_000})
    assert store.get(key).state == QUEUED
    assert store.database.check() is None
    with store.database.write("limit the file") as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert store.add({"text": "x" * 100_000})[1]


def test_a_database_that_is_locked_is_refused_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.database.BUSY_S", 0.05)
    store = Store(tmp_path / "jobs.sqlite")
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Damaged, match="locked") as refused:
        store.add({})
    assert refused.value.retry_after_s
    other.execute("ROLLBACK")
    other.close()
    assert store.add({})[1]
    store.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "no url", "postgresql+nobody://x/y"])
def test_a_database_that_is_not_supported_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="database"):
        Database(url)


def test_states_are_counted(store: Store) -> None:
    store.add({})
    store.cancel(store.add({})[0].id)
    assert store.by_state() == {QUEUED: 1, RUNNING: 0, DONE: 0, FAILED: 0, CANCELLED: 1, EXPIRED: 0}
    assert set(store.known().values()) == {QUEUED, CANCELLED}


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    key = store.add({}, rows=2)[0].id
    leases = Leases(store, "w")
    leases.claim()

    def broken() -> None:
        with store.database.write("broken") as connection:
            connection.execute(JOBS.update().where(JOBS.c.id == key).values(done=7))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert store.get(key).done == 0
    with store.database.read() as connection:
        mine = sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.place == store.place)
        assert connection.scalar(mine) == 1
