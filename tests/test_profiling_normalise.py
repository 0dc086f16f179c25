"""Normalisation: parity with pycytominer and scikit-learn, freezing, and no number where there is none."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import RobustScaler, StandardScaler

from profiling.normalise import KINDS, Normalisation, UnknownGroup, fit, transform
from profiling.profiles import InvalidProfiles, Profiles


def plates(seed=0, n=90, k=5, holes=0.0):
    rng = np.random.default_rng(seed)
    plate = np.array(["p1", "p2", "p3"])[np.arange(n) % 3]
    control = rng.random(n) < 0.5
    values = rng.gamma(2.0, size=(n, k)) * 10.0 ** np.arange(k) + 100 * (np.arange(n) % 3)[:, None]
    values[rng.random((n, k)) < holes] = np.nan
    meta = pd.DataFrame({"Metadata_Plate": plate, "Metadata_Control": control})
    return Profiles(meta, values, tuple(f"Cells_f{i}" for i in range(k))), control


def pycytominer_mad():
    pytest.importorskip("pycytominer", reason="the oracle pycytominer is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer.operations.transform import RobustMAD
    return RobustMAD()


@pytest.mark.parametrize("holes", [0.0, 0.1])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_parity_by_plate(kind, holes):
    oracle = {"standardise": StandardScaler, "robustise": RobustScaler, "mad_robustise": pycytominer_mad}[kind]()
    p, control = plates(holes=holes)
    got = transform(p, fit(p, control, kind, by=["Plate"])).values
    for plate in ("p1", "p2", "p3"):
        rows = p.column("Plate") == plate
        x = pd.DataFrame(p.values, columns=p.names)
        want = np.asarray(oracle.fit(x[rows & control]).transform(x[rows]))
        np.testing.assert_allclose(got[rows], want, rtol=1e-9, atol=1e-9)


def test_controls_end_up_with_median_0_and_mad_1():
    p, control = plates(seed=4)
    z = transform(p, fit(p, control, by=["Plate"])).values[control & (p.column("Plate") == "p2")]
    np.testing.assert_allclose(np.median(z, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(1.4826 * np.median(np.abs(z), axis=0), 1, atol=1e-12)


def test_only_controls_are_looked_at_and_one_row_is_transformed_as_in_a_crowd():
    p, control = plates(seed=5)
    frozen = fit(p, control, by=["Plate"])
    changed = p.with_values(np.where(control[:, None], p.values, 1e6))
    pd.testing.assert_frame_equal(fit(changed, control, by=["Plate"]).to_table(), frozen.to_table())
    alone = transform(p.rows([7]), frozen).values
    np.testing.assert_array_equal(alone[0], transform(p, frozen).values[7])


@pytest.mark.parametrize("by", [[], ["Plate"]])
def test_frozen_numbers_survive_parquet(tmp_path, by):
    p, control = plates(seed=6)
    frozen = fit(p, control, by=by)
    frozen.write(tmp_path / "normalisation.parquet")
    back = Normalisation.read(tmp_path / "normalisation.parquet")
    assert back.by == frozen.by
    np.testing.assert_array_equal(transform(p, back).values, transform(p, frozen).values)


def test_a_feature_that_does_not_vary_among_controls_has_no_value():
    p, control = plates(seed=7)
    p.values[control, 2] = 5.0
    z = transform(p, fit(p, control)).values
    assert np.isnan(z[:, 2]).all()
    assert np.isfinite(np.delete(z, 2, axis=1)).all()
    assert np.isfinite(transform(p, fit(p, control, epsilon=1e-18)).values).all()


def test_refusals():
    p, control = plates(seed=8)
    with pytest.raises(InvalidProfiles, match="1 groups have none"):
        fit(p, control & (p.column("Plate") != "p3"), by=["Plate"])
    with pytest.raises(UnknownGroup, match="p3"):
        transform(p, fit(p.rows(p.column("Plate") != "p3"), control[p.column("Plate") != "p3"], by=["Plate"]))
    with pytest.raises(InvalidProfiles, match="kind must be one of"):
        fit(p, control, "zscore")
    with pytest.raises(InvalidProfiles, match="no columns"):
        fit(p, control, by=["Batch"])
    with pytest.raises(InvalidProfiles, match="no normalisation"):
        Normalisation.from_table(fit(p, control, by=["Plate"]).to_table().iloc[:-1])


def test_features_come_in_the_order_of_the_fit():
    p, control = plates(seed=9)
    frozen = fit(p, control)
    shuffled = p.features(p.names[::-1])
    np.testing.assert_array_equal(transform(shuffled, frozen).values, transform(p, frozen).values)
