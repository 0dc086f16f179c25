"""A batch from molecules to tables in one process: what is kept, what it depends on, and that no row is ever lost."""

import hashlib
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.tables import read_profiles
from service.batch.ask import BatchRequest
from service.batch.drive import Summary, forget_failed, run
from service.batch.inline import InlineExecutor
from service.batch.output import done_parts
from service.batch.room import FAKE, FakeBatchRoom
from service.batch.store import StorageError, Store
from service.errors import EngineFailure, InvalidRequest
from service.pipeline import predict_in
from service.request import Request

MOLECULES = ["CCCCO", "CCN", "OCCCC", "not-a-smiles", "", "CCCCCCCCO", "CC(=O)Oc1ccccc1C(=O)O", "c1ccccc1", "CCCCCN"]
ROOM = FakeBatchRoom()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "molecules.csv"
    path.write_text("name,smiles\n" + "".join(f"m{i},{one}\n" for i, one in enumerate(MOLECULES)))
    return path


def batch(source: Path, out: Path, room: FakeBatchRoom = ROOM, **options: object) -> Summary:
    request = BatchRequest(**({"model": FAKE, "draws": 4, "part": 3} | options))
    with InlineExecutor(room) as executor:
        return run(source, request, Store(str(out)), executor, room=room)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outcomes(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "outcomes").sort_values("row").set_index("row")


def test_every_entry_has_an_outcome_and_every_compound_its_rows(source: Path, tmp_path: Path) -> None:
    summary = batch(source, tmp_path / "out")
    assert summary.outcomes == {"duplicate": 1, "invalid": 2, "ok": 5, "out_of_domain": 1}
    table = outcomes(tmp_path / "out")
    assert table.index.tolist() == list(range(1, 10))
    assert table["name"].tolist() == [f"m{i}" for i in range(9)]
    assert table.loc[3, "of_row"] == 1
    assert set(table["draws"].dropna()) == {4}
    effects = [read_profiles(path) for path in sorted((tmp_path / "out" / "effects").iterdir())]
    assert sum(map(len, effects)) == 6
    rows = np.concatenate([one.column("Row") for one in effects]).tolist()
    assert rows == table.index[table["outcome"].isin(["ok", "out_of_domain"])].tolist()
    predictions = pd.read_parquet(tmp_path / "out" / "predictions")
    assert set(predictions["evidence"]) == {"simulation"}
    withheld = predictions[predictions["row"] == 7]
    assert len(withheld) == 1
    assert "simulated world" in withheld["withheld"].iloc[0]
    manifest = summary.manifest
    assert manifest["complete"]
    assert manifest["pictures"] == {"compounds": 24, "control": 4, "draws_saved": 0}
    for part in manifest["parts"]:
        for folder, told in part["files"].items():
            content = (tmp_path / "out" / folder / f"part-{part['part']:06d}.parquet").read_bytes()
            assert hashlib.sha256(content).hexdigest() == told["sha256"]


def test_numbers_are_those_of_predict(source: Path, tmp_path: Path) -> None:
    batch(source, tmp_path / "out")
    predict_in(ROOM, Request(("CCCCO",), 4), tmp_path / "one")
    (folder,) = (path for path in (tmp_path / "one").iterdir() if (path / "effects.parquet").is_file())
    alone = pd.read_parquet(folder / "effects.parquet").set_index("feature")
    effects = read_profiles(tmp_path / "out" / "effects" / "part-000000.parquet")
    errors = read_profiles(tmp_path / "out" / "errors" / "part-000000.parquet")
    assert effects.column("SMILES")[0] == "CCCCO"
    np.testing.assert_array_equal(effects.values[0], alone["value"][list(effects.names)])
    np.testing.assert_allclose(errors.values[0], alone["se"][list(effects.names)], rtol=1e-6)  # kept as float32
    one = pd.read_csv(folder / "predictions.csv")
    mine = pd.read_parquet(tmp_path / "out" / "predictions" / "part-000000.parquet")
    mine = mine[mine["row"] == 1].reset_index(drop=True)
    for column in ("label", "score", "low", "high", "chance", "p", "q", "rank", "called"):
        pd.testing.assert_series_equal(mine[column], one[column], check_exact=True, check_dtype=False)


def test_parts_and_neighbours_change_no_number(source: Path, tmp_path: Path) -> None:
    batch(source, tmp_path / "small", part=2)
    batch(source, tmp_path / "large", part=100)
    for table in ("effects", "errors", "predictions", "outcomes"):
        small, large = (
            pd.concat([pd.read_parquet(path) for path in sorted((tmp_path / size / table).iterdir())])
            for size in ("small", "large")
        )
        pd.testing.assert_frame_equal(small.reset_index(drop=True), large.reset_index(drop=True))


