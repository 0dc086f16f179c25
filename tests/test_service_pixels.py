"""Pixels as plain bytes: what a viewer reads is what the file holds."""

from pathlib import Path

import numpy as np
import pytest

from profiling.images import InvalidImage, write_ome_tiff
from service.pixels import halved, raw

CHANNELS = ("DNA", "ER")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(3).uniform(0, 1, (2, 6, 8)).astype(np.float32)
    write_ome_tiff(tmp_path / "one.ome.tiff", pixels, CHANNELS, annotation={"evidence": "simulation"})
    return tmp_path / "one.ome.tiff"


def test_the_bytes_are_the_counts_of_the_file(file: Path) -> None:
    import tifffile

    answer = raw(file)
    assert answer.shape == (2, 6, 8)
    assert answer.headers == {"X-Dopaint-Shape": "2,6,8", "X-Dopaint-Channels": "DNA,ER"}
    counts = np.frombuffer(answer.data, "<u2").reshape(answer.shape)
    np.testing.assert_array_equal(counts, tifffile.imread(file))


def test_a_bound_halves_the_picture_and_keeps_its_mean(file: Path) -> None:
    whole = np.frombuffer(raw(file).data, "<u2").reshape(2, 6, 8)
    small = np.frombuffer(raw(file, 4).data, "<u2").reshape(2, 3, 4)
    blocks = whole[:, :2, :2].astype(float).mean((1, 2))
    np.testing.assert_allclose(small[:, 0, 0], blocks, atol=0.51)  # half a count of rounding
    assert raw(file, 8).shape == (2, 6, 8)
    assert raw(file, 1).shape == (2, 1, 1)


def test_an_odd_edge_is_repeated_not_darkened() -> None:
    np.testing.assert_array_equal(halved(np.ones((1, 3, 5), np.float32)), np.ones((1, 2, 3), np.float32))


def test_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.ome.tiff").write_bytes(b"nothing")
    with pytest.raises(InvalidImage, match="cannot be read"):
        raw(tmp_path / "no.ome.tiff")
