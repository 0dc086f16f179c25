"""Haralick's features: CellProfiler's numbers, the definition written out, levels, and what must not change them."""

import numpy as np
import pytest
from fast_golden import CHANNELS, FIELDS, OBJECTS, far, load
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.engines.families import texture
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Texture

OFFSETS = ((0, 1), (1, 1), (1, 0), (1, -1))


def asked(scales: tuple[int, ...], where: str = "Objects", levels: int = 256) -> Texture:
    return Texture(CHANNELS, OBJECTS, levels, where, scales)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("owner", OBJECTS)
def test_values_are_those_of_cellprofiler(field: str, owner: str) -> None:
    """All of them; 1.2e-7 is twice what the goldens' float32 keeps."""
    golden = load(field)
    of = asked((1, 2, 4) if golden.settings == "sim128" else (3, 5, 10))
    values = texture.measure(regions(golden.labels[owner]), golden.pictures, of)
    assert far(golden, owner, texture.names(of), values, 1.2e-7) == {}


@pytest.mark.parametrize("field", ["jump_border", "jump_field384"])
def test_whole_pictures_are_those_of_cellprofiler(field: str) -> None:
    """Counts are exact here and products of shares there: 1e-10 relative is what differences of both can lose."""
    golden = load(field)
    of = asked((3, 5, 10), "Both")
    assert far(golden, "Image", texture.image_names(of), texture.measure_image(golden.pictures, of), 1e-10) == {}