def test_more_draws_than_a_piece_holds(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCO\n")
    batch(source, tmp_path / "out", draws=75, profiles="draws")
    kept = read_profiles(tmp_path / "out" / "profiles" / "part-000000.parquet")
    assert kept.column("draw").tolist() == list(range(75))
    predict_in(ROOM, Request(("CCO",), 75), tmp_path / "one")
    (folder,) = (path for path in (tmp_path / "one").iterdir() if (path / "effects.parquet").is_file())
    np.testing.assert_array_equal(kept.values, read_profiles(folder / "profiles.parquet").values)


@pytest.mark.parametrize(("which", "files"), [("none", 0), ("preview", 2), ("all", 12)])
def test_pictures_are_kept_as_asked(tmp_path: Path, which: str, files: int) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCO\n")
    batch(source, tmp_path / "out", draws=3, pictures=which)
    assert len(list((tmp_path / "out").rglob("draw_*"))) == files  # the control's among them


def test_a_compound_that_fails_stays_alone_and_can_be_retried(source: Path, tmp_path: Path) -> None:
    bad = FakeBatchRoom(broken=("CCN",), torn=("c1ccccc1",), dead=("CCCCCN",))
    summary = batch(source, tmp_path / "out", bad)
    table = outcomes(tmp_path / "out")
    assert summary.outcomes["failed"] == 2
    assert table.loc[2, "reason"] == "internal"
    assert "pictures could be measured" in table.loc[8, "sentence"]
    assert "no draw has cells" in table.loc[9, "sentence"]
    assert table.loc[9, "without_cells"] == 4
    batch(source, tmp_path / "fine")
    assert batch(source, tmp_path / "out").pictures == 0  # a failed compound is an answer, until asked again
    assert forget_failed(Store(str(tmp_path / "out"))) == [0, 2]
    again = batch(source, tmp_path / "out")
    assert again.pictures > 0
    assert digests(tmp_path / "out") == digests(tmp_path / "fine")


def test_a_control_that_cannot_be_measured_ends_the_run(source: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="the control"):
        batch(source, tmp_path / "out", FakeBatchRoom(torn=("CS(C)=O",)))
    assert not done_parts(Store(str(tmp_path / "out")))


def test_a_file_without_a_molecule_needs_no_machine(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    source.write_text("\nnot\n\nCS(C)=O\n")
    summary = batch(source, tmp_path / "out")
    assert summary.outcomes == {"invalid": 4}
    assert summary.pictures == 0
    assert not (tmp_path / "out" / "control").exists()


class Killer:
    """Kills its process with signal 9 at the n-th state change of a store."""

    def __init__(self, at: int) -> None:
        self.at, self.states = at, 0

    def __call__(self, what: str, name: str) -> None:
        self.states += 1
        if self.states == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_run(source: Path, out: Path, request: BatchRequest, at: int) -> bool:
    """Run in a forked child that dies at state change `at`; whether it died."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with InlineExecutor(ROOM) as executor:
                run(source, request, Store(str(out), on_state=Killer(at)), executor, room=ROOM)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.fixture(scope="module")
def warm() -> None:
    ROOM.reference()  # once, for all forked children


def check_killed_everywhere(source: Path, folder: Path, request: BatchRequest) -> None:
    """Killed before the first byte of each file, when it lies aside, and when it has its name; then gone on with."""
    with InlineExecutor(ROOM) as executor:
        run(source, request, Store(str(folder / "whole")), executor, room=ROOM)
    whole = digests(folder / "whole")
    states = Killer(0)
    with InlineExecutor(ROOM) as executor:
        run(source, request, Store(str(folder / "count"), on_state=states), executor, room=ROOM)
    assert states.states == 3 * len(whole)
    for at in range(1, states.states + 1):
        out = folder / f"killed-{at}"
        assert killed_run(source, out, request, at)
        kept = done_parts(Store(str(out)))
        assert not killed_run(source, out, request, 0)
        assert digests(out) == whole, f"killed at state change {at} with parts {sorted(kept)} done"
        shutil.rmtree(out)


@pytest.mark.usefixtures("warm")
def test_killed_at_every_state_change_it_ends_the_same(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCO\nnot\nCCN\nCCO\n")
    check_killed_everywhere(source, tmp_path, BatchRequest(model=FAKE, draws=2, part=2))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("warm")
def test_forty_molecules_killed_at_every_state_change(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    good = [f"{'C' * (1 + i // 3)}{('O', 'N', 'c1ccccc1')[i % 3]}" for i in range(40)]
    good[7], good[21] = "not-a-smiles", good[3]
    source.write_text("".join(f"{one}\n" for one in good))
    check_killed_everywhere(source, tmp_path, BatchRequest(model=FAKE, draws=2, part=8))


def test_a_full_disk_is_a_refusal_and_what_is_kept_stays(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = Store._put_local, 0

    def full(self: Store, path: Path, content: bytes, name: str) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise OSError(28, "No space left on device")
        put(self, path, content, name)

    monkeypatch.setattr(Store, "_put_local", full)
    with pytest.raises(StorageError, match="No space left"):
        batch(source, tmp_path / "out")
    monkeypatch.undo()
    assert done_parts(Store(str(tmp_path / "out"))) == {0}
    batch(source, tmp_path / "out")
    batch(source, tmp_path / "whole")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"part": 0}, "part is 0"),
        ({"pictures": "some"}, "keep-pictures"),
        ({"width": -1.0}, "width"),
        ({"width": 1.0, "pilot": 9}, "pilot 9 of 4"),
    ],
)
def test_what_cannot_be_is_refused(source: Path, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        batch(source, tmp_path / "out", **options)
