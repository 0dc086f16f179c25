"""The real JUMP tables give the paper's numbers; a small painted gallery is listed, pulled, resumed and streamed from a
real S3 server on loopback.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from profiling.crops import order, read_remote, stream
from profiling.gallery import Gallery, GalleryError, key_of
from profiling.jump import (
    NO_WELLS,
    PAPER_SOURCES,
    InvalidTables,
    position,
    read_tables,
    select_plates,
    select_wells,
    summary,
)
from profiling.jump_channels import CHANNELS, STAINS
from profiling.outcomes import BadPicture
from profiling.pull import LIST, PullError, Subset, already, chosen, pull, verify

SIZE = 48
WELLS = ("A01", "A02", "P24")
PLATES = {"source_2": ("20210607_Batch_2", "1053601756"), "source_4": ("2021_04_26_Batch1", "BR00117035")}


def test_the_papers_plates_follow_from_three_rules(real_data: Path) -> None:
    tables = read_tables(real_data / "jump_metadata")
    plates = select_plates(tables)
    assert len(plates) == 832
    assert len(plates[["source", "batch"]].drop_duplicates()) == 48
    assert set(plates["source"]) == set(PAPER_SOURCES)
    assert "DMSO" not in set(plates["plate_type"])
    # without the three rules there are 876 plates
    assert tables.plate["source"].isin(PAPER_SOURCES).sum() == 832 + 38 + 4 + 1
    assert (plates.groupby("source")["plate_format"].first() == 1536).to_dict() == {
        "source_1": True,
        "source_11": False,
        "source_2": False,
        "source_3": False,
        "source_9": True,
    }
    assert plates["n_sites"].sum() == 3_024_809


def test_compounds_are_counted_where_wells_are_known(real_data: Path) -> None:
    found = summary(read_tables(real_data / "jump_metadata")).set_index("source")
    assert found.loc["all", "compounds"] == pytest.approx(100_900, abs=100)
    assert found.loc["all", ["batches", "plates"]].tolist() == [48, 832]
    assert found.loc[["source_1", "source_9"], "note"].tolist() == [NO_WELLS, NO_WELLS]
    assert found.loc[["source_2", "source_3", "source_11"], "note"].tolist() == ["", "", ""]
    assert found["compounds"].drop("all").tolist() == [0, 57_623, 58_587, 0, 32_543]


def test_wells_have_their_place(real_data: Path) -> None:
    assert [position(w) for w in ("A01", "P24", "Z02", "AA01", "AF48")] == [
        (0, 0),
        (15, 23),
        (25, 1),
        (26, 0),
        (31, 47),
    ]
    tables = read_tables(real_data / "jump_metadata")
    wells = select_wells(tables, select_plates(tables, ["source_2"]))
    assert wells["row"].max() == 15
    assert wells["column"].max() == 23
    with pytest.raises(InvalidTables, match="got 'A1', expected letters and two digits"):
        position("A1")
    with pytest.raises(InvalidTables, match="source: got 'source_99'"):
        select_plates(tables, ["source_99"])


@pytest.fixture(scope="module")
def small_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "metadata"
    folder.mkdir()
    rows = [(s, b, p, "COMPOUND") for s, (b, p) in PLATES.items()] + [("source_4", "2021_04_26_Batch1", "X1", "DMSO")]
    plates = pd.DataFrame(rows, columns=["Metadata_Source", "Metadata_Batch", "Metadata_Plate", "Metadata_PlateType"])
    plates.to_csv(folder / "plate.csv.gz", index=False)
    wells = [
        (s, p, w, c)
        for s, (_, p) in PLATES.items()
        for w, c in zip(WELLS, ("JCP2022_033924", "JCP2022_000002", "JCP2022_999999"), strict=True)
    ]
    columns = ["Metadata_Source", "Metadata_Plate", "Metadata_Well", "Metadata_JCP2022"]
    pd.DataFrame(wells, columns=columns).to_csv(folder / "well.csv.gz", index=False)
    smiles = pd.DataFrame({"Metadata_JCP2022": ["JCP2022_000002"], "Metadata_SMILES": ["O=C1NCCCN1Cc1ccc(Cl)cc1"]})
    smiles.to_csv(folder / "compound.csv.gz", index=False)
    return folder.parent


def test_small_tables_without_site_counts_are_read(small_tables: Path, tmp_path: Path) -> None:
    tables = read_tables(small_tables)
    plates = select_plates(tables, ["source_2", "source_4"])
    assert plates["plate"].tolist() == ["1053601756", "BR00117035"]
    assert set(plates["n_sites"]) == {-1}
    assert len(select_wells(tables, plates)) == 4  # the empty well is none
    with pytest.raises(InvalidTables, match="has no plate table"):
        read_tables(tmp_path)


def painted() -> np.ndarray:
    """Fields of the simulator, 16-bit counts [6, 5, h, w]."""
    from causal.allocation import allocate
    from service.library import library, world

    drugs = library().query("kind == 'drug'").head(6)
    rows = allocate(world().plates, drugs[["compound", "moa"]].assign(wells=1)).head(6)
    return np.round(world().paint(rows)[:, :, :SIZE, :SIZE] * 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A gallery on disk: source_2 by file names alone, source_4 with a load_data table and illumination functions."""
    root, pictures = tmp_path_factory.mktemp("gallery"), painted()
    batch, plate = PLATES["source_2"]
    folder = root / f"cpg0016-jump/source_2/images/{batch}/images/{plate}"
    folder.mkdir(parents=True)
    for i, well in enumerate(WELLS):
        for k, stain in enumerate(STAINS):
            number = CHANNELS["source_2"][stain]
            name = f"{plate}_{well}_T0001F001L01A01Z01C{number:02d}.tif"
            tifffile.imwrite(folder / name, pictures[i, k])
    batch, plate = PLATES["source_4"]
    images = f"cpg0016-jump/source_4/images/{batch}/images/{plate}__2021-05-02T16_02_51-Measurement1/Images"
    light = f"cpg0016-jump/source_4/images/{batch}/illum/{plate}"
    tables = root / f"cpg0016-jump/source_4/workspace/load_data_csv/{batch}/{plate}"
    for path in (images, light):
        (root / path).mkdir(parents=True)
    tables.mkdir(parents=True)
    rows = []
    for i, well in enumerate(WELLS):
        row = {"Metadata_Source": "source_4", "Metadata_Batch": batch, "Metadata_Plate": plate, "Metadata_Well": well}
        row |= {"Metadata_Site": "01"}
        for k, stain in enumerate(STAINS):
            name = f"r{position(well)[0] + 1:02d}c{position(well)[1] + 1:02d}f01p01-ch{k + 1}sk1fk1fl1.tiff"
            tifffile.imwrite(root / images / name, pictures[3 + i, k])
            address = f"s3://cellpainting-gallery/{images}/"
            row |= {f"FileName_Orig{stain}": name, f"PathName_Orig{stain}": address}
        rows.append(row)
    for stain in STAINS:
        np.save(root / light / f"{plate}_Illum{stain}.npy", np.full((SIZE, SIZE), 2.0, np.float32))
    with gzip.open(tables / "load_data.csv.gz", "wt") as handle:
        pd.DataFrame(rows).to_csv(handle, index=False)
    return root, pictures


