"""Keys, limits and signed links: who gets in, how often, and what a link opens."""

import json
import os
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from service.cli_keys import register
from service.errors import InvalidRequest, NotFound, TooMany
from service.keys import DamagedKeys, Key, Keys
from service.limits import Buckets, Usage
from service.signed import Signer, secret_of


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


# ----------------------------------------------------------------------------------------------------------------------
# Keys.


def test_a_key_is_shown_once_and_found_by_its_text_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    made, text = keys.add("lab 7", per_minute=30, pictures_a_day=500)
    assert keys.find(text) == made
    stored = (tmp_path / "keys.json").read_text()
    assert text.rsplit("_", 1)[1] not in stored
    assert text not in stored
    assert os.stat(tmp_path / "keys.json").st_mode & 0o077 == 0
    for wrong in ("", "dopaint_", text[:-1], text + "A", text[:-1] + ("A" if text[-1] != "A" else "B"), "x" * 5000):
        assert keys.find(wrong) is None
    other, _ = keys.add("lab 8")
    assert keys.find(text.replace(made.id, other.id)) is None, "the secret of one key with the id of another"


def test_a_revoked_key_is_out_at_once_also_for_a_running_service(tmp_path: Path) -> None:
    running, command = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    made, text = command.add("lab")
    assert running.find(text) is not None
    command.revoke("lab")
    assert running.find(text) is None
    assert not running.active(made.id)
    with pytest.raises(NotFound, match="no active key"):
        command.revoke("lab")
    command.add("lab")  # the name is free again
    assert [one.revoked is None for one in running.all()] == [False, True]


