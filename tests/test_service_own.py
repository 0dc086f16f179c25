"""Own pictures and own profiles: unpacked within bounds, refused where they cannot be compared, scored alike."""

import contextlib
import io
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from starlette.testclient import TestClient

from profiling.images import write_ome_tiff
from service import own_pictures, uploads
from service.app import make_app
from service.errors import InvalidRequest, ReferenceMismatch, TooLarge
from service.fake import CHANNELS, NAMES, SIZE, FakeRoom
from service.jobs import Desk
from service.serve import handlers_of
from service.settings import Settings
from service.uploads import Bounds

BOUNDS = Bounds(1_000_000, 100.0, 50, 1_000_000)
KNOWN = "CCCCO"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data = tmp_path_factory.mktemp("own")
    settings = Settings(data=str(data), engine="fake", model="fake", max_upload_bytes=300_000)
    desk = Desk(data, FakeRoom, handlers=handlers_of(settings))
    with TestClient(make_app(desk, settings), raise_server_exceptions=False) as client:
        for _ in range(600):
            if client.get("/v1/health/ready").status_code == 200:
                break
            time.sleep(0.05)
        yield client


def uploads_of(client: TestClient) -> set[str]:
    return {path.name for path in client.app.state.doors.uploads.glob("*")}


def tiff(pixels: np.ndarray, names: tuple[str, ...] = CHANNELS) -> bytes:
    path = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path("/tmp")
    file = path / f"dopaint-test-{time.monotonic_ns()}.ome.tiff"
    try:
        write_ome_tiff(file, pixels.astype(np.float32), names, annotation={"evidence": "simulation"})
        return file.read_bytes()
    finally:
        file.unlink(missing_ok=True)


