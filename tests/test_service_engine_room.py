"""The engine room: packed or not, interrupted or not, the same bytes; failures stay where they belong; space, time."""

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from service.errors import EngineFailure, NotFound, QuotaExceeded, StorageFull
from service.fake import FakeRoom
from service.faults import hooked
from service.janitor import tidy
from service.job import CANCELLED, DONE, EXPIRED, FAILED, RUNNING, Job
from service.job_files import JobFiles
from service.jobs import Desk, why_not
from service.pipeline import predict_in
from service.quota import OwnerRules, Rules
from service.request import Request
from service.results import read_json

KNOWN, STRANGE = "CCCCO", "CC(=O)Oc1ccccc1C(=O)O"
ROOM = FakeRoom()  # its reference library is made once
RULES = Rules(min_free_bytes=1)


def room_of(**how: object) -> FakeRoom:
    made = FakeRoom(**how)  # type: ignore[arg-type]
    made.reference = ROOM.reference  # type: ignore[method-assign]
    return made


def request(*smiles: str, draws: int = 3, seed: int = 1, **more: object) -> dict:
    return {"smiles": list(smiles), "draws": draws, "seed": seed, "allow_simulated": False, **more}


def desk_of(data: Path, room: FakeRoom = ROOM, **how: object) -> Desk:
    return Desk(data, lambda: room, **{"rules": RULES, **how})  # type: ignore[arg-type]


def until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def ended(desk: Desk, key: str) -> Job:
    until(lambda: desk.get(key).ended)
    return desk.get(key)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_of(tmp_path / "data") as made:
        until(lambda: why_not(made) is None)
        yield made


# ----------------------------------------------------------------------------------------------------------------------
# The same bytes.


def test_jobs_of_many_clients_packed_together_have_the_bytes_of_each_alone(desk: Desk, tmp_path: Path) -> None:
    asked = [
        request(KNOWN, "not-a-smiles", STRANGE, "OCCCC", draws=5),
        request("CCCN", draws=1, seed=9),
        request("CCN", draws=33, seed=2),  # more than one chunk of the pipeline
        request("nonsense"),
        request("c1ccccc1", draws=2, contexts=["S1"], allow_simulated=True),
    ]
    keys = [desk.submit(one, owner=f"client {i}").job.id for i, one in enumerate(asked)]
    for i, (key, one) in enumerate(zip(keys, asked, strict=True)):
        assert ended(desk, key).state == DONE
        alone = Request(
            tuple(one["smiles"]), one["draws"], one["seed"], one["allow_simulated"], tuple(one.get("contexts", ()))
        )
        predict_in(ROOM, alone, tmp_path / str(i))
        assert digests(desk.folder(key)) == digests(tmp_path / str(i))
    counts = desk.counters()
    assert counts["rows_painted"] == 5 * 4 - 5 + 2 + 2 * 33 + 2 * 2
    assert counts["batch_fill"] > 0.8  # alone: 1 of 4 in the second job's batches
    assert not list((tmp_path / "data" / "work").iterdir())


def test_pictures_without_cells_and_pictures_that_cannot_be_measured_are_what_they_are_alone(tmp_path: Path) -> None:
    room = room_of(sparse=(KNOWN,), dead=("CCN",), torn=("CCCN",))
    with desk_of(tmp_path / "data", room) as desk:
        key = desk.add(request(KNOWN, "CCN", "CCCN", draws=8)).id
        ended(desk, key)
        predict_in(room, Request((KNOWN, "CCN", "CCCN"), 8), tmp_path / "alone")
        assert digests(desk.folder(key)) == digests(tmp_path / "alone")
        assert [one.outcome for one in desk.molecules(key)] == ["ok", "ok", "failed"]


def test_a_stop_in_the_middle_goes_on_from_the_last_finished_row(tmp_path: Path) -> None:
    painted: list[int] = []
    slow = room_of(slow=lambda _: (painted.append(1), time.sleep(0.02))[1])
    with desk_of(tmp_path / "data", slow) as first:
        key = first.add(request(KNOWN, draws=20)).id
        until(lambda: first.get(key).done >= 12)
    files = JobFiles(tmp_path / "data", key)
    kept = sum(len(files.draws_with_rows(folder)) for folder in ("control", "LRHPLDYGYMQRHN-UHFFFAOYSA-N"))
    assert 0 < kept < 40
    painted.clear()
    with desk_of(tmp_path / "data", slow) as second:
        assert ended(second, key).state == DONE
        kinds = [one.kind for one in second.events(key)]
        job = second.get(key)
    assert len(painted) == 40 - kept
    assert (kinds.count("row"), kinds.count("picture"), kinds.count("molecule")) == (40, 40, 2)
    assert (job.done, job.total, job.attempts) == (80, 80, 1)
    assert "released" in kinds
    predict_in(ROOM, Request((KNOWN,), 20), tmp_path / "alone")
    assert digests(tmp_path / "data" / "results" / key) == digests(tmp_path / "alone")


