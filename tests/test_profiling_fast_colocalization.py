"""Colocalization: CellProfiler's numbers with Costes, the definitions written out, ranks over all objects, pictures."""

import numpy as np
import pytest
import scipy.stats
from fast_golden import CHANNELS, FIELDS, OBJECTS, far, load

from profiling.engines.families import colocalization, colocalization_image, costes
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Colocalization
from profiling.engines.settings import InvalidSettings


def asked(where: str = "Within objects", costes: bool = False, method: str = "Faster") -> Colocalization:
    return Colocalization(("DNA", "ER"), 0.15, where, OBJECTS, True, True, True, True, costes, method)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("owner", OBJECTS)
def test_values_are_those_of_cellprofiler(field: str, owner: str) -> None:
    """All of them, Costes with the settings `full`; 1.2e-7 is twice what the goldens' float32 keeps."""
    golden = load(field)
    everything = golden.settings == "full"
    settings = Colocalization(CHANNELS, 0.15, "Within objects", OBJECTS, True, True, True, True, everything, "Faster")
    values = colocalization.measure(regions(golden.labels[owner]), golden.pictures, settings)
    assert far(golden, owner, colocalization.names(settings), values, 1.2e-7) == {}


def scene() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4, dtype=np.int32), 150).reshape(20, 30)
    x = rng.integers(0, 40, (20, 30)).astype(np.float32) / 64
    y = (0.5 * x + 0.5 * rng.random((20, 30))).astype(np.float32)
    return labels, {"DNA": x, "ER": y}


def dense(values: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.stats.rankdata(values, "dense") - 1, int)


@pytest.mark.parametrize("stable", [False, True])
def test_the_definitions(stable: bool) -> None:
    labels, pictures = scene()
    settings = asked()
    found = dict(
        zip(
            colocalization.names(settings),
            colocalization.measure(regions(labels), pictures, settings, stable=stable).T,
            strict=True,
        )
    )
    inside = labels > 0
    ranks = {name: np.zeros(labels.shape, int) for name in pictures}
    for name, plane in pictures.items():
        ranks[name][inside] = dense(plane[inside])
    for k in range(3):
        own = labels == k + 1
        x, y = (pictures[name][own].astype(float) for name in ("DNA", "ER"))
        rx, ry = (dense(z) if stable else ranks[name][own] for z, name in ((x, "DNA"), (y, "ER")))
        top = max(rx.max(), ry.max()) + 1 if stable else max(r.max() for r in ranks.values()) + 1
        high_x, high_y = x >= np.float32(0.15) * x.max(), y >= np.float32(0.15) * y.max()
        both = high_x & high_y
        weight = (1 - np.abs(rx - ry) / top)[both]
        expected = {
            "Correlation_Correlation_DNA_ER": np.corrcoef(x, y)[0, 1],
            "Correlation_Manders_DNA_ER": x[both].sum() / x[high_x].sum(),
            "Correlation_Manders_ER_DNA": y[both].sum() / y[high_y].sum(),
            "Correlation_RWC_DNA_ER": (x[both] * weight).sum() / x[high_x].sum(),
            "Correlation_RWC_ER_DNA": (y[both] * weight).sum() / y[high_y].sum(),
            "Correlation_Overlap_DNA_ER": (x * y)[both].sum() / np.sqrt((x**2)[both].sum() * (y**2)[both].sum()),
            "Correlation_K_DNA_ER": (x * y)[both].sum() / (x**2)[both].sum(),
            "Correlation_K_ER_DNA": (x * y)[both].sum() / (y**2)[both].sum(),
        }
        for name, value in expected.items():  # 2e-7: products are rounded to float32
            assert found[name][k] == pytest.approx(value, rel=2e-7), name
    assert len(found) == len(expected)


