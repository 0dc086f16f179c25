"""Mean average precision against shuffled labels: the value is retrieval's, p is uniform for noise and small for
signal."""

import numpy as np
import pandas as pd
import pytest

from profiling.profiles import InvalidProfiles, Profiles
from profiling.retrieval import Pairing, average_precisions, mean_average_precision
from profiling.shuffle import angle_of, found

REPLICATES = Pairing(("compound",), ("Plate",), (), ("compound",))


def screen(seed, signal, compounds=10, plates=3, k=6, plate_effect=0.0):
    rng = np.random.default_rng(seed)
    meta = pd.DataFrame([(f"c{i}", f"p{j}") for j in range(plates) for i in range(compounds)])
    meta.columns = ["Metadata_compound", "Metadata_Plate"]
    centre, offset = rng.normal(size=(compounds, k)), rng.normal(size=(plates, k))
    code = meta["Metadata_compound"].str[1:].astype(int).to_numpy()
    at = meta["Metadata_Plate"].str[1:].astype(int).to_numpy()
    values = signal * centre[code] + plate_effect * offset[at] + rng.normal(size=(len(meta), k))
    return Profiles(meta, values, tuple(f"f{i}" for i in range(k)))


def test_value_and_chance_are_those_of_retrieval():
    p = screen(1, 1.0)
    got = found(p, REPLICATES, ["compound"], np.random.default_rng(0), by="compound", permutations=19)
    table = average_precisions(p, REPLICATES)
    want = mean_average_precision(table, ["compound"], np.random.default_rng(0), 10)
    assert got.value == pytest.approx(want["map"].mean(), abs=1e-12)
    assert got.chance == pytest.approx(want["chance"].mean(), abs=1e-12)
    assert (got.n_groups, got.n_queries) == (10, 30)
    assert got.low < got.value < got.high
    assert got.p == 1 / 20
    alone = found(p, REPLICATES, ["compound"], np.random.default_rng(0), permutations=1)
    assert alone.n_groups == 30


def test_p_is_uniform_for_noise_even_with_plate_effects():
    ps = []
    for seed in range(60):
        p = screen(seed, 0.0, plate_effect=2.0)
        rng = np.random.default_rng(seed)
        ps.append(found(p, REPLICATES, ["compound"], rng, "compound", ["Plate"], permutations=19, resamples=2).p)
    for level in (0.2, 0.5, 0.8):
        assert abs(np.mean(np.array(ps) <= level) - level) < 4 * np.sqrt(level * (1 - level) / 60)


def test_a_given_matrix_takes_the_place_of_the_cosine():
    p = screen(2, 1.0)
    matrix = (p.column("compound")[:, None] == p.column("compound")[None, :]).astype(np.float64)
    got = found(p, REPLICATES, ["compound"], np.random.default_rng(0), permutations=19, matrix=matrix)
    assert got.value == 1.0
    assert got.null < 0.5


def test_one_number_is_ranked_by_its_difference():
    x = np.array([3.0, 10.0, 3.5, -40.0, 3.1])
    unit = angle_of(x)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    order = np.argsort(-(unit @ unit.T), axis=1)
    np.testing.assert_array_equal(order, np.argsort(np.abs(x[:, None] - x[None, :]), axis=1))


def test_labels_to_shuffle_must_be_named():
    with pytest.raises(InvalidProfiles, match="shuffle is empty"):
        found(screen(3, 0.0), REPLICATES, [], np.random.default_rng(0))
