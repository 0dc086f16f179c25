"""Mutual nearest neighbours and Scanorama: a naive loop, the package's own numbers, a world with a shift."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.external import external
from profiling.mnn import MnnConfig, _per_row, _smoothed, _without, mnn, mutual_pairs
from profiling.profiles import InvalidProfiles, Profiles
from profiling.scanorama import ScanoramaConfig, assemble, matches, scanorama
from profiling.tables import write_profiles

GOLDEN = Path(__file__).parent / "golden" / "profiling" / "scanorama.npz"


def world(seed=0, n=80, d=20):
    """Two batches with a shift; kind 3 is in the second only. The truth is the rows without the shift."""
    rng = np.random.default_rng(seed)
    centres = 8.0 * rng.normal(size=(4, d))
    kind = np.concatenate([rng.integers(0, 3, n), rng.integers(0, 4, n)])
    batch = np.repeat(["a", "b"], n)
    truth = centres[kind] + rng.normal(size=(2 * n, d))
    shift = rng.normal(size=d)
    return truth, truth + np.outer(batch == "b", 4.0 * shift / np.linalg.norm(shift)), batch, kind


def gap(values, batch, kind):
    """Distance between the batches' means of a kind, in units of the spread within it; mean over shared kinds."""
    gaps = []
    for k in range(3):
        a, b = (values[(batch == w) & (kind == k)] for w in ("a", "b"))
        gaps.append(np.linalg.norm(a.mean(axis=0) - b.mean(axis=0)) / a.std(axis=0).mean())
    return float(np.mean(gaps))


def test_mutual_pairs_equal_the_naive_loop():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(15, 3)), rng.normal(size=(11, 3))
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    want = {
        (i, j)
        for i in range(15)
        for j in range(11)
        if j in np.argsort(distance[i])[:4] and i in np.argsort(distance[:, j])[:4]
    }
    first, second = mutual_pairs(a, b, 4)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == want


def test_smoothing_equals_the_naive_tricube():
    rng = np.random.default_rng(2)
    x, anchors, difference = rng.normal(size=(6, 3)), rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    got = _smoothed(x, anchors, difference, MnnConfig(neighbours=5))
    for i in range(6):
        distance = np.linalg.norm(anchors - x[i], axis=1)
        near = np.argsort(distance)[:5]
        bandwidth = 3.0 * distance[near[2]]  # the middle one of five
        weight = np.array([max(0.0, 1 - (distance[j] / bandwidth) ** 3) ** 3 for j in near])
        np.testing.assert_allclose(got[i], weight @ difference[near] / weight.sum(), atol=1e-12)
    at, mean = _per_row(difference[:4], np.array([2, 0, 2, 2]))
    assert at.tolist() == [0, 2]
    np.testing.assert_allclose(mean[1], difference[[0, 2, 3]].mean(axis=0))
    flat = _without(x, np.array([0.0, 2.0, 0.0]))
    np.testing.assert_allclose(flat[:, 1], x[:, 1].mean())
    np.testing.assert_allclose(flat[:, [0, 2]], x[:, [0, 2]])


@pytest.mark.parametrize("method", ["mnn", "scanorama"])
def test_a_shift_is_removed_and_a_kind_of_one_batch_stays_apart(method):
    _, shifted, batch, kind = world()
    before = gap(shifted, batch, kind)
    if method == "mnn":
        merged = mnn(shifted, batch, order=["a", "b"])
        values = merged.values
        assert merged.pairs[0] > 40
    else:
        values = scanorama(shifted, batch)
    assert gap(values, batch, kind) < 0.35 * before
    centre = np.stack([values[kind == k].mean(axis=0) for k in range(4)])
    nearest = np.linalg.norm(values[kind == 3][:, None] - centre[None], axis=2).argmin(axis=1)
    assert (nearest == 3).all()


@pytest.mark.parametrize("name", ["two", "lonely", "many"])
def test_scanorama_equals_the_package(name):
    """Components are free in sign, so distances between rows are compared; 1e-6 covers another order of sums."""
    golden = np.load(GOLDEN)
    got = scanorama(golden[f"{name}_values"], golden[f"{name}_batch"])
    want = golden[f"{name}_result"]
    assert got.shape == want.shape
    sign = np.sign((got * want).sum(axis=0))
    np.testing.assert_allclose(got * sign, want, atol=1e-6)


def test_scanorama_leaves_a_batch_without_matches_alone():
    rng = np.random.default_rng(3)
    far = 9.0 * np.eye(4)[0]
    parts = [rng.normal(size=(30, 4)) + far, rng.normal(size=(30, 4)) - far]
    found = matches(parts, neighbours=3)
    assert set(found) == {(0, 1)}
    alone = assemble(parts, ScanoramaConfig(least=1.0))
    for one, other in zip(alone, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_external_results_are_joined_by_key(tmp_path):
    meta = pd.DataFrame({"Metadata_Plate": ["p", "p", "q"], "Metadata_Well": ["A1", "A2", "A1"]})
    mine = Profiles(meta.assign(Metadata_Compound=["x", "y", "z"]), np.zeros((3, 1)), ("f",))
    made = Profiles(meta.iloc[[2, 0, 1]].reset_index(drop=True), np.array([[3.0, 30], [1, 10], [2, 20]]), ("a", "b"))
    write_profiles(made, tmp_path / "made.parquet")
    got = external(mine, tmp_path / "made.parquet", ["Plate", "Well"], "fastMNN, batchelor 1.22")
    np.testing.assert_array_equal(got.values, [[1, 10], [2, 20], [3, 30]])
    assert got.names == ("a", "b")
    assert set(got.meta["Metadata_Corrected_By"]) == {"fastMNN, batchelor 1.22"}
    assert got.meta["Metadata_Compound"].tolist() == ["x", "y", "z"]
    with pytest.raises(InvalidProfiles, match="twice"):
        external(mine, tmp_path / "made.parquet", ["Plate"], "m")
    write_profiles(made.rows([0, 1]), tmp_path / "less.parquet")
    with pytest.raises(InvalidProfiles, match="lacks 1 of 3 rows"):
        external(mine, tmp_path / "less.parquet", ["Plate", "Well"], "m")
    with pytest.raises(InvalidProfiles, match="method is empty"):
        external(mine, tmp_path / "made.parquet", ["Plate", "Well"], " ")


def test_refusals():
    _, shifted, batch, _ = world()
    for method in (mnn, scanorama):
        with pytest.raises(InvalidProfiles, match="one value only"):
            method(shifted, ["a"] * 160)
        with pytest.raises(InvalidProfiles, match="NaN"):
            method(np.where(shifted > 9, np.nan, shifted), batch)
    with pytest.raises(InvalidProfiles, match="expected every batch once"):
        mnn(shifted, batch, order=["a", "c"])