def test_a_damaged_row_is_made_again(tmp_path: Path) -> None:
    slow = room_of(slow=lambda _: time.sleep(0.02))
    with desk_of(tmp_path / "data", slow) as first:
        key = first.add(request(KNOWN, draws=12)).id
        until(lambda: first.get(key).done >= 8)
    rows = sorted((tmp_path / "data" / "work" / key / "rows").rglob("*.row"))
    raw = bytearray(rows[0].read_bytes())
    raw[-1] ^= 1
    rows[0].write_bytes(raw)
    rows[1].write_bytes(b"")
    with desk_of(tmp_path / "data") as second:
        assert ended(second, key).state == DONE
        assert [one.kind for one in second.events(key)].count("row") == 24
    predict_in(ROOM, Request((KNOWN,), 12), tmp_path / "alone")
    assert digests(tmp_path / "data" / "results" / key) == digests(tmp_path / "alone")


def test_rows_of_two_models_never_meet(tmp_path: Path) -> None:
    slow = room_of(slow=lambda _: time.sleep(0.02))
    with desk_of(tmp_path / "data", slow) as first:
        key = first.add(request(KNOWN, draws=50)).id
        until(lambda: first.get(key).done >= 4)
    plan = tmp_path / "data" / "work" / key / "plan.json"
    plan.write_text(plan.read_text().replace("0" * 64, "9" * 64))
    with desk_of(tmp_path / "data") as second:
        job = ended(second, key)
    assert job.state == FAILED
    assert job.problem is not None
    assert job.problem["code"] == "reference_mismatch"


# ----------------------------------------------------------------------------------------------------------------------
# What a client sees on the way.


def test_pictures_appear_while_the_job_runs_and_events_go_on_from_any_number(tmp_path: Path) -> None:
    room = room_of(slow=lambda _: time.sleep(0.02))
    with desk_of(tmp_path / "data", room) as desk:
        told: list[str] = []
        unsubscribe = desk.listen(told.append)
        key = desk.add(request(KNOWN, draws=14)).id
        until(lambda: len(desk.pictures(key)) >= 4)
        assert desk.get(key).state == RUNNING
        for one in desk.pictures(key)[:4]:
            assert one.file.is_file()
            assert one.preview.is_file()
        state = desk.molecules(key)[0]
        assert state.outcome is None
        assert 0 < state.painted <= 14
        assert {one.folder for one in desk.pictures(key)} == {"control", state.folder}  # side by side from the start
        assert desk.place(key, "control") == tmp_path / "data" / "work" / key / "control"
        until(lambda: desk.seconds_left(desk.get(key)) is not None)
        first = desk.events(key, 0, limit=5)
        assert [one.number for one in first] == [1, 2, 3, 4, 5]
        later = desk.events(key, desk.get(key).last_event, wait_s=10.0)
        assert later
        ended(desk, key)
        unsubscribe()
        assert key in told
        assert desk.place(key, "control") == desk.folder(key) / "control"
        assert len(desk.pictures(key)) == 28
        assert desk.seconds_left(desk.get(key)) is None
        with pytest.raises(NotFound):
            desk.place(key, "../x")


def test_cancelled_jobs_stop_and_leave_nothing_under_way(tmp_path: Path) -> None:
    room = room_of(slow=lambda _: time.sleep(0.01))
    with desk_of(tmp_path / "data", room) as desk:
        key = desk.add(request(KNOWN, draws=1000)).id
        until(lambda: desk.get(key).done >= 4)
        assert desk.cancel(key).state == CANCELLED
        assert desk.cancel(key).state == CANCELLED
        other = desk.add(request("CCCN", draws=1)).id
        assert ended(desk, other).state == DONE
        assert desk.events(key)[-1].kind == "cancelled"
        until(lambda: not list((tmp_path / "data" / "work").iterdir()))
        desk.delete(key)
        desk.delete(other)
        for gone in (key, other):
            with pytest.raises(NotFound):
                desk.get(gone)
        assert not list((tmp_path / "data" / "results").iterdir())
        assert not list((tmp_path / "data" / "requests").iterdir())


