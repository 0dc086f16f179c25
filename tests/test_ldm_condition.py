"""Condition tokens: null tokens, dropping, positions, and contexts that are refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from ldm.condition import TOKENS, ConditionEncoder, UnknownContext, position_features, training_drop

DIM = 6


@pytest.fixture
def encoder() -> ConditionEncoder:
    torch.manual_seed(0)
    return ConditionEncoder(
        DIM,
        sources=("S1", "S2"),
        batches=("S1B01", "S1B02", "S2B01"),
        batch_sources=("S1", "S1", "S2"),
        width=8,
        pooled=12,
        hidden=16,
        compound_tokens=2,
        fourier=2,
    ).eval()


def contexts(**change: object) -> pd.DataFrame:
    table = {
        "source": ["S1", "S1", "S2"],
        "batch": ["S1B01", "S1B02", "S2B01"],
        "plate_format": [384, 384, 1536],
        "row": [0, 7, 31],
        "column": [0, 12, 47],
    }
    return pd.DataFrame(table | change)


VECTORS = np.random.default_rng(0).standard_normal((3, DIM)).astype(np.float32)


def test_tokens_and_pooled_vector_have_their_shapes(encoder: ConditionEncoder) -> None:
    tokens, pooled = encoder(encoder.conditions(VECTORS, contexts()))
    assert tokens.shape == (3, 2 + len(TOKENS) - 1, 8)
    assert pooled.shape == (3, 12)


def test_unconditional_rows_are_all_alike_and_conditional_ones_are_not(encoder: ConditionEncoder) -> None:
    given = encoder.conditions(VECTORS, contexts())
    tokens, pooled = encoder(given.keeping())
    assert torch.equal(tokens[0], tokens[1])
    torch.testing.assert_close(pooled[0], pooled[2])
    _, told = encoder(given)
    assert not torch.allclose(told[0], told[1])


@pytest.mark.parametrize("name", TOKENS)
def test_each_token_that_is_given_matters_and_one_that_is_not_does_not(encoder: ConditionEncoder, name: str) -> None:
    change = {
        "compound": {},
        "source": {"source": ["S2", "S1", "S1"]},
        "batch": {"batch": ["S1B02", "S1B01", "S2B01"]},
        "plate_format": {"plate_format": [1536, 1536, 1536]},
        "well": {"row": [5, 6, 30]},
    }[name]
    vectors = VECTORS[::-1].copy() if name == "compound" else VECTORS
    before = encoder.conditions(VECTORS, contexts())
    if name == "source":
        # a batch belongs to one source: the source token is told apart from the batch with the index alone
        after = before.rows(torch.arange(3))
        object.__setattr__(after, "source", 1 - before.source)
    else:
        after = encoder.conditions(vectors, contexts(**change))
    assert not torch.allclose(encoder(before)[1][0], encoder(after)[1][0])
    others = [token for token in TOKENS if token not in (name, "well" if name == "plate_format" else name)]
    torch.testing.assert_close(encoder(before.keeping(*others))[1][0], encoder(after.keeping(*others))[1][0])


def test_no_row_depends_on_another(encoder: ConditionEncoder) -> None:
    given = encoder.conditions(VECTORS, contexts())
    _, together = encoder(given)
    for i in range(3):
        torch.testing.assert_close(encoder(given.rows(torch.tensor([i])))[1][0], together[i])


def test_standardised_vectors_have_mean_0_and_sd_1(encoder: ConditionEncoder) -> None:
    vectors = torch.from_numpy(np.random.default_rng(1).normal(5.0, 3.0, (50, DIM)).astype(np.float32))
    vectors[:, 2] = 4.0
    encoder.standardise(vectors)
    z = (vectors - encoder.compound_mean) / encoder.compound_sd
    torch.testing.assert_close(z.mean(0), torch.zeros(DIM), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, unbiased=False), torch.tensor([1.0, 1, 0, 1, 1, 1]), atol=1e-5, rtol=0)


def test_positions_know_the_plate_and_its_edge() -> None:
    features = position_features(np.array([0, 7, 16]), np.array([0, 12, 24]), np.array([384, 384, 1536]))
    np.testing.assert_allclose(features[0, :6], [0.5 / 16, 0.5 / 24, 0, 1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(features[1, 2:4], [2 * 7 / 16, np.exp(-7)], rtol=1e-5)
    np.testing.assert_allclose(features[2, :3], [16.5 / 32, 24.5 / 48, 2 * 15 / 32], rtol=1e-6)


def test_tokens_are_dropped_as_often_as_asked(encoder: ConditionEncoder) -> None:
    given = encoder.conditions(np.repeat(VECTORS, 4000, 0), pd.concat([contexts()] * 4000))
    kept = training_drop(given, 1, 5, each=0.1, context=0.2, everything=0.3).given.float()
    assert float(kept[:, 0].mean()) == pytest.approx(0.9 * 0.7, abs=0.02)
    assert float(kept[:, 2].mean()) == pytest.approx(0.9 * 0.8 * 0.7, abs=0.02)
    assert float((kept.sum(1) == 0).float().mean()) == pytest.approx(0.3 + 0.7 * 0.1 * 0.2, abs=0.02)
    again = training_drop(given, 1, 5, each=0.1, context=0.2, everything=0.3).given
    assert torch.equal(kept.bool(), again)
    assert not torch.equal(again, training_drop(given, 1, 6, each=0.1, context=0.2, everything=0.3).given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ["S9", "S1", "S2"]}, "source: got 'S9', expected one of S1, S2"),
        ({"batch": ["S1B01", "S1B07", "S2B01"]}, "batch: got 'S1B07', expected one of S1B01, S1B02, S2B01"),
        ({"batch": ["S1B01", "S2B01", "S2B01"]}, "batch: S2B01 under source S1, expected source S2"),
        ({"plate_format": [96, 384, 1536]}, "plate_format: got 96"),
        ({"row": [16, 0, 0]}, "row 16, column 0 is not on a 384-well plate, expected rows 0 to 15"),
        ({"column": [0, -1, 0]}, "column -1 is not on a 384-well plate"),
    ],
)
def test_contexts_that_the_model_never_saw_are_refused(
    encoder: ConditionEncoder, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UnknownContext, match=message):
        encoder.conditions(VECTORS, contexts(**change))


def test_compound_vectors_of_another_encoder_are_refused(encoder: ConditionEncoder) -> None:
    with pytest.raises(UnknownContext, match=r"got \(3, 4\) for 3 rows, expected \[3, 6\]"):
        encoder.conditions(VECTORS[:, :4], contexts())
