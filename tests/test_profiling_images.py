"""OME-TIFF and previews: what is written is what is read, names and evidence included."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from profiling import images

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
EVIDENCE = {"evidence": "simulation", "compound": "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"}


@pytest.fixture
def pixels() -> np.ndarray:
    counts = np.random.default_rng(0).integers(0, 65536, (5, 24, 32)).astype(np.uint16)
    counts[0, 0, :2] = 0, 65535
    return images.from_counts(counts)


def test_round_trip_keeps_pixels_names_size_and_annotation(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "field.ome.tiff"
    images.write_ome_tiff(path, pixels, CHANNELS, annotation=EVIDENCE, pixel_size_um=1.3)
    back = images.read_ome_tiff(path)
    assert np.array_equal(back.pixels, pixels)
    assert back.channels == CHANNELS
    assert back.pixel_size_um == pytest.approx(1.3)
    assert back.annotation == EVIDENCE


def test_other_readers_see_named_16_bit_channels_and_the_evidence(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "field.ome.tiff"
    images.write_ome_tiff(path, pixels, CHANNELS, annotation=EVIDENCE, pixel_size_um=0.65)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        assert file.series[0].dtype == np.uint16
        assert file.pages[0].asarray()[0, 1] == 65535
        xml = file.ome_metadata
    assert xml is not None
    assert 'PhysicalSizeX="0.65"' in xml
    assert all(f'Name="{name}"' in xml for name in CHANNELS)
    assert "simulation" in xml


def test_same_picture_same_bytes(tmp_path: Path, pixels: np.ndarray) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        images.write_ome_tiff(tmp_path / name / "field.ome.tiff", pixels, CHANNELS, annotation=EVIDENCE)
    assert (tmp_path / "a/field.ome.tiff").read_bytes() == (tmp_path / "b/field.ome.tiff").read_bytes()


def test_counts_round_to_the_nearest_and_refuse_other_ranges() -> None:
    assert images.to_counts(np.array([0.0, 0.49 / 65535, 0.51 / 65535, 1.0])).tolist() == [0, 0, 1, 65535]
    for bad in ([-0.01, 0.5], [0.5, 1.01], [np.nan, 0.5]):
        with pytest.raises(images.InvalidImage, match="from 0 to 1"):
            images.to_counts(np.array(bad))


def test_unnamed_channels_and_missing_evidence_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "x.ome.tiff"
    for names in (CHANNELS[:4], ("DNA", "", "RNA", "AGP", "Mito"), ("DNA", "DNA", "RNA", "AGP", "Mito")):
        with pytest.raises(images.InvalidImage, match="one distinct name"):
            images.write_ome_tiff(path, pixels, names, annotation=EVIDENCE)
    with pytest.raises(images.InvalidImage, match="evidence"):
        images.write_ome_tiff(path, pixels, CHANNELS, annotation={"compound": "x"})
    with pytest.raises(images.InvalidImage, match="positive"):
        images.write_ome_tiff(path, pixels, CHANNELS, annotation=EVIDENCE, pixel_size_um=0.0)
    assert not path.exists()


def test_files_that_are_no_named_pictures_are_refused(tmp_path: Path) -> None:
    plain, unnamed, text = tmp_path / "plain.tif", tmp_path / "unnamed.ome.tif", tmp_path / "text.tif"
    tifffile.imwrite(plain, np.zeros((5, 8, 8), np.uint16))
    tifffile.imwrite(unnamed, np.zeros((5, 8, 8), np.uint16), ome=True, metadata={"axes": "CYX"})
    text.write_text("no tiff")
    with pytest.raises(images.InvalidImage, match="no OME-TIFF"):
        images.read_ome_tiff(plain)
    with pytest.raises(images.InvalidImage, match="one distinct name"):
        images.read_ome_tiff(unnamed)
    with pytest.raises(images.InvalidImage, match="cannot be read"):
        images.read_ome_tiff(text)


def test_composite_paints_each_channel_in_its_colour() -> None:
    pixels = np.zeros((2, 4, 4), np.float32)
    pixels[0, 0, 0] = 0.2  # DNA at its white
    pixels[1, 1, 1] = 0.3  # ER half way from black to white
    ranges = {"DNA": (0.0, 0.2), "ER": (0.2, 0.4)}
    rgb = images.composite(pixels, ("DNA", "ER"), ranges)
    assert rgb[0, 0].tolist() == [0, 51, 255]
    assert rgb[1, 1].tolist() == [0, 102, 26]
    assert not rgb[2, 2].any()
    with pytest.raises(images.InvalidImage, match="no colour for Brightfield"):
        images.composite(pixels, ("DNA", "Brightfield"), {"DNA": (0.0, 1.0), "Brightfield": (0.0, 1.0)})
    with pytest.raises(images.InvalidImage, match="none for channel ER"):
        images.composite(pixels, ("DNA", "ER"), {"DNA": (0.0, 1.0)})


def test_ranges_are_shared_by_all_pictures() -> None:
    pictures = np.zeros((2, 1, 10, 10), np.float32)
    pictures[1] = 0.5
    (black, white) = images.display_ranges(pictures, ("DNA",), low=0.0, high=100.0)["DNA"]
    assert (black, white) == (0.0, 0.5)
    assert images.grey(pictures[1, 0], "DNA", {"DNA": (black, white)}).min() == 255


def test_preview_is_magnified_and_says_what_it_is(tmp_path: Path) -> None:
    images.write_png(tmp_path / "p.png", np.full((3, 4), 7, np.uint8), {"evidence": "simulation"}, magnify=2)
    with Image.open(tmp_path / "p.png") as preview:
        assert preview.size == (8, 6)
        assert preview.info["evidence"] == "simulation"
        assert np.asarray(preview)[5, 7] == 7