def test_nobody_waits_for_a_large_job_of_another(tmp_path: Path) -> None:
    room = room_of(slow=lambda _: time.sleep(0.005))
    paint, order = room.paint_rows, []

    def noted(vectors: np.ndarray, rows: pd.DataFrame, progress: object) -> np.ndarray:
        order.extend(rows["seed"])
        return paint(vectors, rows, None)

    room.paint_rows = noted  # type: ignore[method-assign,assignment]
    with desk_of(tmp_path / "data", room) as desk:
        large = desk.submit(request("CCN", "CCCN", draws=400, seed=5), owner="large").job.id
        until(lambda: desk.get(large).done >= 8)
        small = desk.submit(request(KNOWN, draws=6), owner="small").job.id
        ended(desk, small)
        assert not desk.get(large).ended
        seeds = set(pd.read_parquet(desk.folder(small) / "control" / "profiles.parquet")["Metadata_seed"])
    places = [i for i, seed in enumerate(order) if seed in seeds]
    assert len(places) == 12
    # Its 12 pictures and as many of the large job's: every second picture is the small one's.
    assert places[-1] - places[0] <= 2 * 12


def test_a_client_over_its_quota_is_refused_and_others_are_not(tmp_path: Path) -> None:
    room = room_of(slow=lambda _: time.sleep(0.05))
    rules = Rules(min_free_bytes=1, max_waiting_jobs_per_owner=2, max_active_jobs_per_owner=1)
    mine = {"vip": OwnerRules(max_waiting_jobs=10, weight=3.0)}
    with desk_of(tmp_path, room, rules=rules, rules_for=lambda owner: mine.get(owner, OwnerRules())) as desk:
        keys = [desk.submit(request(KNOWN, draws=50), owner="ann").job.id]
        until(lambda: desk.get(keys[0]).state == RUNNING)
        keys += [desk.submit(request(KNOWN, draws=50), owner="ann").job.id for _ in range(2)]
        with pytest.raises(QuotaExceeded) as refused:
            desk.submit(request(KNOWN), owner="ann")
        assert refused.value.retry_after_s
        assert refused.value.retry_after_s >= 1
        assert desk.submit(request(KNOWN), owner="bob").created
        assert [desk.submit(request(KNOWN), owner="vip").created for _ in range(4)] == [True] * 4
        assert desk.used("ann").jobs_waiting == 2
        assert len(list((tmp_path / "requests").glob("*.json"))) == 8  # nothing is left of the refused one


# ----------------------------------------------------------------------------------------------------------------------
# What goes wrong.


def test_a_row_that_breaks_its_batch_spoils_only_its_molecule(tmp_path: Path) -> None:
    room = room_of()
    paint = room.paint_rows

    def sometimes(vectors: np.ndarray, rows: pd.DataFrame, progress: object) -> np.ndarray:
        if (rows["compound"] == "WGCNASOHLSPBMP-UHFFFAOYSA-N").any():
            raise MemoryError("not enough memory for this batch")
        return paint(vectors, rows, None)

    room.paint_rows = sometimes  # type: ignore[method-assign,assignment]
    with desk_of(tmp_path, room) as desk:
        bad = desk.submit(request("OCC=O", draws=3), owner="a").job.id  # glycolaldehyde: the key above
        good = desk.submit(request(KNOWN, draws=3), owner="b").job.id
        assert ended(desk, good).state == DONE
        assert ended(desk, bad).state == DONE
        assert desk.molecules(good)[0].outcome == "ok"
        state = desk.molecules(bad)[0]
        assert (state.outcome, state.reason) == ("failed", "internal")
        assert desk.get(bad).done == desk.get(bad).total


def test_a_molecule_that_cannot_be_encoded_fails_alone(tmp_path: Path) -> None:
    with desk_of(tmp_path, room_of(broken=("CCN",))) as desk:
        key = desk.add(request(KNOWN, "CCN", draws=3)).id
        assert ended(desk, key).state == DONE
        assert [one.outcome for one in desk.molecules(key)] == ["ok", "failed"]


def test_a_control_that_cannot_be_measured_fails_the_job_and_says_why(tmp_path: Path) -> None:
    with desk_of(tmp_path, room_of(torn=("CS(C)=O",))) as desk:
        key = desk.add(request(KNOWN, draws=3)).id
        job = ended(desk, key)
        assert job.state == FAILED
        assert job.problem is not None
        assert job.problem["code"] == "engine_failure"
        assert desk.events(key)[-1].data["problem"] == job.problem
        until(lambda: not (tmp_path / "work" / key).exists())


