"""Fair batches: full ones, everybody's share by weight, nobody starved, nothing twice."""

import queue
import threading
from collections import Counter
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from service.batching import FairQueue, batches
from service.meter import Meter


def items(name: str, n: int) -> list[tuple[str, int]]:
    return [(name, i) for i in range(n)]


def test_a_batch_is_full_though_no_job_could_fill_it() -> None:
    rows: FairQueue[tuple[str, int]] = FairQueue()
    for name in "abc":
        rows.put(name, "job", items(name, 3))
    assert [len(rows.take(4)) for _ in range(3)] == [4, 4, 1]
    assert rows.take(4) == []


def test_who_comes_late_waits_for_one_round_only() -> None:
    rows: FairQueue[tuple[str, int]] = FairQueue()
    rows.put("early", "huge", items("early", 100_000))
    rows.take(8)
    rows.put("late", "small", items("late", 2))
    assert Counter(name for name, _ in rows.take(4)) == {"early": 2, "late": 2}


def test_a_second_job_of_a_client_takes_nothing_from_another_client() -> None:
    rows: FairQueue[tuple[str, int]] = FairQueue()
    for i in range(9):
        rows.put("many", f"job {i}", items(f"many {i}", 100))
    rows.put("one", "job", items("one", 100))
    taken = Counter(name.split()[0] for name, _ in rows.take(100))
    assert taken == {"many": 50, "one": 50}


def test_shares_follow_the_weights() -> None:
    rows: FairQueue[tuple[str, int]] = FairQueue()
    for name, weight in (("half", 0.5), ("one", 1.0), ("three", 3.0)):
        rows.put(name, "job", items(name, 10_000), weight)
    taken = Counter(name for _ in range(100) for name, _ in rows.take(9))
    assert taken == {"half": 100, "one": 200, "three": 600}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    batch=st.integers(1, 16),
)
def test_everything_is_given_out_once_in_its_jobs_order_and_shares_are_even(sizes: list[int], batch: int) -> None:
    rows: FairQueue[tuple[str, int]] = FairQueue()
    for i, n in enumerate(sizes):
        rows.put(str(i), "job", items(str(i), n))
    seen: list[tuple[str, int]] = []
    while some := rows.take(batch):
        seen += some
        got = Counter(name for name, _ in seen)
        waiting = [got[str(i)] for i, n in enumerate(sizes) if got[str(i)] < n]
        assert not waiting or max(waiting) - min(waiting) <= 1  # of those who still wait none is a turn ahead
    for i, n in enumerate(sizes):
        assert [number for name, number in seen if name == str(i)] == list(range(n))


def test_rows_are_made_when_they_are_taken() -> None:
    made: list[int] = []

    def rows_of() -> Iterator[int]:
        for i in range(10**9):
            made.append(i)
            yield i

    rows: FairQueue[int] = FairQueue()
    rows.put("a", "job", rows_of())
    assert rows.take(3) == made == [0, 1, 2]
    rows.drop("a", "job")
    assert rows.take(3) == []
    assert rows.clients() == 0


def test_a_batch_that_is_not_full_waits_a_moment_for_others() -> None:
    rows: FairQueue[str] = FairQueue()
    rows.put("a", "job", ["a"])
    timer = threading.Timer(0.05, lambda: rows.put("b", "job", ["b"]))
    timer.start()
    assert rows.take(2, wait_s=5.0, linger_s=5.0) == ["a", "b"]
    timer.join()
    rows.put("a", "job", ["a"])
    assert rows.take(2, wait_s=5.0, linger_s=0.01) == ["a"]


def test_closing_wakes_who_waits() -> None:
    rows: FairQueue[str] = FairQueue()
    threading.Timer(0.05, rows.close).start()
    assert rows.take(1, wait_s=30.0) == []
    rows.put("a", "job", ["a"])
    assert rows.take(1) == []


def test_a_weight_must_be_positive() -> None:
    with pytest.raises(ValueError, match="weight is 0"):
        FairQueue[str]().put("a", "job", [], 0.0)


def test_a_pipe_is_emptied_in_bounded_batches_until_its_end() -> None:
    pipe: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for i in range(7):
        pipe.put(i)
    pipe.put(None)
    assert list(batches(pipe, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_rate_is_of_the_last_two_minutes() -> None:
    now = [0.0]
    meter = Meter(lambda: now[0])
    assert meter.rate() is None
    meter.rows(1000)
    now[0] = 200.0
    meter.rows(10)
    now[0] = 210.0
    assert meter.rate() == pytest.approx(1.0)
    meter.count(batches=2, slots=16)
    assert (meter.counts().batches, meter.counts().slots, meter.counts().retries) == (2, 16, 0)