@pytest.fixture(scope="module")
def s3(mirror: tuple[Path, np.ndarray]) -> Iterator[Gallery]:
    """The same gallery behind a real S3 server on loopback, read without an account."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="cellpainting-gallery", ACL="public-read")
    for path in sorted(mirror[0].rglob("*")):
        if path.is_file():
            client.put_object(
                Bucket="cellpainting-gallery",
                Key=path.relative_to(mirror[0]).as_posix(),
                Body=path.read_bytes(),
                ACL="public-read",
            )
    client.close()
    yield Gallery(options={"client_kwargs": {"endpoint_url": address, "region_name": "us-east-1"}})
    server.stop()


pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # sockets of the server's threads and of s3fs's own loop, which end with the process
    "ignore::DeprecationWarning:botocore",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def wells_of(crops: list) -> list[str]:
    return [crop.field.well for crop in crops]


def check_gallery(gallery: Gallery, pictures: np.ndarray) -> None:
    two = gallery.fields("source_2", *PLATES["source_2"])
    four = gallery.fields("source_4", *PLATES["source_4"])
    assert [one.well for one in two] == [one.well for one in four] == list(WELLS)
    assert {one.site for one in (*two, *four)} == {"1"}
    for i, one in enumerate(two):
        assert not one.illumination
        np.testing.assert_allclose(read_remote(gallery, one, STAINS), pictures[i] / 65535.0, atol=1e-6)
    for i, one in enumerate(four):
        assert set(one.illumination) == set(STAINS)
        np.testing.assert_allclose(read_remote(gallery, one, STAINS), pictures[3 + i] / 65535.0 / 2.0, atol=1e-6)
        plain = read_remote(gallery, one, ("Mito", "DNA"), correct=False)
        np.testing.assert_allclose(plain, pictures[3 + i][[4, 0]] / 65535.0, atol=1e-6)


def test_a_mirror_is_read_in_the_channel_order_of_its_source(mirror: tuple[Path, np.ndarray]) -> None:
    check_gallery(Gallery(str(mirror[0])), mirror[1])


def test_the_same_gallery_is_read_from_s3_without_an_account(s3: Gallery, mirror: tuple[Path, np.ndarray]) -> None:
    check_gallery(s3, mirror[1])


def test_a_pull_is_whole_checked_and_goes_on_where_it_was(
    s3: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: tuple[Path, np.ndarray]
) -> None:
    subset = Subset("source_4", (PLATES["source_4"][1],), wells=("A01", "A02"))
    stop = 4

    def stopping(done: int, total: int, _: str) -> None:
        assert total == 1 + 2 * 5 + 5
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(s3, subset, tmp_path, workers=2, progress=stopping)
    assert len(already(tmp_path)) == stop
    told: list[int] = []
    assert pull(s3, subset, tmp_path, workers=2, progress=lambda d, t, _: told.append(d)) == 16 - stop
    assert told[-1] == 16
    assert pull(s3, subset, tmp_path) == 0
    assert not list(tmp_path.rglob("*.part"))
    for key in already(tmp_path):
        assert (tmp_path / key).read_bytes() == (mirror[0] / key).read_bytes()
    assert [f.well for f in Gallery(str(tmp_path)).fields("source_4", *PLATES["source_4"])][:2] == ["A01", "A02"]
    # a flipped bit is found, and the file fetched again
    key = next(k for k in already(tmp_path) if k.endswith(".tiff"))
    raw = bytearray((tmp_path / key).read_bytes())
    raw[-1] ^= 1
    (tmp_path / key).write_bytes(raw)
    assert verify(tmp_path) == [key]
    assert pull(s3, subset, tmp_path) == 1
    assert verify(tmp_path) == []
    # a list whose last line was cut by a stop costs that file alone
    lines = (tmp_path / LIST).read_text().splitlines()[:-1]  # without the second line of the same file
    (tmp_path / LIST).write_text("\n".join(lines)[:-40])
    assert pull(s3, subset, tmp_path) == 1
    assert pull(s3, subset, tmp_path) == 0


def test_bytes_that_differ_from_the_servers_checksum_are_refused(
    mirror: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = Gallery(f"file://{mirror[0]}")
    subset = Subset("source_2", (), wells=("A01",), channels=("DNA",))
    assert len(chosen(gallery, subset)) == 1
    assert pull(gallery, subset, tmp_path / "a") == 1

    lying = Gallery("s3://cellpainting-gallery")
    object.__setattr__(lying, "fs", _Liar(gallery.fs))
    object.__setattr__(lying, "base", gallery.base)
    with pytest.raises(PullError, match=r"its MD5 is .*, the gallery says 0000"):
        pull(lying, subset, tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.tif*"))


class _Liar:
    def __init__(self, fs: object) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> object:
        return getattr(self._fs, name)

    def info(self, path: str, refresh: bool = False) -> dict[str, object]:
        return {"size": Path(path).stat().st_size, "ETag": '"' + "0" * 32 + '"'}


def test_what_is_not_there_is_refused_by_name(mirror: tuple[Path, np.ndarray]) -> None:
    gallery = Gallery(str(mirror[0]))
    with pytest.raises(GalleryError, match="has no pictures of source_7"):
        gallery.plates("source_7")
    with pytest.raises(GalleryError, match="plate: NOPE is not in source_2; the gallery has 1053601756"):
        chosen(gallery, Subset("source_2", ("NOPE",)))
    with pytest.raises(GalleryError, match="no field of wells"):
        chosen(gallery, Subset("source_2", (), wells=("B07",)))
    assert key_of("s3://any-bucket/cpg0016-jump/a/b/", "c.tif") == "cpg0016-jump/a/b/c.tif"
    assert key_of("/home/ubuntu/bucket/cpg0016-jump/a", "c.tif") == "cpg0016-jump/a/c.tif"


def test_crops_are_shuffled_reproducible_and_resumable(mirror: tuple[Path, np.ndarray]) -> None:
    gallery = Gallery(str(mirror[0]))
    fields = [*gallery.fields("source_2", *PLATES["source_2"]), *gallery.fields("source_4", *PLATES["source_4"])]
    first = list(stream(gallery, fields, STAINS, 16, seed=3))
    again = list(stream(gallery, fields, STAINS, 16, seed=3, workers=1))
    rest = list(stream(gallery, fields, STAINS, 16, seed=3, start=4))
    assert sorted((c.field.source, c.field.well) for c in first) == sorted((f.source, f.well) for f in fields)
    for a, b in zip(first, again, strict=True):
        assert a.field == b.field
        assert np.array_equal(a.pixels, b.pixels)
    assert [c.field for c in rest] == [c.field for c in first[4:]]
    assert np.array_equal(rest[0].pixels, first[4].pixels)
    assert order(50, 3, 0).tolist() != order(50, 3, 1).tolist()
    other = list(stream(gallery, fields, STAINS, 16, seed=3, epoch=1))
    assert not all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first, other, strict=True))
    middle = next(c for c in stream(gallery, fields, STAINS, 16, centre=True) if c.field == fields[0])
    np.testing.assert_allclose(middle.pixels, mirror[1][0][:, 16:32, 16:32] / 65535.0, atol=1e-6)


def test_no_more_fields_are_read_than_are_asked_for(
    mirror: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery, read = Gallery(str(mirror[0])), []
    fields = gallery.fields("source_2", *PLATES["source_2"]) * 50

    def counted(*args: object) -> np.ndarray:
        read.append(1)
        return np.zeros((5, 20, 20), np.float32)

    monkeypatch.setattr("profiling.crops.read_remote", counted)
    crops = stream(gallery, fields, STAINS, 16, workers=2)
    for _ in range(5):
        next(crops)
    assert len(read) <= 5 + 3  # of 150: the set is never in memory
    crops.close()


def test_fields_that_cannot_be_used_say_why(mirror: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    gallery = Gallery(str(mirror[0]))
    one = gallery.fields("source_2", *PLATES["source_2"])[0]
    crop = next(stream(gallery, [one], STAINS, SIZE + 1))
    assert crop.pixels is None
    assert f"expected at least {SIZE + 1} a side" in crop.bad
    gone = type(one)(
        *(getattr(one, k) for k in ("source", "batch", "plate", "well", "site")), dict.fromkeys(STAINS, "x.tif"), {}
    )
    with pytest.raises(BadPicture, match="does not exist"):
        read_remote(gallery, gone, STAINS)


def test_training_data_come_of_the_gallery(mirror: tuple[Path, np.ndarray], small_tables: Path, tmp_path: Path) -> None:
    from ldm.data import load_data
    from ldm.intensity import IntensityScale
    from service.jump_data import training_folder
    from service.rooms import DMSO_INCHIKEY

    report = training_folder(
        Gallery(str(mirror[0])), small_tables, ["source_2", "source_4"], (), tmp_path, size=32, val_share=0.0
    )
    assert (report["fields"], report["kept"], report["without a known compound"]) == (6, 4, 2)
    data = load_data(tmp_path)
    assert data.pictures.shape == (4, 5, 32, 32)
    control = data.rows["compound"] == DMSO_INCHIKEY
    assert sorted(data.rows.loc[control, "source"]) == ["source_2", "source_4"]
    assert data.rows["plate_format"].eq(384).all()
    scale = IntensityScale.load(tmp_path / "intensity.json")
    index = int(np.flatnonzero(control & (data.rows["source"] == "source_2"))[0])
    camera = scale.to_camera(data.read(np.array([index])), ["source_2"])[0]
    # the middle of the painted field, but for what was clipped at 4 and rounded to half precision
    np.testing.assert_allclose(camera, mirror[1][0][:, 8:40, 8:40] / 65535.0, atol=2e-3)