def test_ranks_know_the_other_objects_unless_stable() -> None:
    labels, pictures = scene()
    alone = np.where(labels == 1, 1, 0).astype(np.int32)
    settings = asked()
    column = colocalization.names(settings).index("Correlation_RWC_DNA_ER")

    def first(image: np.ndarray, stable: bool) -> np.ndarray:
        return colocalization.measure(regions(image), pictures, settings, stable=stable)[0]

    assert first(labels, False)[column] != first(alone, False)[column]
    np.testing.assert_array_equal(first(labels, True), first(alone, True))


def test_nothing_in_both_is_zero_for_all() -> None:
    labels = np.ones((4, 6), np.int32)
    x, y = np.zeros((4, 6), np.float32), np.zeros((4, 6), np.float32)
    x[:, :3], y[:, 3:] = 0.5, 0.5
    values = colocalization.measure(regions(labels), {"DNA": x, "ER": y}, asked())[0]
    assert values.tolist() == [pytest.approx(-1), 0, 0, 0, 0, 0, 0, 0]


def test_costes_leaves_what_does_not_correlate_below() -> None:
    """Two channels share bright spots over independent noise: the threshold lies between noise and spots."""
    rng = np.random.default_rng(0)
    spots = (rng.random((96, 96)) < 0.1) * rng.uniform(0.3, 0.9, (96, 96))
    x, y = ((spots + rng.uniform(0.02, 0.2, (96, 96))).astype(np.float32) / 2 for _ in range(2))
    limits = {method: costes.threshold(x, y, method) for method in costes.METHODS}
    for limit_x, limit_y in limits.values():
        below = (x < limit_x) | (y < limit_y)
        assert 0.03 < limit_x < 0.17
        assert np.corrcoef(x[below], y[below])[0, 1] < 0.1
    assert limits["Fast"][0] == pytest.approx(limits["Accurate"][0], abs=0.02)
    with pytest.raises(InvalidSettings, match="Faster"):
        costes.threshold(x, y, "Quick")


def test_a_pictures_correlation_below_thresholds() -> None:
    rng = np.random.default_rng(1)
    x = rng.random(4000).astype(np.float32)
    y = (0.3 * x + rng.random(4000)).astype(np.float32) / 2
    below = (x < np.float32(0.4)) | (y < np.float32(0.2))
    count, r = costes._below(x, y, np.float32(0.4), np.float32(0.2))
    assert count == below.sum()
    assert r == pytest.approx(scipy.stats.pearsonr(x[below].astype(float), y[below].astype(float))[0], rel=1e-9)


def test_whole_pictures() -> None:
    _, pictures = scene()
    settings = asked("Both", costes=True)
    names = colocalization.image_names(settings)
    found = dict(zip(names, colocalization.measure_image(pictures, settings), strict=True))
    x, y = (pictures[name].ravel().astype(float) for name in ("DNA", "ER"))
    slope = np.polyfit(x, y, 1)[0]
    assert found["Correlation_Slope_DNA_ER"] == pytest.approx(slope, rel=1e-9)
    assert found["Correlation_Correlation_DNA_ER"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-12)
    both = (x > 0.15 * x.max()) & (y > 0.15 * y.max())
    assert found["Correlation_Manders_DNA_ER"] == pytest.approx(x[both].sum() / x[x > 0.15 * x.max()].sum(), rel=1e-9)
    weight = 1 - np.abs(dense(x) - dense(y)) / max(dense(x).max() + 1, dense(y).max() + 1)
    ranked = (x * weight)[both].sum() / x[x > 0.15 * x.max()].sum()
    assert found["Correlation_RWC_DNA_ER"] == pytest.approx(ranked, rel=1e-9)
    assert found["Correlation_K_ER_DNA"] == pytest.approx((x * y)[both].sum() / (y * y)[both].sum(), rel=1e-9)
    assert np.isfinite(found["Correlation_Costes_DNA_ER"])
    assert len(names) == len(set(names)) == 11
    assert colocalization.image_names(asked()) == colocalization.names(asked("Across entire image")) == ()
    assert colocalization_image.names(settings) == names