def test_an_engine_that_breaks_while_measuring_fails_only_what_it_measured(tmp_path: Path) -> None:
    room = room_of()
    measure = room.measure

    def sometimes(pictures: np.ndarray, tick: object) -> object:
        if pictures.max() == 1.0:
            raise EngineFailure("the worker ran out of memory")
        return measure(pictures, lambda _: None)

    room.measure = sometimes  # type: ignore[method-assign,assignment]
    room._torn = ("CCN",)
    with desk_of(tmp_path, room) as desk:
        key = desk.add(request("CCN", KNOWN, draws=4)).id
        assert ended(desk, key).state == DONE
        states = desk.molecules(key)
        assert [one.outcome for one in states] == ["failed", "ok"]
        assert "out of memory" in states[0].sentence


def test_a_full_disk_makes_jobs_wait_and_say_so_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine_room.RETRY_S", 0.05)
    full, refused = threading.Event(), []

    def disk(name: str) -> None:
        if full.is_set() and name.endswith("writing"):
            refused.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")

    with hooked(disk), desk_of(tmp_path / "data", room_of(slow=lambda _: time.sleep(0.02))) as desk:
        key = desk.add(request(KNOWN, draws=12)).id
        until(lambda: desk.get(key).done >= 4)
        full.set()
        until(lambda: desk.get(key).stage.startswith("waiting: no space is left"))
        assert desk.get(key).state == RUNNING
        assert "no space" in str(why_not(desk))
        with pytest.raises(StorageFull) as later:
            desk.add(request("CCCN"))
        assert later.value.retry_after_s
        full.clear()
        assert ended(desk, key).state == DONE
        assert [one.kind for one in desk.events(key)].count("row") == 24
        assert why_not(desk) is None
    assert refused
    predict_in(ROOM, Request((KNOWN,), 12), tmp_path / "alone")
    assert digests(tmp_path / "data" / "results" / key) == digests(tmp_path / "alone")


def test_a_disk_that_is_nearly_full_accepts_nothing(tmp_path: Path) -> None:
    with (
        desk_of(tmp_path, rules=Rules(min_free_bytes=10**18)) as desk,
        pytest.raises(StorageFull, match="nearly full"),
    ):
        desk.add(request(KNOWN))


# ----------------------------------------------------------------------------------------------------------------------
# Time and precision.


def test_results_expire_then_their_record_is_forgotten(tmp_path: Path) -> None:
    now = [1000.0]
    with desk_of(tmp_path, rules=Rules(min_free_bytes=1, keep_s=100.0, forget_s=50.0), clock=lambda: now[0]) as desk:
        key = desk.add(request("CCCN", draws=1)).id
        assert ended(desk, key).state == DONE
        desk._store.clock = lambda: now[0]
        expires = desk.get(key).expires
        assert expires is not None
        assert tidy(desk._store, tmp_path, desk.rules, expires - 1) == []
        assert tidy(desk._store, tmp_path, desk.rules, expires + 1) == [key]
        assert desk.get(key).state == EXPIRED
        assert desk.events(key)[-1].kind == "expired"
        assert not desk.folder(key).exists()
        tidy(desk._store, tmp_path, desk.rules, expires + 51)
        with pytest.raises(NotFound):
            desk.get(key)


def test_as_many_draws_as_a_wanted_precision_needs(desk: Desk) -> None:
    def answer_of(half_width: float, draws: int) -> dict:
        key = desk.add(request("CCCN", draws=draws, precision={"half_width": half_width})).id
        job = ended(desk, key)
        assert job.done == job.total
        folder = desk.folder(key) / desk.molecules(key)[0].folder
        answer = dict(read_json(folder / "predictions.json"))
        n = answer["precision"]["draws"]
        assert answer["draws"]["requested"] == n
        assert len(list((folder / "pictures").glob("*.tiff"))) == n
        assert len(pd.read_parquet(folder / "profiles.parquet")) == n
        return dict(answer["precision"])

    rough = answer_of(50.0, 100)
    assert (rough["draws"], rough["pilot"], rough["reached"]) == (16, 16, True)
    fine = answer_of(rough["half_width"] / 1.5, 100)
    assert 36 <= fine["draws"] <= 37  # the width over 1.5: 2.25 times the pilot
    assert fine["reached"]
    assert fine["half_width"] == pytest.approx(rough["half_width"] / 1.5, rel=0.02)
    most = answer_of(rough["half_width"] / 100, 20)
    assert (most["draws"], most["reached"]) == (20, False)
