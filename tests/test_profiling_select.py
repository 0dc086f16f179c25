"""Feature selection: each rule against pycytominer, and the whole with a reason for each feature that goes."""

import warnings

import numpy as np
import pandas as pd
import pytest

from profiling.correlation import correlations
from profiling.profiles import InvalidProfiles, Profiles
from profiling.select import (
    SelectConfig,
    Selection,
    blocklisted,
    select,
    too_correlated,
    too_extreme,
    too_often_missing,
    too_repetitive,
    too_steady,
)


def features(seed, n=120, k=30, holes=0.0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 8)) @ rng.normal(size=(8, k)) + 0.6 * rng.normal(size=(n, k))
    values[:, :4] = np.round(values[:, :4])  # repeated values
    values[:, 4] = 1.0
    values[: n - 3, 5] = 0.0
    values[:, 6] = np.where(values[:, 6] > 0, 1.0, 2.0)
    values[:, 7] *= 1e-5
    values[rng.random((n, k)) < holes] = np.nan
    return values, [f"Cells_f{i}" for i in range(k)]


def oracle(operation):
    pytest.importorskip("pycytominer", reason="the oracle pycytominer is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer import operations
    return getattr(operations, operation)


def excluded_by(operation, values, names, **options):
    table = pd.DataFrame(values, columns=names)
    gone = oracle(operation)(table, features=list(names), **options)
    return [name in set(gone) for name in names]


@pytest.mark.parametrize("cutoff", [0.05, 0.1, 0.12])
def test_missing(cutoff):
    values, names = features(1, holes=0.1)
    assert too_often_missing(values, cutoff).tolist() == excluded_by("get_na_columns", values, names, cutoff=cutoff)


@pytest.mark.parametrize(("frequency", "unique"), [(0.05, 0.01), (0.6, 0.01), (0.05, 0.1)])
@pytest.mark.parametrize("holes", [0.0, 0.05])
def test_repetitive(frequency, unique, holes):
    values, names = features(2, holes=holes)
    want = excluded_by("frequency_threshold", values, names, freq_cut=frequency, unique_cut=unique)
    assert too_repetitive(values, frequency, unique).tolist() == want
    assert want[4]
    assert want[5]


def test_variance():
    values, names = features(3)
    assert too_steady(values).tolist() == excluded_by("variance_threshold", values, names)
    assert np.flatnonzero(too_steady(values)).tolist() == [4, 7]


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("holes", [0.0, 0.05])
def test_correlation(threshold, holes):
    values, names = features(4, holes=holes)
    keep = [i for i in range(len(names)) if i not in (4, 5, 6, 7)]
    values, names = values[:, keep], [names[i] for i in keep]
    got = too_correlated(values, threshold, absolute=False).tolist()
    assert got == excluded_by("correlation_threshold", values, names, threshold=threshold)
    kept = np.abs(np.corrcoef(values[:, ~too_correlated(values, threshold)], rowvar=False))
    if holes == 0.0:
        assert (kept[np.triu_indices_from(kept, 1)] <= threshold).all()


@pytest.mark.parametrize("holes", [0.0, 0.2])
def test_correlations_equal_pandas(holes):
    values, _ = features(5, holes=holes)
    want = pd.DataFrame(values).corr().to_numpy()
    ok = np.isfinite(want)
    got = correlations(values)
    assert np.array_equal(np.isfinite(got), ok)
    np.testing.assert_allclose(got[ok], want[ok], atol=1e-9)


def test_an_anticorrelated_copy_goes_only_when_judged_absolutely():
    x = np.random.default_rng(6).normal(size=(50, 1))
    both = np.hstack([x, -x])
    assert too_correlated(both, 0.9).sum() == 1
    assert too_correlated(both, 0.9, absolute=False).sum() == 0


def test_blocklist_and_extremes():
    names = [
        "Cells_Location_Center_X",
        "Nuclei_AreaShape_Area",
        "Cells_AreaShape_BoundingBoxMaximum_Y",
        "Nuclei_Number_Object_Number",
    ]
    assert blocklisted(names).tolist() == [True, False, True, True]
    assert blocklisted(names, []).tolist() == [False] * 4
    assert too_extreme(np.array([[1.0, -501.0, np.nan], [500.0, 0.0, 3.0]])).tolist() == [False, True, False]


def test_select_gives_a_reason_for_each(tmp_path):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(100, 8))
    x[:, 1] = x[:, 0] + 0.01 * rng.normal(size=100)
    x[:10, 2] = np.nan
    x[:, 3] = 4.0
    x[0, 4] = 1e4
    x[:, 5] *= 1e-4
    names = (
        "Cells_a",
        "Cells_b",
        "Cells_gaps",
        "Cells_constant",
        "Cells_wild",
        "Cells_flat",
        "Cells_Location_Center_X",
        "Cells_c",
    )
    chosen = select(Profiles(pd.DataFrame(index=range(100)), x, names))
    reasons = dict(zip(chosen.report["feature"], chosen.report["reason"], strict=True))
    assert {reasons.pop("Cells_a"), reasons.pop("Cells_b")} == {"", "correlation"}
    assert reasons == {
        "Cells_gaps": "missing",
        "Cells_constant": "repetitive",
        "Cells_wild": "outlier",
        "Cells_flat": "variance",
        "Cells_Location_Center_X": "blocklist",
        "Cells_c": "",
    }
    chosen.write(tmp_path / "s.parquet")
    assert Selection.read(tmp_path / "s.parquet").names == chosen.names


def test_config_refuses_unknown_keys_and_an_empty_result():
    assert SelectConfig.from_mapping({"correlation": "off", "missing": 0.2}).correlation is None
    with pytest.raises(InvalidProfiles, match=r"unknown keys \['corelation'\]"):
        SelectConfig.from_mapping({"corelation": 0.8})
    with pytest.raises(InvalidProfiles, match="no feature is left of 2"):
        select(Profiles(pd.DataFrame(index=range(9)), np.ones((9, 2)), ("x", "y")))
