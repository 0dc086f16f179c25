"""What the result doors give, held against the files that the pipeline wrote and against readers of other makers."""

import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image
from starlette.testclient import TestClient

from profiling.images import read_ome_tiff
from service.app import make_app
from service.difference import ABOVE, BELOW, SAME, difference
from service.fake import FakeRoom
from service.heatmap import heatmap
from service.jobs import Desk
from service.settings import Settings
from service.zarr_view import Shown, entry
from service.zip_stream import zipped

KNOWN = "CCCCO"
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
VIEWER = "https://viewer.example"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Desk, str]]:
    desk = Desk(tmp_path_factory.mktemp("results"), FakeRoom)
    settings = Settings(engine="fake", model="fake", picture_origins=(VIEWER,))
    with TestClient(make_app(desk, settings), raise_server_exceptions=False) as client:
        for _ in range(600):
            if client.get("/v1/health/ready").status_code == 200:
                break
            time.sleep(0.05)
        body = {"smiles": [KNOWN, "not-a-smiles", "CCCCN"], "draws": 5, "seed": 3}
        answer = client.post("/v1/predictions?wait=60", json=body)
        assert answer.status_code == 200
        yield client, desk, answer.json()["id"]


def folder_of(served: tuple[TestClient, Desk, str]) -> Path:
    client, desk, key = served
    return desk.folder(key) / client.get(f"/v1/predictions/{key}").json()["molecules"][0]["folder"]


def root(served: tuple[TestClient, Desk, str], index: int = 0) -> str:
    return f"/v1/predictions/{served[2]}/molecules/{index}"


# ----------------------------------------------------------------------------------------------------------------------
# OME-Zarr.


def mirrored(client: TestClient, address: str, into: Path, draws: int) -> Path:
    """A copy of the store on disk, made of answers alone."""
    names = [".zgroup", ".zattrs", ".zmetadata", "0/.zarray"]
    names += [f"0/{draw}/{channel}/0/0" for draw in range(draws) for channel in range(len(CHANNELS))]
    for name in names:
        answer = client.get(f"{address}/{name}")
        assert answer.status_code == 200, name
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(answer.content)
    return into


@pytest.mark.parametrize("row", ["compound", "control"])
def test_zarr_reads_the_pixels_of_the_ome_tiff(served: tuple[TestClient, Desk, str], tmp_path: Path, row: str) -> None:
    client, desk, key = served
    store = mirrored(client, f"{root(served)}/{row}.zarr", tmp_path / "image.zarr", 5)
    group = zarr.open_group(store, mode="r", zarr_format=2)
    array = group["0"]
    assert isinstance(array, zarr.Array)
    assert array.shape == (5, 5, 16, 16)
    folder = folder_of(served) if row == "compound" else desk.folder(key) / "control"
    for draw in range(5):
        picture = read_ome_tiff(folder / "pictures" / f"draw_{draw:04d}.ome.tiff")
        assert picture.channels == CHANNELS
        counts = np.rint(picture.pixels * 65535).astype(np.uint16)
        assert (np.asarray(array[draw]) == counts).all()
    attributes = dict(group.attrs)
    (scales,) = attributes["multiscales"]  # type: ignore[misc]
    assert [axis["name"] for axis in scales["axes"]] == ["t", "c", "y", "x"]
    assert [one["label"] for one in attributes["omero"]["channels"]] == list(CHANNELS)  # type: ignore[index,call-overload]
    assert attributes["dopaint"]["evidence"] == "simulation"  # type: ignore[index,call-overload]


def test_the_zarr_attributes_are_valid_ome_ngff(served: tuple[TestClient, Desk, str]) -> None:
    models = pytest.importorskip("ome_zarr_models.v04.image", reason="ome-zarr-models is not installed here")
    document = served[0].get(f"{root(served)}/compound.zarr/.zattrs").json()
    attributes = models.ImageAttrs.model_validate(document)
    assert attributes.multiscales[0].datasets[0].path == "0"


def test_a_range_of_a_chunk_is_a_range_of_its_bytes(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    address = f"{root(served)}/compound.zarr/0/2/1/0/0"
    whole = client.get(address).content
    assert len(whole) == 2 * 16 * 16
    for text, start, stop in (("bytes=0-9", 0, 10), ("bytes=500-", 500, 512), ("bytes=-12", 500, 512)):
        part = client.get(address, headers={"range": text})
        assert part.status_code == 206
        assert part.content == whole[start:stop]
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/512"
    assert client.get(address, headers={"range": "bytes=500-9999"}).content == whole[500:]
    assert client.get(address, headers={"range": "bytes=512-"}).status_code == 416
    for other in ("bytes=a-b", "items=0-1", "bytes=0-1,4-5", "bytes=9", "bytes="):
        assert client.get(address, headers={"range": other}).content == whole
    head = client.head(address)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "512")