def by_definition(levels: np.ndarray, inside: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Haralick's features from the full co-occurrence matrix, term by term."""
    top = int(levels[inside].max()) + 1
    p = np.zeros((top, top))
    h, w = levels.shape
    for y in range(h):
        for x in range(w):
            yy, xx = y + dy, x + dx
            if 0 <= yy < h and 0 <= xx < w and inside[y, x] and inside[yy, xx]:
                p[levels[y, x], levels[yy, xx]] += 1
                p[levels[yy, xx], levels[y, x]] += 1
    p /= p.sum()
    i, j = np.indices(p.shape)
    px, k = p.sum(1), np.arange(top)
    mu = (k * px).sum()
    var = ((k - mu) ** 2 * px).sum()
    plus = np.array([p[i + j == s].sum() for s in range(2 * top)])
    minus = np.array([p[np.abs(i - j) == s].sum() for s in range(top)])
    s = np.arange(2 * top)

    def entropy(q: np.ndarray) -> float:
        q = q[q > 0]
        return float(-(q * np.log2(q)).sum())

    hxy, hx, outer = entropy(p.ravel()), entropy(px), np.outer(px, px)
    hxy1 = -(p[outer > 0] * np.log2(outer[outer > 0])).sum()
    mean_sum = (s * plus).sum()
    return np.array([
        (p**2).sum(), (k * k * minus).sum(), ((i - mu) * (j - mu) * p).sum() / var, var, (p / (1 + (i - j) ** 2)).sum(),
        mean_sum, ((s - mean_sum) ** 2 * plus).sum(), entropy(plus), hxy, minus.var(), entropy(minus),
        (hxy - hxy1) / hx, np.sqrt(max(0.0, 1 - np.exp(-2 * (entropy(outer.ravel()) - hxy)))),
    ])  # fmt: skip


def test_an_object_and_a_picture_are_their_definition() -> None:
    rng = np.random.default_rng(0)
    picture = (rng.integers(0, 9, (24, 20)) / 255).astype(np.float32)
    labels = np.zeros(picture.shape, np.int32)
    labels[2:15, 3:18], labels[15:22, 1:12] = 1, 2
    labels[4, 5] = 2  # a pixel of one inside the other
    of = Texture(("DNA",), ("Cells",), 256, "Both", (1, 3))
    values = texture.measure(regions(labels), {"DNA": picture}, of).reshape(2, 13, 2, 4)
    whole = texture.measure_image({"DNA": picture}, of).reshape(13, 2, 4)
    levels = np.rint(picture * 255).astype(int)
    for s, distance in enumerate((1, 3)):
        for d, (dy, dx) in enumerate(OFFSETS):
            expected = by_definition(levels, np.ones(levels.shape, bool), dy * distance, dx * distance)
            np.testing.assert_allclose(whole[:, s, d], expected, rtol=1e-11, atol=1e-13)
            for k in range(2):
                expected = by_definition(levels, (labels == k + 1) & (levels > 0), dy * distance, dx * distance)
                np.testing.assert_allclose(values[k, :, s, d], expected, rtol=1e-11, atol=1e-13)


def test_counts_beyond_the_table_of_logarithms() -> None:
    """Two levels in a large object: cells hold tens of thousands of pairs."""
    picture = np.where(np.random.default_rng(1).random((160, 160)) < 0.5, 3, 4).astype(np.float32) / np.float32(255)
    of = Texture(("DNA",), ("Cells",), 256, "Both", (1,))
    labels = np.ones(picture.shape, np.int32)
    inside = texture.measure(regions(labels), {"DNA": picture}, of)[0]
    # The entropy of an object grows pair by pair: 50,000 additions to some 1e6 lose 1e-10, over twice as many pairs.
    np.testing.assert_allclose(inside, texture.measure_image({"DNA": picture}, of), rtol=1e-12, atol=1e-10)
    expected = by_definition(np.rint(picture * 255).astype(int), labels > 0, 0, 1)
    np.testing.assert_allclose(inside.reshape(13, 4)[:, 0], expected, rtol=1e-9, atol=1e-12)


def test_one_level_and_no_pairs() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[1:4, 1:12], labels[8:18, 5:15] = 1, 2
    of = Texture(("DNA",), ("Cells",), 256, "Objects", (2, 5))
    values = texture.measure(regions(labels), {"DNA": np.full((20, 20), 0.5, np.float32)}, of).reshape(2, 13, 2, 4)
    even = np.zeros(13)
    # An even object: one pair of levels (128 twice), of 129 possible differences one occurs.
    even[[0, 2, 4, 5, 9]] = 1, 1, 1, 256, (1 / 129) * (1 - 1 / 129)
    np.testing.assert_allclose(values[1, :, 1, 0], even, rtol=1e-12)
    assert not values[0, :, 1].any()  # three rows high: no pair five rows apart, so nothing in any direction
    assert values[0, 0, 0].all()
    black = texture.measure(regions(labels), {"DNA": np.zeros((20, 20), np.float32)}, of)
    assert not black.any()


def test_fewer_levels_are_cut_from_eight_bits() -> None:
    picture = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(texture.quantise(picture, 16).ravel(), np.arange(256) * 15 // 255)
    assert texture.quantise(np.array([[0.5, 1.5 / 255, 2.5 / 255]], np.float32)).tolist() == [[128, 2, 2]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 6))
def test_a_shift_changes_nothing_and_labels_name_rows(seed: int, down: int, right: int) -> None:
    rng = np.random.default_rng(seed)
    patch, names = rng.random((12, 14)).astype(np.float32), rng.integers(0, 4, (12, 14)).astype(np.int32)
    of = Texture(("DNA",), ("Cells",), 256, "Objects", (1, 2))

    def measured(dy: int, dx: int, order: np.ndarray) -> np.ndarray:
        picture, labels = np.zeros((20, 22), np.float32), np.zeros((20, 22), np.int32)
        picture[dy : dy + 12, dx : dx + 14] = patch
        labels[dy : dy + 12, dx : dx + 14] = np.concatenate([[0], order])[names]
        return texture.measure(regions(labels, 3), {"DNA": picture}, of)

    straight = measured(0, 0, np.array([1, 2, 3]))
    np.testing.assert_array_equal(measured(down, right, np.array([3, 1, 2]))[[2, 0, 1]], straight)