@pytest.mark.parametrize("name", ["", " lab", "a" * 65, "lab\n", "läb", "../x"])
def test_a_name_is_a_plain_word(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        Keys(tmp_path / "keys.json").add(name)


def test_one_name_has_one_key_and_limits_are_not_negative(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    keys.add("lab")
    with pytest.raises(InvalidRequest, match="has a key already"):
        keys.add("lab")
    with pytest.raises(InvalidRequest, match="per_minute"):
        keys.add("other", per_minute=-1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other", "keys": []}', '{"format": "dopaint/keys/1"}'])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(DamagedKeys, match=r"keys\.json"):
        Keys(tmp_path / "keys.json").find("dopaint_000000000000_" + "a" * 43)


# ----------------------------------------------------------------------------------------------------------------------
# Limits.


def test_a_bucket_gives_a_minute_at_once_and_then_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(clock=clock)
    for _ in range(60):
        buckets.take("a", 60)
    with pytest.raises(TooMany, match="60 requests a minute") as caught:
        buckets.take("a", 60)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    buckets.take("b", 60)  # another key has a bucket of its own
    clock.now += 3.0  # three tokens at one a second
    for _ in range(3):
        buckets.take("a", 60)
    with pytest.raises(TooMany):
        buckets.take("a", 60)
    for _ in range(1000):
        buckets.take("c", 0)  # no limit


def test_the_pictures_of_a_day_are_counted_kept_and_begin_anew(tmp_path: Path) -> None:
    clock = Clock(86_400.0 * 20_000 + 3600)
    key = Key("a" * 12, "lab", "", 0.0, pictures_a_day=100)
    usage = Usage(tmp_path / "usage.sqlite", clock)
    usage.charge(key, 60)
    with pytest.raises(TooMany, match="40 of 100 a day are left") as caught:
        usage.charge(key, 41)
    assert caught.value.retry_after_s == pytest.approx(23 * 3600)
    assert usage.today(key.id) == 60, "what is refused is not counted"
    usage.refund(key, 10)
    usage.close()
    again = Usage(tmp_path / "usage.sqlite", clock)
    again.charge(key, 50)
    assert again.today(key.id) == 100
    clock.now += 86_400
    again.charge(key, 100)
    again.close()


# ----------------------------------------------------------------------------------------------------------------------
# Signed links.

JOB = "0123456789abcdef"
PATH = f"/v1/predictions/{JOB}/"


@pytest.fixture
def signer() -> Signer:
    return Signer(b"s" * 32, lambda key: key == "a" * 12, Clock(1000.0))


def opened(signer: Signer, prefix: str, below: str, job: str = JOB) -> bool:
    return signer.opened(f"{prefix}/v1/predictions/{job}/{below}") is not None


def test_a_link_opens_its_resource_of_its_job_only(signer: Signer) -> None:
    prefix, ends = signer.link(JOB, "zarr", "a" * 12, 600)
    assert ends == 1600.0
    found = signer.opened(f"{prefix}{PATH}molecules/0/compound.zarr/0/3/1/0/0")
    assert found is not None
    assert (found.path, found.job, found.owner) == (f"{PATH}molecules/0/compound.zarr/0/3/1/0/0", JOB, "a" * 12)
    assert opened(signer, prefix, "molecules/0/control.zarr/.zattrs")
    for below in ("files.zip", "events", "molecules/0/pictures/0", "cancel", "molecules/0/compound.zarr/../../x", ""):
        assert not opened(signer, prefix, below), below
    assert not opened(signer, prefix, "molecules/0/compound.zarr/.zattrs", "f" * 16)


def test_files_opens_everything_that_is_read_and_nothing_that_changes(signer: Signer) -> None:
    prefix, _ = signer.link(JOB, "files", "", 600)
    for below in ("files.zip", "events", "molecules/0/pictures", "molecules/3/pictures/12", "molecules/0/settling"):
        assert opened(signer, prefix, below), below
    for below in ("cancel", "links", "molecules", "molecules/0/pictures/%2e%2e/x", "..", "molecules/0/../../x"):
        assert not opened(signer, prefix, below), below


def test_a_link_ends_and_falls_with_its_key() -> None:
    clock, active = Clock(1000.0), {"a" * 12}
    signer = Signer(b"s" * 32, active.__contains__, clock)
    prefix, _ = signer.link(JOB, "zip", "a" * 12, 5)
    clock.now = 1059.9  # 60 s is the shortest
    assert opened(signer, prefix, "files.zip")
    clock.now = 1060.0
    assert not opened(signer, prefix, "files.zip")
    prefix, ends = signer.link(JOB, "zip", "a" * 12, 10**9)
    assert ends == 1060.0 + 86_400
    active.clear()
    assert not opened(signer, prefix, "files.zip")


def test_no_character_of_a_token_may_change(signer: Signer) -> None:
    prefix, _ = signer.link(JOB, "zip", "", 600)
    for i in range(len("/s/"), len(prefix)):
        other = "1" if prefix[i] != "1" else "2"
        assert not opened(signer, prefix[:i] + other + prefix[i + 1 :], "files.zip"), i
    assert not opened(Signer(b"t" * 32, lambda _: True, Clock(1000.0)), prefix, "files.zip")


def test_the_secret_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    first = secret_of(tmp_path)
    assert len(first) == 32
    assert secret_of(tmp_path) == first
    assert os.stat(tmp_path / "links.secret").st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["links.secret"]


def test_keys_outlive_a_round_trip(tmp_path: Path) -> None:
    Keys(tmp_path / "keys.json").add("lab", per_minute=7)
    document = json.loads((tmp_path / "keys.json").read_text())
    assert document["format"] == "dopaint/keys/1"
    assert [one["per_minute"] for one in document["keys"]] == [7]


def test_keys_by_command(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app, nullcontext, Console(width=200))
    data = ["--data", str(tmp_path)]
    runner = CliRunner()
    made = runner.invoke(app, ["keys", "add", "lab 7", "--per-minute", "9", *data])
    assert made.exit_code == 0, made.output
    key = Keys(tmp_path / "keys.json").find(made.output.strip())
    assert key is not None
    assert (key.name, key.per_minute) == ("lab 7", 9)
    listed = runner.invoke(app, ["keys", "list", *data]).output
    assert f"{key.id}  active" in listed
    assert "9/min" in listed
    assert made.output.strip().rsplit("_", 1)[1] not in listed
    assert "revoked" in runner.invoke(app, ["keys", "revoke", "lab 7", *data]).output
    assert "revoked" in runner.invoke(app, ["keys", "list", *data]).output
    assert Keys(tmp_path / "keys.json").find(made.output.strip()) is None
