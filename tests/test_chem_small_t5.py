"""chem.encoder_targets and chem.small_t5: components against a loop, neighbours, contrast, the local start."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from chem.encoder_targets import Targets, kept_targets, targets
from chem.fingerprint import morgan_counts
from chem.small_t5 import SmallT5, contrast
from chem.train_encoder import EncoderRecipe, network
from chem.vector import EncoderError

RECIPE = Path(__file__).resolve().parent.parent / "configs" / "chem" / "small_t5.toml"
RINGS = [f"{head}c1ccc({tail})cc1" for head in ("C", "CC", "N", "O", "Cl") for tail in ("O", "N", "C#N", "Br")]
TEXTS = ["not a smiles", *RINGS, "also not", "CCCCCCO", "CCCCCCN"]
SETTINGS = {"sample": 100, "anchors": 8, "neighbours": 3, "seed": 4}


@pytest.fixture(scope="module")
def made() -> Targets:
    return targets(TEXTS, 4, **SETTINGS)


def test_unreadable_rows_are_left_out(made: Targets):
    assert made.rows.tolist() == [*range(1, 21), 22, 23]
    assert made.vectors.shape == (22, 4)
    assert made.vectors.std() == pytest.approx(1.0, rel=1e-5)


def test_components_have_the_root_of_the_spread_of_principal_components(made: Targets):
    counts = np.log1p(morgan_counts([TEXTS[i] for i in made.rows]).astype(np.float64))
    shares = counts / np.linalg.norm(counts, axis=1, keepdims=True)
    values, axes = np.linalg.eigh(np.cov(shares.T, bias=True))
    spread = np.sqrt(values[::-1][:4])
    want = (shares - shares.mean(axis=0)) @ axes[:, ::-1][:, :4] / np.sqrt(spread)
    want /= want.std()
    for j in range(4):  # a component has no sign; counts are float32, so five digits
        assert np.abs(np.abs(want[:, j]) - np.abs(made.vectors[:, j])).max() < 1e-4


def test_neighbours_are_the_nearest_by_cosine(made: Targets):
    unit = made.vectors / np.linalg.norm(made.vectors, axis=1, keepdims=True)
    for anchor, found in zip(made.anchors, made.near, strict=True):
        alike = unit @ unit[anchor]
        alike[anchor] = -9.0
        assert anchor not in found
        assert np.allclose(alike[found], np.sort(alike)[::-1][:3], atol=1e-6)


def test_too_few_molecules_are_refused():
    with pytest.raises(EncoderError, match="at least 34"):
        targets(TEXTS, 32, **SETTINGS)


def test_targets_are_kept_and_those_of_another_recipe_refused(made: Targets, tmp_path: Path):
    first = kept_targets(tmp_path / "t.npz", TEXTS, 4, **SETTINGS)
    again = kept_targets(tmp_path / "t.npz", TEXTS, 4, **SETTINGS)
    assert all(np.array_equal(a, b) and np.array_equal(a, c) for a, b, c in zip(first, again, made, strict=True))
    with pytest.raises(EncoderError, match="another recipe"):
        kept_targets(tmp_path / "t.npz", TEXTS, 5, **SETTINGS)


def test_contrast_equals_a_loop():
    vectors = torch.randn((6, 5), generator=torch.Generator().manual_seed(1))
    sharpness = 3.0
    total = 0.0
    for i in range(6):
        scores = {
            j: sharpness * float(vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm()))
            for j in range(6)
            if j != i
        }
        total -= scores[(i + 3) % 6] - math.log(sum(math.exp(s) for s in scores.values()))
    assert float(contrast(vectors, torch.tensor(sharpness))) == pytest.approx(total / 6, rel=1e-5)
    same = contrast(torch.ones(6, 5), torch.tensor(sharpness))
    assert float(same) == pytest.approx(math.log(5), rel=1e-6)  # chance among five others


def test_heads_begin_by_looking_beside_themselves():
    recipe = dataclasses.replace(EncoderRecipe.from_toml(RECIPE), d_model=16, d_kv=4, d_ff=8, layers=1)
    bias = SmallT5(network(recipe, 50)).t5.encoder.block[0].layer[0].SelfAttention.compute_bias(9, 9)[0].detach()
    for head, place in enumerate((-1, 1, 0, -3)):
        assert int(bias[head, 4].argmax()) == 4 + place
        assert float(bias[head, 4].max()) == 0.0
    assert float(bias[0, 0, 8]) == -6.0  # far tokens are all alike
