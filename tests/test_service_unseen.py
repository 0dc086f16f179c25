"""The benchmark of unseen drugs tells a model that knows from one that guesses."""

from __future__ import annotations

import numpy as np

from service.benchmark_unseen import HALVES, compare, model_scores, structure_scores, truth_of
from service.library import library

DRUGS = library().query("kind == 'drug'")
QUERIES = DRUGS[DRUGS["split"].isin(HALVES)].reset_index(drop=True)
SEEN = DRUGS[DRUGS["split"] == "seen"]
LABELS = sorted(SEEN["moa"].unique())


def test_at_least_64_drugs_in_two_halves() -> None:
    counts = QUERIES["split"].value_counts()
    assert counts.sum() >= 64
    assert abs(counts[HALVES[0]] - counts[HALVES[1]]) <= 2
    assert QUERIES.groupby("moa").size().min() >= 3


def test_right_scores_beat_chance_and_random_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(QUERIES), len(LABELS)))
    right = noise + 3.0 * truth_of(QUERIES, LABELS)
    good = compare(QUERIES, right, noise, LABELS)["all"]
    assert good["model"]["p"] < 0.01
    assert good["model"]["mean_rank"]["value"] < 3
    assert good["structure"]["p"] > 0.01
    assert abs(good["structure"]["mean_rank"]["chance"] - 10.3) < 0.6


def test_structure_finds_the_class_of_a_seen_drug() -> None:
    scores = structure_scores(SEEN, SEEN, LABELS)
    own = np.array([LABELS.index(m) for m in SEEN["moa"]])
    assert np.allclose(scores[np.arange(len(SEEN)), own], 1.0)


def test_labels_without_a_score_rank_last() -> None:
    ranking = [{"label": LABELS[3], "score": 0.2}, {"label": LABELS[0], "score": -0.5}]
    scores = model_scores([{"moa": {"ranking": ranking}}, None], LABELS)
    assert scores[0].argmax() == 3
    assert scores[0, 0] == -0.5
    assert (scores[1] == -1).all()
