"""The slot for learned engines, and the untrained control in it."""

from pathlib import Path

import numpy as np
import pytest

from profiling.embedders import EMBEDDERS, Embedder, InvalidEmbedder, cell_vectors, column_names, field_vector
from profiling.embedders.embedding import check_pictures
from profiling.embedders.random_conv import FILTERS, SIDES, random_filters

CHANNELS = ("DNA", "ER")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).random((3, 2, 24, 20), dtype=np.float32)


@pytest.mark.parametrize("name", sorted(EMBEDDERS))
def test_every_embedder_names_its_columns_and_is_blind_to_the_rest_of_the_batch(
    name: str, pictures: np.ndarray
) -> None:
    with EMBEDDERS[name](None) as embedder:
        assert isinstance(embedder, Embedder)
        told: list[int] = []
        together = embedder.measure(pictures, CHANNELS, told.append)
        assert told == [1, 2, 3]
        for i in (2, 0, 1):
            ((names, values),) = embedder.measure(pictures[i : i + 1], CHANNELS)[0].objects.values()
            assert names == column_names(name, len(names))
            ((_, batch),) = together[i].objects.values()
            np.testing.assert_array_equal(values, batch)


def test_names_sort_as_numbers() -> None:
    assert column_names("x", 3) == ("x_000", "x_001", "x_002")
    many = column_names("x", 1001)
    assert many[1000] == "x_1000"
    assert list(many) == sorted(many)


def test_random_conv_is_a_loop_over_pixels(pictures: np.ndarray) -> None:
    """Parity with the definition, written as loops, on one filter of each size and the second channel."""
    ((_, values),) = EMBEDDERS["random_conv"](None).measure(pictures[:1], CHANNELS)[0].objects.values()
    filters = random_filters()
    assert values.shape == (1, 2 * len(filters) * 2)
    plane = pictures[0, 1].astype(float)
    for k in range(0, len(filters), FILTERS):
        kernel = filters[k][::-1, ::-1]  # a convolution turns its kernel
        side = len(kernel)
        response = [
            max(float((plane[y : y + side, x : x + side] * kernel).sum()), 0.0)
            for y in range(24 - side + 1)
            for x in range(20 - side + 1)
        ]
        at = 2 * (len(filters) + k)
        # sums of at most 225 products of numbers below 1, by FFT: a few units in the 15th place
        np.testing.assert_allclose(values[0, at : at + 2], [np.mean(response), np.std(response)], rtol=1e-11)


def test_random_filters_are_fixed_and_blind_to_brightness() -> None:
    for one in random_filters():
        assert abs(one.sum()) < 1e-12
        assert (one**2).sum() == pytest.approx(1.0)
    assert [len(one) for one in random_filters()] == [side for side in SIDES for _ in range(FILTERS)]


def test_vectors_of_cells_and_fields() -> None:
    field = field_vector("a", np.arange(4.0))
    assert field.outcome == "ok"
    assert field.objects["Field"].values.shape == (1, 4)
    cells = cell_vectors("a", np.ones((5, 4)))
    assert cells.objects["Cells"].names[-1] == "a_003"
    assert cell_vectors("a", np.ones((0, 4))).outcome == "no_cells"


def test_refusals(pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InvalidEmbedder, match="never trained"):
        EMBEDDERS["random_conv"](tmp_path)
    control = EMBEDDERS["random_conv"](None)
    with pytest.raises(InvalidEmbedder, match="at least 15"):
        control.measure(pictures[..., :10], CHANNELS)
    with pytest.raises(InvalidEmbedder, match="one distinct name"):
        control.measure(pictures, ("DNA", "DNA"))
    with pytest.raises(InvalidEmbedder, match="float32"):
        check_pictures(pictures[0], CHANNELS)
