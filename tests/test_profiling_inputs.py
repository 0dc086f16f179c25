"""Reading: the same painted pictures in every format are the same arrays; what is not a picture has a name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from painted_screen import (
    BATCH,
    CHANNELS,
    FOLDER_PATTERN,
    OME_PATTERN,
    PLATES,
    screen,
    write_folder,
    write_jump,
    write_load_data,
    write_ome_tiffs,
    write_ome_zarr,
)
from PIL import Image

from profiling.images import from_counts
from profiling.inputs import INPUTS, FieldSet, InvalidInput, format_of, open_input, read_field
from profiling.inputs.field import Field, Plane, clean, field_set, well_name, well_of
from profiling.inputs.formats import Wanted
from profiling.inputs.pattern import compiled, metadata
from profiling.inputs.pixels import RANGES, unit_range
from profiling.jump_channels import CHANNELS as JUMP_CHANNELS
from profiling.jump_channels import FILE_NAMES, STAINS
from profiling.outcomes import BadPicture

#: Each way of writing the screen: its writer, what is asked for, and the format it is to be seen as.
WAYS = {
    "folder": (write_folder, Wanted(FOLDER_PATTERN), "folder"),
    "ome-tiff": (write_ome_tiffs, Wanted(OME_PATTERN), "ome-tiff"),
    "ome-zarr 0.4": (lambda root: write_ome_zarr(root, "0.4"), Wanted(), "ome-zarr"),
    "ome-zarr 0.5": (lambda root: write_ome_zarr(root, "0.5"), Wanted(), "ome-zarr"),
    "jump, phenix, by names": (lambda root: write_jump(root, "phenix", False), Wanted(), "jump"),
    "jump, cv, by names": (lambda root: write_jump(root, "cv", False), Wanted(), "jump"),
    "jump, load_data": (lambda root: write_jump(root, "phenix", True), Wanted(), "jump"),
    "load-data": (write_load_data, Wanted(channels=CHANNELS), "load-data"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_format_gives_the_painted_counts(way: str, tmp_path: Path) -> None:
    write, wanted, kind = WAYS[way]
    path = write(tmp_path)
    assert format_of(path, wanted.pattern) == kind
    fields = open_input(path, wanted)
    assert fields.channels == CHANNELS
    assert len(fields.fields) == len(screen())
    for field, shot in zip(fields.fields, screen(), strict=True):
        expected = shot.meta if kind != "ome-zarr" else {k: shot.meta[k] for k in ("Plate", "Well", "Site")}
        if "cv" in way:
            expected = {**expected, "Source": "source_2"}
        assert field.meta == expected
        np.testing.assert_array_equal(read_field(field, CHANNELS, "16"), from_counts(shot.counts))


def test_every_format_is_tested() -> None:
    assert {kind for _, _, kind in WAYS.values()} == set(INPUTS)


def test_jump_without_a_table_reads_each_source_by_its_own_order() -> None:
    """The same number is another stain in another source; source 15 takes ER and RNA from one picture."""
    assert set(JUMP_CHANNELS) == {f"source_{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15)}
    assert [JUMP_CHANNELS["source_4"][stain] for stain in STAINS] == [5, 4, 3, 2, 1]
    assert [JUMP_CHANNELS["source_9"][stain] for stain in STAINS] == [4, 1, 5, 3, 2]
    for source, numbers in JUMP_CHANNELS.items():
        assert len(set(numbers.values())) == (4 if source == "source_15" else 5), source


@pytest.mark.parametrize(
    ("microscope", "name", "parts"),
    [
        ("phenix", "r02c24f09p01-ch5sk1fk1fl1.tiff", {"row": "02", "column": "24", "site": "09", "channel": "5"}),
        ("cv", "110000294901_P24_T0001F006L01A02Z01C03.tif", {"well": "P24", "site": "006", "channel": "03"}),
        ("imagexpress", "A1166171_C07_s3_w45B1C.tif", {"well": "C07", "site": "3", "channel": "4"}),
        ("imagexpress", "A1166171_C07_s3_w4_thumb5B1C.tif", None),
    ],
)
def test_names_of_the_microscopes(microscope: str, name: str, parts: dict[str, str] | None) -> None:
    match = FILE_NAMES[microscope].fullmatch(name)
    assert (match is None) == (parts is None)
    if match is not None and parts is not None:
        assert parts.items() <= match.groupdict().items()


def test_jump_of_an_unknown_source_and_chosen_plates(tmp_path: Path) -> None:
    project = write_jump(tmp_path, "phenix", False)
    chosen = open_input(project, Wanted(plates=(PLATES[1],)))
    assert {field.meta["Plate"] for field in chosen.fields} == {PLATES[1]}
    with pytest.raises(InvalidInput, match="nowhere"):
        open_input(project, Wanted(plates=("nowhere",)))
    (project / "source_4").rename(project / "source_99")
    with pytest.raises(InvalidInput, match="source_99 is not known"):
        open_input(project)


@pytest.mark.parametrize(
    "folder",
    [
        "s3://cellpainting-gallery/cpg0016-jump/source_4/images/{batch}/images/{plate}__2021-05-02T16_02_51-Measurement1/Images/",
        "/home/ubuntu/bucket/projects/2021_04_26_Production/{batch}/images/{plate}__2021-05-02T16_02_51-Measurement1/Images",
        "/gone",
    ],
)
def test_load_data_of_a_moved_gallery(folder: str, tmp_path: Path) -> None:
    """Tables name the bucket, an old project folder, or what is there no more; a mirror may hold the source alone."""
    source = write_jump(tmp_path, "phenix", True) / "source_4"
    for path in source.rglob("load_data.csv.gz"):
        table = pd.read_csv(path)
        for column in [c for c in table.columns if c.startswith("PathName_Orig")]:
            table[column] = folder.format(batch=BATCH, plate=path.parent.name)
        table.to_csv(path, index=False)
    alone = tmp_path / "alone"
    alone.mkdir()
    fields = open_input(source.rename(alone / "source_4"))
    assert len(fields.fields) == len(screen())
    np.testing.assert_array_equal(read_field(fields.fields[5], CHANNELS, "16"), from_counts(screen()[5].counts))


def test_patterns() -> None:
    match = compiled("{plate}_{well}_s{site}_{channel}.tif").fullmatch("my_plate_b3_s07_DNA.tif")
    assert match is not None
    assert metadata(match) == {"Plate": "my_plate", "Well": "b3", "Site": "07"}
    assert clean(metadata(match)) == {"Plate": "my_plate", "Well": "B03", "Site": "7"}
    match = compiled("r{row}c{column}f{site}p{_depth}-ch{channel}sk1.tiff").fullmatch("r16c03f02p01-ch4sk1.tiff")
    assert match is not None
    assert metadata(match) == {"Site": "02", "Well": "P03"}
    match = compiled(r"(?P<well>[A-P]\d+)-(?P<compound>\w+)\.png").fullmatch("A1-aspirin.png")
    assert match is not None
    assert metadata(match) == {"Well": "A1", "Compound": "aspirin"}
    for bad in ("plain.tif", "{well", "(?P<well>", "{a}{a}"):
        with pytest.raises(InvalidInput, match="pattern"):
            compiled(bad)


def test_wells_and_order() -> None:
    assert [well_name(text) for text in ("a1", "H12", "AF48", "middle")] == ["A01", "H12", "AF48", "middle"]
    assert [well_of(1, 1), well_of(26, 9), well_of(32, 48)] == ["A01", "Z09", "AF48"]
    plane = {"DNA": Plane(Path("x.tif"))}
    metas = [{"Site": s, "Plate": p} for p in ("P10", "P2") for s in ("10", "9")]
    fields = field_set([(meta, plane) for meta in metas], what="here").fields
    assert [tuple(field.meta.values()) for field in fields] == [("P2", "9"), ("P2", "10"), ("P10", "9"), ("P10", "10")]
    with pytest.raises(InvalidInput, match="two fields are called"):
        field_set([(metas[0], plane), (metas[0], plane)], what="here")
    with pytest.raises(InvalidInput, match="other metadata"):
        field_set([(metas[0], plane), ({"Site": "1"}, plane)], what="here")


def test_channels_by_token_by_plane_and_the_ones_left(tmp_path: Path) -> None:
    shot = screen()[0]
    for token, plane in zip(("w1", "w2", "w9"), shot.counts, strict=False):
        tifffile.imwrite(tmp_path / f"A01_{token}.tif", plane)
    tifffile.imwrite(tmp_path / "thumbnail.tif", shot.counts[0])
    fields = open_input(tmp_path, Wanted("{well}_{channel}.tif", {"ER": "w2", "DNA": "w1"}))
    assert fields.channels == ("DNA", "ER")
    assert [line for line in fields.notes if "w9" in line]
    assert [line for line in fields.notes if "1 pictures do not match" in line]
    np.testing.assert_array_equal(read_field(fields.fields[0], ("DNA",), "16")[0], from_counts(shot.counts[0]))
    with pytest.raises(InvalidInput, match="Mito=w7 are in no file"):
        open_input(tmp_path, Wanted("{well}_{channel}.tif", {"Mito": "w7"}))
    with pytest.raises(InvalidInput, match="are both"):
        open_input(tmp_path, Wanted(r"(?P<_a>A01)_(?P<channel>w)(?P<_n>\d)\.tif"))

    stacks = tmp_path / "stacks"
    stacks.mkdir()
    tifffile.imwrite(stacks / "B02.tif", shot.counts[:3], photometric="minisblack")
    eight = (shot.counts[:3] >> 8).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(np.moveaxis(eight, 0, -1))).save(stacks / "B03.png")
    with pytest.raises(InvalidInput, match="name its planes"):
        open_input(stacks, Wanted("{well}.tif"))
    tiff, png = (open_input(stacks, Wanted(f"{{well}}.{end}", ("AGP", "ER", "DNA"))) for end in ("tif", "png"))
    assert tiff.channels == ("DNA", "ER", "AGP")
    np.testing.assert_array_equal(read_field(tiff.fields[0], tiff.channels, "16"), from_counts(shot.counts[[2, 1, 0]]))
    np.testing.assert_array_equal(
        read_field(png.fields[0], png.channels, "8"), (eight[[2, 1, 0]] / 255).astype(np.float32)
    )


def test_lzw_files_are_read_without_further_packages(tmp_path: Path) -> None:
    """JUMP's own TIFF files are LZW-compressed; Pillow wrote this one, so another library's reading is the oracle."""
    plane = screen()[0].counts[0]
    Image.fromarray(plane).save(tmp_path / "A01_DNA.tif", compression="tiff_lzw")
    with tifffile.TiffFile(tmp_path / "A01_DNA.tif") as tiff:
        assert tiff.pages[0].compression.name == "LZW"
    fields = open_input(tmp_path, Wanted("{well}_{channel}.tif"))
    np.testing.assert_array_equal(read_field(fields.fields[0], ("DNA",), "16")[0], from_counts(plane))


def test_ranges_are_divisions() -> None:
    for bits, largest in RANGES.items():
        plane = np.array([[0, largest]], np.float32 if bits == "float" else np.uint16 if bits != "8" else np.uint8)
        np.testing.assert_array_equal(unit_range(plane, bits, "x"), [[0.0, 1.0]])
    assert unit_range(np.array([[2048]], np.uint16), "12", "x")[0, 0] == np.float32(2048 / 4095)


BAD_PLANES = {
    "above 12 bits": (np.array([[4096]], np.uint16), "12", "wrong_range"),
    "8-bit file, 16 stated": (np.array([[7]], np.uint8), "16", "wrong_range"),
    "counts, float stated": (np.array([[7]], np.uint16), "float", "wrong_range"),
    "floats, 16 stated": (np.array([[0.5]], np.float32), "16", "wrong_range"),
    "floats above 1": (np.array([[1.5]], np.float32), "float", "wrong_range"),
    "below 0": (np.array([[-1]], np.int16), "16", "wrong_range"),
    "NaN": (np.array([[0.5, np.nan]], np.float32), "float", "not_finite"),
    "infinite": (np.array([[np.inf]], np.float32), "float", "not_finite"),
    "complex": (np.array([[1j]]), "float", "unreadable"),
}


@pytest.mark.parametrize("case", BAD_PLANES)
def test_numbers_that_are_no_pixels(case: str) -> None:
    plane, bits, outcome = BAD_PLANES[case]
    with pytest.raises(BadPicture) as caught:
        unit_range(plane, bits, "x.tif")
    assert caught.value.outcome == outcome


def damage(path: Path, case: str) -> None:
    plane = screen()[0].counts[0]
    content = path.read_bytes()
    match case:
        case "no file":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "last byte":
            path.write_bytes(content[:-1])
        case "half, LZW":
            Image.fromarray(plane).save(path, compression="tiff_lzw")
            path.write_bytes(path.read_bytes()[:9000])
        case "text":
            path.write_text("not a picture")
        case "header only":
            path.write_bytes(content[:8])
        case "other size":
            tifffile.imwrite(path, plane[:100])
        case "two pictures":
            with tifffile.TiffWriter(path) as tiff:
                tiff.write(plane)
                tiff.write(plane[:64])


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("no file", "missing"),
        ("empty", "truncated"),
        ("half", "truncated"),
        ("last byte", "truncated"),
        ("half, LZW", "truncated"),
        ("header only", "truncated"),
        ("text", "unreadable"),
        ("two pictures", "unreadable"),
        ("other size", "wrong_size"),
    ],
)
def test_damaged_files(case: str, outcome: str, tmp_path: Path) -> None:
    write_folder(tmp_path, screen()[:1])
    fields = open_input(tmp_path, Wanted(FOLDER_PATTERN))
    path = fields.fields[0].planes["RNA"].path
    damage(path, case)
    with pytest.raises(BadPicture) as caught:
        read_field(fields.fields[0], CHANNELS, "16")
    assert caught.value.outcome == outcome
    assert path.name in str(caught.value) or outcome == "wrong_size"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_damaged_zarr_chunk_is_unreadable(version: str, tmp_path: Path) -> None:
    """Zarr 2 compresses by Blosc, which decodes half a chunk to noise and says nothing; Zarr 3 by Zstandard."""
    write_ome_zarr(tmp_path, version)
    fields = open_input(tmp_path)
    image = tmp_path / f"{PLATES[0]}.zarr/A/1/1/0"
    chunk = next(p for p in sorted(image.rglob("*")) if p.is_file() and p.stat().st_size > 2000)
    chunk.write_bytes(chunk.read_bytes()[:1000])
    with pytest.raises(BadPicture) as caught:
        read_field(fields.fields[0], CHANNELS, "16")
    assert caught.value.outcome == "unreadable"
    assert read_field(fields.fields[1], CHANNELS, "16").shape == (5, 128, 128)


def test_a_field_without_a_channel_is_missing_not_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    next(tmp_path.rglob("A01_s1_ER.tif")).unlink()
    fields = open_input(tmp_path, Wanted(FOLDER_PATTERN))
    assert len(fields.fields) == len(screen())
    with pytest.raises(BadPicture, match="no picture of ER") as caught:
        read_field(fields.fields[0], CHANNELS, "16")
    assert caught.value.outcome == "missing"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        open_input(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="pattern: none given"):
        open_input(tmp_path)
    with pytest.raises(InvalidInput, match="matches none of the 0 files"):
        open_input(tmp_path, Wanted("{well}_{channel}.tif"))
    with pytest.raises(InvalidInput, match="expected one of folder, ome-tiff"):
        open_input(tmp_path, kind="dicom")
    with pytest.raises(InvalidInput, match="root: means nothing for folder"):
        open_input(tmp_path, Wanted("{well}.tif", root=tmp_path))
    with pytest.raises(InvalidInput, match="source_<n>"):
        open_input(tmp_path, kind="jump")
    (tmp_path / "picture.bmp").write_bytes(b"BM")
    with pytest.raises(InvalidInput, match="one file"):
        open_input(tmp_path / "picture.bmp")
    (tmp_path / "table.csv").write_text("Metadata_Well,FileName_OrigDNA\nA01,gone.tif\n")
    with pytest.raises(InvalidInput, match=r"none of the 1 pictures of table.csv exists.*--root"):
        open_input(tmp_path / "table.csv")
    (tmp_path / "empty.csv").write_text("Metadata_Well,Somewhere\nA01,gone.tif\n")
    with pytest.raises(InvalidInput, match="no column FileName_"):
        open_input(tmp_path / "empty.csv")


def test_ome_tiff_with_unnamed_channels_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", screen()[0].counts, ome=True, metadata={"axes": "CYX"})
    with pytest.raises(InvalidInput, match="expected one distinct name each"):
        open_input(tmp_path)


def test_a_file_of_an_ome_tiff_of_several_files_is_its_own_plane(tmp_path: Path) -> None:
    """Each file's XML describes all channels; read through it, every file would give the first channel."""
    counts = screen()[0].counts[:2]
    files = [f"A01_{name}.ome.tif" for name in ("DNA", "ER")]
    planes = "".join(
        f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{k}</UUID></TiffData>'
        for k, file in enumerate(files)
    )
    for k, file in enumerate(files):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{k}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
            'SizeX="128" SizeY="128" SizeC="2" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" Name="DNA"/>'
            f'<Channel ID="Channel:0:1" Name="ER"/>{planes}</Pixels></Image></OME>'
        )
        tifffile.imwrite(tmp_path / file, counts[k], description=xml, metadata=None)
    assert tifffile.imread(tmp_path / files[1]).shape == (2, 128, 128)  # the trap
    (field,) = open_input(tmp_path, Wanted("{well}_{channel}.ome.tif"), "folder").fields
    np.testing.assert_array_equal(read_field(field, ("DNA", "ER"), "16"), from_counts(counts))


