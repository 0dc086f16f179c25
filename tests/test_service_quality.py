"""Numbers of `dopaint benchmark quality` on features whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from causal.phenotype import DMSO
from service.benchmark_quality import _twins, set_numbers

RNG = np.random.default_rng(0)


def test_equal_sets_are_near_and_shifted_ones_are_far() -> None:
    real = RNG.standard_normal((400, 5)) * [1.0, 10.0, 0.1, 5.0, 2.0]
    near = set_numbers(real[:200], real[200:], 5)
    far = set_numbers(real[:200], real[200:] + np.array([3.0, 30.0, 0.3, 15.0, 6.0]), 5)
    assert near["fid"] < 0.5
    assert far["fid"] == pytest.approx(5 * 9.0, rel=0.25)  # three sd in each of five features
    assert near["coverage"] > 0.9
    assert far["coverage"] < 0.1
    assert far["kid"] > 10 * abs(near["kid"])


def test_twins_are_paired_by_their_rows() -> None:
    compounds, draws = ["K0", "K1", "K2"], 4
    rows = (
        pd.DataFrame([{"compound": c, "seed": s} for s in range(draws) for c in (DMSO, *compounds)])
        .sample(frac=1.0, random_state=0)
        .reset_index(drop=True)
    )
    pairs = pd.DataFrame(
        [
            {"compound": who, "seed": s, "pair": k, "end": end, "draw": s, "factor": "compound"}
            for k, c in enumerate(compounds)
            for end, who in enumerate((DMSO, c))
            for s in range(draws)
        ]
    )
    effect = {DMSO: np.zeros(6)} | {c: RNG.standard_normal(6) * 3 for c in compounds}
    noise = RNG.standard_normal((draws, 6))
    real = np.stack([effect[c] + noise[s] for c, s in zip(rows["compound"], rows["seed"], strict=True)])
    blind = noise[rows["seed"]]
    found = _twins(
        pairs, rows, ["compound", "seed"], {"real": real, "model": real, "unconditional": blind, "again": real}
    )
    assert found["model"]["effectiveness"] == pytest.approx(1.0)
    assert found["model"]["minimality"] == pytest.approx(0.0, abs=1e-6)
    assert found["unconditional"]["effectiveness"] == pytest.approx(0.0, abs=1e-6)
    assert found["unconditional"]["target"] == 0.0
