"""Files at an address: whole or not at all, on a disk, in memory and on S3; the same results on all of them."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.ask import BatchRequest
from service.batch.drive import run
from service.batch.inline import InlineExecutor
from service.batch.room import FAKE, FakeBatchRoom
from service.batch.store import StorageError, Store

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # sockets of the server's threads and of s3fs's own loop, which end with the process
    "ignore::DeprecationWarning:botocore",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
ROOM = FakeBatchRoom()


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, object]]:
    """Options of an S3 server on loopback with an empty bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="screens")
    client.close()
    yield {"endpoint_url": address, "key": "x", "secret": "x"}
    server.stop()


def check_store(store: Store) -> None:
    assert not store.has("a/b.txt")
    assert store.names("a") == []
    store.put("a/b.txt", b"one")
    store.put("a/b.txt", b"two")
    store.put("a/c.txt", b"three")
    assert store.get("a/b.txt") == b"two"
    assert store.names("a") == ["b.txt", "c.txt"]
    store.remove("a/b.txt")
    store.remove("a/b.txt")
    assert store.names("a") == ["c.txt"]
    with pytest.raises(StorageError, match="cannot be read"):
        store.get("a/b.txt")


def test_a_folder(tmp_path: Path) -> None:
    check_store(Store(str(tmp_path / "new" / "folder")))


def test_memory() -> None:
    check_store(Store("memory://somewhere"))


def test_s3(s3: dict[str, object]) -> None:
    check_store(Store("s3://screens/store", s3))


def test_an_unknown_address_is_refused() -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        Store("nowhere://x")


def test_a_write_that_is_cut_short_leaves_the_earlier_file(tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    def stop(what: str, name: str) -> None:
        if what == "aside":
            raise Stopped

    Store(str(tmp_path)).put("plan/a", b"whole")
    with pytest.raises(Stopped):
        Store(str(tmp_path), on_state=stop).put("plan/a", b"half")
    store = Store(str(tmp_path))
    assert store.get("plan/a") == b"whole"
    assert store.names("plan") == ["a"]
    (left,) = [path for path in (tmp_path / "plan").iterdir() if path.name != "a"]
    store.sweep("plan")  # its writer, this process, lives
    assert left.exists()
    dead = left.rename(left.with_name(left.name.replace(f".{os.getpid()}.", ".999999999.")))
    elsewhere = dead.with_name(".a.another-machine.999999999.tmp")
    elsewhere.write_bytes(b"")  # whose writer cannot be asked
    store.sweep("plan")
    assert sorted((tmp_path / "plan").iterdir()) == [elsewhere, tmp_path / "plan" / "a"]


def test_results_are_the_same_on_s3_and_on_a_disk_also_when_it_goes_on(tmp_path: Path, s3: dict[str, object]) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCO\nnot\nCCN\nCCCCO\n")
    request = BatchRequest(model=FAKE, draws=2, part=2, pictures="preview")

    class Stopped(BaseException):
        pass

    def stop(what: str, name: str) -> None:
        if name == "effects/part-000001.parquet" and what == "placed":
            raise Stopped

    folder, bucket = Store(str(tmp_path / "out")), Store("s3://screens/run", s3)
    with pytest.raises(Stopped), InlineExecutor(ROOM) as executor:
        run(source, request, Store("s3://screens/run", s3, on_state=stop), executor, room=ROOM)
    assert not bucket.has("manifest.json")
    for store in (folder, bucket):
        with InlineExecutor(ROOM) as executor:
            run(source, request, store, executor, room=ROOM)
    here = {
        path.relative_to(tmp_path / "out").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    there = {name: hashlib.sha256(bucket.get(name)).hexdigest() for name in here}
    assert here == there
    assert len(here) > 12