def test_ome_tiff_states_its_bits(tmp_path: Path) -> None:
    float_field = from_counts(screen()[0].counts[:2])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DNA", "ER"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", float_field, ome=True, metadata=metadata, photometric="minisblack")
    fields: FieldSet = open_input(tmp_path)
    assert fields.bits == "float"
    np.testing.assert_array_equal(read_field(fields.fields[0], ("ER", "DNA"), "float"), float_field[::-1])
    assert isinstance(fields.fields[0], Field)


def test_real_jump_and_nf1_fields(real_data: Path) -> None:
    """Files of the wild: LZW TIFF of a JUMP pilot plate by the table of source 4, and NF1 fields by a pattern."""
    jump = real_data / "cell_painting_fields/cpjump1_BR00117010_A01_f01"
    tokens = {stain: str(number) for stain, number in JUMP_CHANNELS["source_4"].items()}
    fields = open_input(jump, Wanted("r{row}c{column}f{site}p01-ch{channel}sk1fk1fl1.tiff", tokens))
    (field,) = fields.fields
    assert field.meta == {"Well": "A01", "Site": "1"}
    pixels = read_field(field, fields.channels, "16")
    assert pixels.shape == (5, 1080, 1080)
    # nuclei are compact and bright on black: the DNA channel has the largest ratio of its top to its median
    ratios = [np.percentile(plane, 99.5) / np.median(plane) for plane in pixels]
    assert fields.channels[int(np.argmax(ratios))] == "DNA"

    microscopes = pd.read_csv(real_data / "jump_metadata/microscope_config.csv")
    assert set(microscopes["Metadata_Source"]) == set(JUMP_CHANNELS)

    nf1 = open_input(
        real_data / "nf1_fields/images",
        Wanted("{well}_01_{_n}_{site}_{channel}_001.tif", {"DNA": "DAPI", "ER": "GFP", "Actin": "RFP"}),
    )
    assert [field.meta["Well"] for field in nf1.fields] == ["B07", "D07", "H12"]
    assert {read_field(field, nf1.channels, "16").shape for field in nf1.fields} == {(3, 904, 1224)}
