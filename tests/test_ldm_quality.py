"""Ceiling and condition-use measures on values whose answer is known."""

import numpy as np
import pytest

from ldm.quality import QualityError, autoencoder_ceiling, ceiling, cosine, family, r_squared

RNG = np.random.default_rng(0)


def test_r_squared_of_known_noise() -> None:
    true = RNG.standard_normal((20000, 3)) * [1.0, 10.0, 0.0] + 5.0
    decoded = true + RNG.standard_normal(true.shape) * [0.5, 10.0, 0.0]
    values = r_squared(true, decoded)
    np.testing.assert_allclose(values[:2], [0.75, 0.0], atol=0.03)
    assert np.isnan(values[2])


def test_rows_without_cells_are_left_out_of_r_squared() -> None:
    true = RNG.standard_normal((50, 1))
    decoded = true + 0.1
    true[3], decoded[4] = np.nan, np.nan
    keep = np.delete(np.arange(50), [3, 4])
    np.testing.assert_allclose(r_squared(true, decoded), r_squared(true[keep], decoded[keep]))


def test_ceiling_names_the_weak_families() -> None:
    names = ("Cells_Texture_Contrast_DNA", "Nuclei_Texture_Entropy_ER", "Cells_AreaShape_Area", "Image_Count_Cells")
    true = RNG.standard_normal((5000, 4))
    result = ceiling(true, true + RNG.standard_normal(true.shape) * [1.0, 1.0, 0.1, 0.0], names)
    assert result["weak"] == ["Texture"]
    assert result["families"]["AreaShape"] == pytest.approx(0.99, abs=0.002)
    assert result["families"]["Count"] == 1.0
    assert list(result["features"]) == list(names)
    assert family("Cells_Texture_Contrast_DNA") == "Texture"


def test_ceiling_takes_any_features() -> None:
    pictures = RNG.random((8, 2, 4, 4))
    result = autoencoder_ceiling(pictures, lambda p: p, lambda p: (p.mean(axis=(2, 3)), ("a_Mean_0", "a_Mean_1")))
    assert result["median"] == 1.0


def test_cosine_of_known_effects() -> None:
    true = RNG.standard_normal((6, 40))
    np.testing.assert_allclose(cosine(true, 0.3 * true), 1.0)
    np.testing.assert_allclose(cosine(true, -true), -1.0)
    np.testing.assert_allclose(cosine(true, np.zeros_like(true)), 0.0)
    with pytest.raises(QualityError, match="measure the same rows"):
        cosine(true, true[:3])