def test_what_is_not_in_the_image_is_not_found(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    for below in ("0/5/0/0/0", "0/0/5/0/0", "0/0/0/1/0", "1/.zarray", "0", "", "0/../../x", "pictures", ".zgroup/x"):
        answer = client.get(f"{root(served)}/compound.zarr/{below}")
        assert answer.status_code in (404, 405), below
    assert client.get(f"{root(served, 1)}/compound.zarr/.zattrs").status_code == 404, "an invalid molecule"
    assert client.get(f"{root(served)}/other.zarr/.zattrs").status_code == 422


def test_a_draw_that_is_not_painted_has_no_chunk_and_changes_nothing_else(tmp_path: Path) -> None:
    shown = Shown("x", 3, CHANNELS, 16, lambda draw: None, 0.3, {})
    assert entry(shown, "0/1/0/0/0") is None
    assert entry(shown, "0/.zarray") is not None


def test_only_named_origins_and_signed_links_may_be_read_by_other_pages(
    served: tuple[TestClient, Desk, str],
) -> None:
    client, _, key = served
    address = f"{root(served)}/compound.zarr/.zattrs"
    assert client.get(address, headers={"origin": VIEWER}).headers["access-control-allow-origin"] == VIEWER
    assert "access-control-allow-origin" not in client.get(address, headers={"origin": "https://evil.example"}).headers
    for other in ("pictures", "effects"):
        answer = client.get(f"{root(served)}/{other}", headers={"origin": VIEWER})
        assert "access-control-allow-origin" not in answer.headers, "OME-Zarr alone"
    link = client.post(f"/v1/predictions/{key}/links", json={"resource": "zarr"}).json()
    signed = link["prefix"] + address
    answer = client.get(signed, headers={"origin": "https://anywhere.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    allowed = client.options(signed, headers={"origin": "https://anywhere.example"})
    assert allowed.headers["access-control-allow-methods"] == "GET, HEAD"
    assert client.get(f"{link['prefix']}{root(served)}/effects").status_code == 404
    assert client.get(link["prefix"] + address.replace("compound", "control")).status_code == 200


# ----------------------------------------------------------------------------------------------------------------------
# Pictures.


def test_the_difference_is_blue_white_and_orange() -> None:
    compound, control = np.full((2, 1, 3), 0.5, np.float32), np.full((2, 1, 3), 0.5, np.float32)
    compound[0, 0] = (0.2, 0.5, 0.8)
    colours = difference(compound, control, ("A", "B"), "A", 0.3)
    assert [tuple(one) for one in colours[0]] == [BELOW, SAME, ABOVE]
    half = difference(compound, control, ("A", "B"), "composite", 0.3)[0, 2]
    assert np.allclose(half, (np.array(SAME) + np.array(ABOVE)) / 2, atol=1)


def test_pictures_in_every_form_show_the_same_pixels(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    address = f"{root(served)}/pictures/2"
    pixels = read_ome_tiff(folder_of(served) / "pictures" / "draw_0002.ome.tiff").pixels
    answer = client.get(f"{address}?channel=RNA&low=0.1&high=0.2")
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (shown == np.rint(np.clip((pixels[2] - 0.1) / 0.1, 0, 1) * 255)).all()
    assert "immutable" in answer.headers["cache-control"]
    raw = client.get(f"{address}?format=raw")
    shape = tuple(int(n) for n in raw.headers["x-dopaint-shape"].split(","))
    counts = np.frombuffer(raw.content, "<u2").reshape(shape)
    assert (counts == np.rint(pixels * 65535)).all()
    two = client.get(f"{address}?channels=DNA,Mito")
    alone = np.asarray(Image.open(io.BytesIO(two.content)))
    both = np.asarray(Image.open(io.BytesIO(client.get(address).content)))
    assert (alone <= both).all()
    assert (alone < both).any()
    assert client.get(f"{address}?channels=DNA,nobody").status_code == 404
    assert client.get(f"{address}?row=difference&format=raw").status_code == 422
    assert client.get(f"{address}?row=difference").headers["content-type"] == "image/png"


def test_the_grid_has_one_column_a_place_and_counts_its_draws(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    listed = client.get(f"{root(served)}/pictures").json()["draws"]
    assert all(one["compound_ready"] and one["control_ready"] and one["outcome"] == "ok" for one in listed)
    assert {one["well"] for one in listed} == {
        f"{chr(65 + one['row']) if one['row'] < 26 else 'A' + chr(39 + one['row'])}{one['column'] + 1:02d}"
        for one in listed
    }
    for by in ("source", "batch", "plate", "well"):
        grid = client.get(f"{root(served)}/grid?by={by}").json()
        assert [one["value"] for one in grid["columns"]] == sorted(
            {one[by] for one in listed}, key=lambda value: (len(value), value)
        )
        assert sum(one["n_draws"] for one in grid["columns"]) == 5
        for column in grid["columns"]:
            first = next(one for one in listed if one[by] == column["value"])
            assert column["draw"] == first["draw"]
            assert client.get(column["difference"]).status_code == 200
    assert len(client.get(f"{root(served)}/grid?by=well&limit=1").json()["columns"]) == 1


# ----------------------------------------------------------------------------------------------------------------------
# Tables and the whole folder.


def test_the_heat_map_adds_up_to_the_effects() -> None:
    effects = pd.DataFrame(
        {
            "feature": [
                "Cells_Texture_X_DNA_3",
                "Cells_Texture_Y_DNA_3",
                "Nuclei_AreaShape_Area",
                "Cells_Texture_Z_ER",
            ],
            "value": [1.0, -3.0, 2.0, np.nan],
            "low": [0.5, -4.0, -1.0, np.nan],
            "high": [1.5, -2.0, 5.0, np.nan],
        }
    )
    answer = heatmap(effects, CHANNELS)
    assert answer["compartments"] == ["Cells", "Nuclei"]
    assert answer["channels"] == ["DNA", "none"]
    texture, area = answer["cells"]
    assert (texture["n_features"], texture["mean"], texture["share_beyond"]) == (2, -1.0, 1.0)
    assert texture["strongest"] == {"feature": "Cells_Texture_Y_DNA_3", "value": -3.0, "low": -4.0, "high": -2.0}
    assert area["share_beyond"] == 0.0


def test_the_last_point_of_the_settling_is_the_answer(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    effects = client.get(f"{root(served)}/effects").json()["data"]
    name = "Cells_Intensity_Fake_3"
    answer = client.get(f"{root(served)}/settling?feature={name}").json()
    assert answer["draws"] == [2, 3, 4, 5]
    at = effects["feature"].index(name)
    for part in ("value", "low", "high"):
        assert answer["features"][name][part][-1] == pytest.approx(effects[part][at], rel=1e-5)


def test_the_zip_holds_every_file_of_the_folder(served: tuple[TestClient, Desk, str]) -> None:
    client, desk, key = served
    answer = client.get(f"/v1/predictions/{key}/files.zip")
    assert answer.headers["content-type"] == "application/zip"
    folder = desk.folder(key)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        for path in folder.rglob("*"):
            if path.is_file():
                name = f"dopaint-{key}/{path.relative_to(folder).as_posix()}"
                assert archive.read(name) == path.read_bytes()
                names.discard(name)
        assert not names
    assert client.get(f"/v1/predictions/{key}/files.zip").content == answer.content


def test_a_zip_leaves_out_links_and_what_is_being_written_and_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(bytes(range(256)) * 8192)
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "x").write_text("half")
    (tmp_path / "link").symlink_to("/etc/passwd")
    pieces = list(zipped(tmp_path, "out"))
    assert max(map(len, pieces)) < 400_000
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.namelist() == ["out/a/large"]
        assert archive.read("out/a/large") == bytes(range(256)) * 8192


def test_facts_of_the_model_and_its_library(served: tuple[TestClient, Desk, str]) -> None:
    client = served[0]
    reference = client.get("/v1/reference").json()
    assert {one["label"]: one["n"] for one in reference["labels"]["moa"]} == {"alpha": 6, "beta": 6, "gamma": 6}
    assert {one["smiles"] for one in reference["compounds"] if one["moa"] == "alpha"} >= {"CCO", KNOWN}
    (model,) = client.get("/v1/models").json()["models"]
    assert model["channels"] == list(CHANNELS)
    assert model["evidence"] == "simulation"
    numbers = client.get("/metrics").text
    assert "dopaint_rows_painted" in numbers
    assert served[2] not in numbers, "no id in the numbers"
