"""chem.domain and chem.domain_fit: in constructed worlds whose error is known, the classes must find it or say no."""

from pathlib import Path

import numpy as np
import pytest

from chem.domain import (
    Domain,
    DomainError,
    DomainModel,
    applicability,
    encoder_space,
    training_compounds,
)
from chem.domain_fit import fit_domain
from chem.molecule import standardise

TRAINED = ("CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O")


def _training():
    molecules = [standardise(text) for text in TRAINED]
    return training_compounds([m.inchikey for m in molecules], [m.smiles for m in molecules])


def _world(n: int, seed: int):
    """Similarity and density independent of each other; the error has steps at 0.3 and 0.6 of the similarity."""
    rng = np.random.default_rng(seed)
    similarity, density = rng.random(n), rng.random(n)
    error = np.where(similarity >= 0.6, 1.0, np.where(similarity >= 0.3, 3.0, 6.0)) + rng.normal(0, 1.0, n)
    return error, similarity, density


def test_in_edge_out_by_the_fixed_thresholds():
    training = _training()
    verdicts = {
        text: applicability(standardise(text), training, k=2)
        for text in ("C[C@@H](N)C(=O)O", "CC(=O)Oc1ccccc1C(=O)OC", "OC(=O)c1ccccc1O", "C1CCCCC1")
    }
    alanine, ester, salicylic, cyclohexane = verdicts.values()
    assert (alanine.seen, alanine.domain) == (True, Domain.IN)  # the other enantiomer: the same first block
    assert (ester.seen, ester.domain) == (False, Domain.IN)
    assert (salicylic.domain, cyclohexane.domain) == (Domain.EDGE, Domain.OUT)
    assert salicylic.nearest_inchikeys[0] == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    assert list(salicylic.nearest_tanimoto) == sorted(salicylic.nearest_tanimoto, reverse=True)
    assert [one.scaffold_seen for one in (alanine, ester, cyclohexane)] == [True, True, False]
    answer = ester.as_dict()
    assert answer["domain"] == "in"
    assert answer["density"] is None
    assert answer["nearest"][0]["inchikey"] == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    assert "not learned" in answer["basis"]
    with pytest.raises(ValueError, match="at least 1"):
        training_compounds([], [])


def test_thresholds_are_those_of_the_world():
    error, similarity, density = _world(400, 1)
    model = fit_domain(error, similarity, density, name="rank")
    assert model.learned
    assert model.weight == 0.0  # density tells nothing here
    assert (model.edge_from, model.in_from) == pytest.approx((0.3, 0.6), abs=0.02)
    assert model.p <= 0.001
    assert "rank" in model.basis
    fresh, similar, dense = _world(400, 2)  # on compounds that took no part, error rises from in to out
    classes = np.array([model.classify(*pair) for pair in zip(similar, dense, strict=True)])
    means = [fresh[classes == one].mean() for one in ("in", "edge", "out")]
    assert means == sorted(means)
    assert means == pytest.approx([1.0, 3.0, 6.0], abs=0.5)  # 5 standard errors of 120 draws of sd 1, and the cut
    for one, mean in zip(("in", "edge", "out"), means, strict=True):
        assert model.errors[one]["low"] - 0.3 < mean < model.errors[one]["high"] + 0.3


def test_the_density_decides_where_the_error_follows_it():
    error, similarity, density = _world(400, 3)
    model = fit_domain(error, density, similarity)
    assert model.learned
    assert model.weight == 1.0
    assert model.classify(0.9, 0.1) is Domain.OUT
    assert model.classify(0.1, 0.9) is Domain.IN
    with pytest.raises(DomainError, match="vector"):
        model.score(0.5, float("nan"))


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_learned_from_noise(seed: int):
    rng = np.random.default_rng(100 + seed)
    model = fit_domain(rng.normal(size=80), rng.random(80), rng.random(80), permutations=199)
    assert not model.learned
    assert "does not rise" in model.basis
    assert (model.in_from, model.edge_from, model.weight) == (0.50, 0.30, 0.0)


def test_an_error_that_falls_with_distance_is_not_learned():
    error, similarity, density = _world(200, 4)
    assert not fit_domain(-error, similarity, density, permutations=199).learned


def test_a_model_is_written_and_read(tmp_path: Path):
    assert DomainModel.read(tmp_path) == DomainModel()
    model = fit_domain(*_world(100, 5)[:2], permutations=199)
    model.write(tmp_path)
    assert DomainModel.read(tmp_path) == model
    verdict = applicability(standardise("OC(=O)c1ccccc1O"), _training(), 1, model)
    assert verdict.expected_error == model.errors[verdict.domain.value]["mean"]
    assert verdict.basis == model.basis
    (tmp_path / "domain.json").write_text('{"colour": 1}')
    with pytest.raises(DomainError, match="colour"):
        DomainModel.read(tmp_path)


def test_too_few_or_broken_numbers_are_refused():
    with pytest.raises(DomainError, match="at least 20"):
        fit_domain(np.zeros(19), np.zeros(19))
    with pytest.raises(DomainError, match="finite"):
        fit_domain(np.full(30, np.nan), np.zeros(30))


def test_density_is_the_share_of_lonelier_training_compounds():
    rng = np.random.default_rng(0)
    crowd = rng.normal(size=(60, 4)).astype(np.float32)
    space = encoder_space(crowd)
    near, far = crowd.mean(0), crowd.mean(0) + 50.0
    dense = space.density(np.stack([near, far]))
    assert dense[1] == 0.0
    assert dense[0] > 0.8
    own = space.density(crowd)  # a training compound is not its own neighbour
    order = np.argsort(space.distances)
    assert np.array_equal(np.argsort(-own, kind="stable"), order) or (np.diff(own[order]) <= 0).all()
    scaled = (crowd - crowd.mean(0)) / crowd.std(0)
    pairs = np.sort(np.linalg.norm(scaled[:, None] - scaled[None], axis=2), axis=1)[:, 1:6].mean(1)
    np.testing.assert_allclose(space.distances, pairs, rtol=1e-4)  # float32 squares, subtracted
    with pytest.raises(DomainError, match="more than 5"):
        encoder_space(crowd[:5])