def packed(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def pictures_of(client: TestClient, smiles: str, draws: int) -> tuple[dict, dict[str, bytes]]:
    answer = client.post("/v1/predictions?wait=60", json={"smiles": smiles, "draws": draws}).json()
    root = f"/v1/predictions/{answer['id']}/molecules/0/pictures"
    return answer, {
        f"{row}/{draw}.ome.tif": client.get(f"{root}/{draw}?row={row}&format=ome-tiff").content
        for row in ("compound", "control")
        for draw in range(draws)
    }


# ----------------------------------------------------------------------------------------------------------------------
# From pictures to a mechanism.


def test_pictures_of_a_prediction_sent_as_own_get_the_same_mechanism(served: TestClient) -> None:
    predicted, entries = pictures_of(served, KNOWN, 6)
    entries["control/broken.tif"] = tiff(np.zeros((5, SIZE, SIZE)))
    entries["notes/readme.tif"] = b"left aside"
    url = f"/v1/profiles?allow_simulated=true&wait=60&smiles={KNOWN}"  # in the library: scored without itself
    response = served.post(url, content=packed(entries), headers={"content-type": "application/zip"})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["status"] == "done", answer["problem"]
    result = answer["result"]
    best = predicted["molecules"][0]["predictions"]["moa"]["ranking"]
    assert [one["label"] for one in result["moa"]["ranking"]] == [one["label"] for one in best]
    # The rows differ (mean control instead of the paired one) but their mean is the same effect.
    scores = [(a["score"], b["score"]) for a, b in zip(result["moa"]["ranking"], best, strict=True)]
    assert np.allclose(*zip(*scores, strict=True), atol=1e-4)
    assert (result["n_compound"], result["n_control"], result["control"]) == (6, 6, "own")
    outcomes = {one["name"]: one["outcome"] for one in result["fields"]}
    assert len(outcomes) == 13
    assert outcomes["control/broken.tif"] == "all_black"
    effects = served.get(answer["links"]["effects"]).json()
    paired = served.get(f"/v1/predictions/{predicted['id']}/molecules/0/effects").json()
    assert np.allclose(effects["data"]["value"], paired["data"]["value"], atol=1e-3)
    assert served.get(answer["links"]["profile"] + "?format=parquet").status_code == 200
    assert served.get("/v1/profiles").json()["items"][0]["id"] == answer["id"]
    assert served.delete(f"/v1/profiles/{answer['id']}").status_code == 204
    assert served.get(f"/v1/profiles/{answer['id']}").status_code == 404


def test_without_a_word_for_it_a_simulated_library_calls_nothing(served: TestClient) -> None:
    _, entries = pictures_of(served, KNOWN, 1)
    one = entries["compound/0.ome.tif"]
    answer = served.post("/v1/profiles?wait=60", content=one, headers={"content-type": "image/tiff"}).json()
    result = answer["result"]
    assert result["moa"] == {"call": None, "reason": result["withheld"], "ranking": []}
    assert "allow_simulated" in result["withheld"]
    assert result["control"] == "of the model"
    assert any("model's own controls" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("query", "make", "status", "word"),
    [
        ("engine=other", lambda: tiff(np.full((5, SIZE, SIZE), 0.1)), 409, "engine"),
        ("", lambda: tiff(np.full((5, 8, 8), 0.1)), 409, "scale"),
        ("", lambda: tiff(np.full((2, SIZE, SIZE), 0.1), ("DNA", "ER")), 409, "channels"),
        ("channels=DNA,ER", lambda: tiff(np.full((5, SIZE, SIZE), 0.1)), 422, "pages"),
        ("channels=DNA,DNA", lambda: tiff(np.full((5, SIZE, SIZE), 0.1)), 422, "distinct"),
        ("", lambda: b"not a picture at all", 422, "neither"),
        ("", lambda: b"", 422, "empty"),
        ("", lambda: b"II*\0" + b"\xff" * 50, 422, "TIFF"),
        ("", lambda: packed({"other/x.tif": b""}), 422, "compound/"),
        ("", lambda: packed({"compound/x.tif": b"nonsense"}), 422, "TIFF"),
        ("", lambda: b"PK\x03\x04" + b"\0" * 100, 422, "zip"),
        ("", lambda: b"II*\0" + b"\0" * 400_000, 413, "bytes"),
        ("pixel_size_um=-1", lambda: tiff(np.full((5, SIZE, SIZE), 0.1)), 422, "greater than 0"),
    ],
    ids=[
        "engine",
        "scale",
        "channels",
        "pages",
        "twice",
        "text",
        "empty",
        "header",
        "no role",
        "entry",
        "zip",
        "long",
        "um",
    ],
)
def test_what_cannot_be_compared_or_read_is_refused_before_it_is_queued(
    served: TestClient, query: str, make, status: int, word: str
) -> None:
    before, kept = served.get("/v1/profiles").json()["items"], uploads_of(served)
    response = served.post(f"/v1/profiles?{query}", content=make(), headers={"content-type": "application/zip"})
    assert response.status_code == status, response.text
    assert word in response.json()["detail"]
    assert served.get("/v1/profiles").json()["items"] == before
    assert uploads_of(served) == kept, "a refused upload is not kept"


def test_another_kind_of_body_is_refused(served: TestClient) -> None:
    assert served.post("/v1/profiles", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert served.post("/v1/profiles", json={}).status_code == 415


# ----------------------------------------------------------------------------------------------------------------------
# Hostile files.


def put(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "upload"
    file.write_bytes(content)
    return file


def test_a_zip_bomb_is_stopped_while_it_is_unpacked(tmp_path: Path) -> None:
    bomb = packed({"compound/x.tif": b"\0" * 50_000_000})
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match="unpacks to more"):
        uploads.unpack(put(tmp_path, bomb), tmp_path / "out", BOUNDS)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) < 10_000_000


def test_entries_never_leave_their_folder_whatever_they_are_called(tmp_path: Path) -> None:
    names = ["../compound/a.tif", "/compound/b.tif", "compound/../../c.tif", "compound\\..\\d.tif", "x/compound/e.tif"]
    found = uploads.unpack(put(tmp_path, packed(dict.fromkeys(names, b"x"))), tmp_path / "in" / "out", BOUNDS)
    assert {path.parent for _, _, path in found} == {tmp_path / "in" / "out"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "upload"]


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    many = packed({f"compound/{i}.tif": b"" for i in range(51)})
    with pytest.raises(TooLarge, match="51 files"):
        uploads.unpack(put(tmp_path, many), tmp_path / "out", BOUNDS)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(packed({"compound/x.tif": b"abc"}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    with pytest.raises(InvalidRequest, match="unpacked"):
        uploads.unpack(put(tmp_path, bytes(content)), tmp_path / "out", BOUNDS)


def test_a_strip_that_unpacks_to_more_than_its_pixels_is_no_picture(tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, np.zeros((64, 64), np.uint16), compression="zlib")
    with tifffile.TiffFile(file) as tiff_file:
        start, length = tiff_file.pages[0].dataoffsets[0], tiff_file.pages[0].databytecounts[0]
    bomb = zlib.compress(b"\0" * 20_000_000, 9)
    content = file.read_bytes()
    assert len(bomb) > length
    moved = content + bomb  # the strip now lies at the end: its offset and length are patched in the directory
    patched = moved.replace(start.to_bytes(4, "little"), len(content).to_bytes(4, "little"), 1)
    patched = patched.replace(int(length).to_bytes(4, "little"), len(bomb).to_bytes(4, "little"), 1)
    file.write_bytes(patched)
    with pytest.raises((TooLarge, InvalidRequest)):
        uploads.looked_at("x", "compound", file)


def test_pictures_of_more_pixels_than_allowed_are_refused_by_their_headers(tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, np.zeros((2, 800, 800), np.uint8), photometric="minisblack", compression="zlib")
    field = uploads.looked_at("x", "compound", file)
    with pytest.raises(TooLarge, match="1280000 pixels"):
        uploads.check_pixels([field], BOUNDS)


@pytest.mark.parametrize("seed", range(2))
def test_a_torn_tiff_is_an_invalid_request_and_nothing_else(tmp_path: Path, seed: int) -> None:
    whole = bytearray(tiff(np.random.default_rng(seed).random((5, SIZE, SIZE))))
    rng = np.random.default_rng(seed)
    for i in range(30):
        torn = bytearray(whole[: int(rng.integers(8, len(whole)))])
        for at in rng.integers(4, len(torn), 8):
            torn[at] = int(rng.integers(0, 256))
        file = put(tmp_path, bytes(torn))
        with contextlib.suppress(InvalidRequest, TooLarge, ReferenceMismatch):
            own_pictures.inspect(FakeRoom().card, file, tmp_path / f"out{i}", BOUNDS, {})


# ----------------------------------------------------------------------------------------------------------------------
# Own profiles.


def rows_of(served: TestClient) -> pd.DataFrame:
    answer = served.post("/v1/predictions?wait=60", json={"smiles": KNOWN, "draws": 6}).json()
    root = f"/v1/predictions/{answer['id']}"
    archive = zipfile.ZipFile(io.BytesIO(served.get(f"{root}/files.zip").content))
    parts = []
    for role in ("compound", "control"):
        folder = answer["molecules"][0]["folder"] if role == "compound" else "control"
        table = pd.read_parquet(io.BytesIO(archive.read(f"dopaint-{answer['id']}/{folder}/profiles.parquet")))
        parts.append(table[list(NAMES)].assign(Metadata_Role=role))
    return pd.concat(parts, ignore_index=True)


def test_the_three_forms_of_own_profiles_give_one_answer(served: TestClient) -> None:
    table = rows_of(served)
    rows = [
        {"role": role, "values": values}
        for role, values in zip(table["Metadata_Role"], table[list(NAMES)].to_numpy().tolist(), strict=True)
    ]
    body = {"engine": "fake", "features": list(NAMES), "rows": rows, "allow_simulated": True}
    as_json = served.post("/v1/profiles/score", json=body)
    assert as_json.status_code == 200, as_json.text
    assert as_json.json()["moa"]["ranking"][0]["label"] == "alpha"
    url = "/v1/profiles/score?engine=fake&allow_simulated=true"
    csv = served.post(url, content=table.to_csv(index=False), headers={"content-type": "text/csv"})
    stream = io.BytesIO()
    table.to_parquet(stream)
    parquet = served.post(url, content=stream.getvalue(), headers={"content-type": "application/vnd.apache.parquet"})
    assert csv.json() == as_json.json() == parquet.json()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"engine": "other"}, 409),
        ({"features": ["a", "b"], "rows": [{"values": [1.0, 2.0]}]}, 409),
        ({"rows": [{"values": [1.0]}]}, 422),
        ({"rows": []}, 422),
        ({"rows": [{"role": "control", "values": [0.0] * len(NAMES)}]}, 422),
        ({"unit": "kelvin"}, 422),
        ({"extra": 1}, 422),
        ({"features": ["a"] * len(NAMES)}, 422),
    ],
    ids=["engine", "features", "short", "none", "controls", "unit", "key", "twice"],
)
def test_profiles_that_cannot_be_compared_are_refused(served: TestClient, change: dict, status: int) -> None:
    body = {"engine": "fake", "features": list(NAMES), "rows": [{"values": [0.0] * len(NAMES)}], **change}
    response = served.post("/v1/profiles/score", json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("media", ["text/csv", "application/vnd.apache.parquet"])
@pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"PAR1" + b"\xff" * 60 + b"PAR1", b"a,b\nx,y\n", b"a\n1e999\n"])
def test_tables_that_are_none_are_refused(served: TestClient, media: str, body: bytes) -> None:
    response = served.post("/v1/profiles/score?engine=fake", content=body, headers={"content-type": media})
    assert response.status_code in (409, 422), response.text


def test_uploads_that_no_job_needs_are_swept(tmp_path: Path) -> None:
    for name in ("a" * 64, "b" * 64):
        (tmp_path / name).write_bytes(b"x")
    assert uploads.sweep(tmp_path, ["a" * 64], now=time.time() + 10) == 0, "not at once: its job may just be queued"
    assert uploads.sweep(tmp_path, ["a" * 64], now=time.time() + 4000) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 64]
