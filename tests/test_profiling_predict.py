"""Prediction for one compound: the right label with its evidence, no call for noise, the same bytes every time."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from profiling.drivers import contributions, drivers, read_name
from profiling.interval import correlation_interval
from profiling.predict import Null, References, predict, reference_null, to_json, to_table
from profiling.profiles import InvalidProfiles
from profiling.subprofile import biosimilarity, build

LABELS = ("aurora", "hdac", "hsp90", "mtor", "tubulin")
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
NAMES = [
    f"{obj}_{family}_{channel}_{i}"
    for obj in ("Nuclei", "Cells")
    for family in ("Intensity_Mean", "Texture_Contrast")
    for channel in CHANNELS
    for i in range(6)
]
K = len(NAMES)


def library(convention="paper", seed=0, per=20):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(len(LABELS), K))
    label = np.repeat(np.arange(len(LABELS)), per)
    values = centre[label] + 0.8 * rng.normal(size=(len(label), K))
    sub = build(values, [LABELS[i] for i in label], NAMES, convention=convention)
    compounds = tuple(f"REF{i:03d}" for i in range(len(label)))
    references = References(compounds, tuple((LABELS[i],) for i in label), values)
    return sub, references, reference_null(references, sub), centre


def draws_of(centre, seed=1, n=8, noise=1.0):
    return centre + noise * np.random.default_rng(seed).normal(size=(n, K))


@pytest.mark.parametrize("convention", ["paper", "reference"])
def test_the_true_label_is_called_with_its_evidence(convention):
    sub, references, null, centre = library(convention)
    made = predict("QUERY", draws_of(centre[4]), sub, null, references)
    best = made.labels[0]
    assert made.call == best.label == "tubulin"
    assert best.score == pytest.approx(biosimilarity(draws_of(centre[4]).mean(axis=0), sub)[0, 4], abs=1e-10)
    assert best.low <= best.score <= best.high
    assert best.p == pytest.approx(1 / 81)  # none of the 80 reference compounds of other labels scores as high
    assert best.chance == pytest.approx(np.nanmean(null.scores[:, 4]))
    assert all(n.labels == ("tubulin",) for n in made.nearest)
    assert made.nearest[0].similarity >= made.nearest[-1].similarity
    assert made.covers == "draws"
    scale = 100 if convention == "reference" else 1
    assert sum(g.contribution for g in made.driver_groups) * scale == pytest.approx(best.score, abs=1e-9)
    assert [s.score for s in made.labels] == sorted((s.score for s in made.labels), reverse=True)


def test_nearest_is_the_pearson_correlation():
    sub, references, null, centre = library()
    draws = draws_of(centre[2])
    made = predict("QUERY", draws, sub, null, references)
    every = [np.corrcoef(draws.mean(axis=0), v)[0, 1] for v in references.values]
    assert made.nearest[0].compound == references.compounds[int(np.argmax(every))]
    assert made.nearest[0].similarity == pytest.approx(max(every), abs=1e-12)


def test_noise_is_not_called_more_often_than_alpha_allows():
    sub, references, null, _ = library(per=40)
    rng = np.random.default_rng(5)
    made = [predict("N", rng.normal(size=(4, K)), sub, null, references) for _ in range(60)]
    assert sum(m.call is not None for m in made) <= 6
    assert made[0].reason.startswith("no call: nothing stands out") or made[0].call


def test_p_counts_reference_compounds_of_other_labels():
    sub, references, null, centre = library()
    assert np.isnan(null.scores[:20, 0]).all()
    assert np.isfinite(null.scores[20:, 0]).all()
    made = predict("QUERY", draws_of(0.2 * centre[4], noise=2.0), sub, null, references)
    for s in made.labels:
        other = null.scores[:, LABELS.index(s.label)]
        assert s.p == (1 + (other[~np.isnan(other)] >= s.score).sum()) / 81
    worst = np.nanmax(null.scores, axis=1)
    assert made.p_call == (1 + (worst >= made.labels[0].score).sum()) / 101


def test_interval_is_that_of_the_draws_and_narrows_with_more():
    sub, references, null, centre = library()
    many, few = draws_of(centre[0], n=200, noise=3.0), draws_of(centre[0], n=5, noise=3.0)
    wide = predict("Q", few, sub, null, references).labels[0]
    narrow = predict("Q", many, sub, null, references).labels[0]
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    used = sub.mask[0]
    assert (narrow.low, narrow.high) == pytest.approx(correlation_interval(many[:, used], sub.values[0, used]))


def test_draws_without_cells_are_counted_and_left_out():
    sub, references, null, centre = library()
    draws = draws_of(centre[1])
    with_gaps = np.insert(draws, [0, 3], np.nan, axis=0)
    a, b = (predict("Q", d, sub, null, references) for d in (draws, with_gaps))
    assert (b.n_draws, b.n_draws_with_cells) == (10, 8)
    assert replace(b, n_draws=8) == a
    none = predict("Q", np.full((3, K), np.nan), sub, null, references)
    assert none.call is None
    assert none.reason == "no call: no draw has cells"
    json.loads(to_json([none]))


def test_one_draw_has_no_interval_and_a_missing_feature_is_left_out():
    sub, references, null, centre = library()
    draws = draws_of(centre[3], n=1)
    draws[0, 7] = np.nan
    made = predict("Q", draws, sub, null, references)
    assert math.isnan(made.labels[0].low)
    assert made.call == "mtor"
    assert made.to_dict()["labels"][0]["low"] is None


def test_a_label_without_enough_references_is_listed_last_without_numbers():
    sub, references, _, centre = library()
    labels = ["rare" if i < 3 else r[0] for i, r in enumerate(references.labels)]
    sub = build(references.values, labels, NAMES)
    references = replace(references, labels=tuple((label,) for label in labels))
    made = predict("Q", draws_of(centre[4]), sub, reference_null(references, sub), references)
    assert made.labels[-1].label == "rare"
    assert math.isnan(made.labels[-1].score)
    assert math.isnan(made.labels[-1].q)
    assert made.call == "tubulin"


def test_json_is_the_same_to_the_byte_and_has_no_nan(tmp_path):
    sub, references, null, centre = library()
    null.write(tmp_path / "null.parquet")
    back = Null.read(tmp_path / "null.parquet")
    beside = {"structure": dict.fromkeys(LABELS, 0.1)}
    a = predict("Q", draws_of(centre[0]), sub, null, references, beside=beside)
    b = predict("Q", draws_of(centre[0]).copy(order="F"), sub, back, references, beside=beside)
    assert to_json([a]) == to_json([b])
    assert json.loads(to_json([a]))[0]["labels"][0]["beside"] == {"structure": 0.1}
    assert to_json([a]) != to_json([predict("Q", draws_of(centre[0], seed=2), sub, null, references, beside=beside)])
    table = to_table([a, b])
    assert table["rank"].tolist() == [1, 2, 3, 4, 5] * 2
    assert table["called"].sum() == 2


def test_names_are_read_as_cellprofiler_writes_them():
    assert vars(read_name("Nuclei_Texture_Contrast_RNA_3_00_256")) == {
        "compartment": "Nuclei",
        "family": "Texture",
        "channel": "RNA",
    }
    assert read_name("Cells_Correlation_K_DNA_ER").channel == "DNA+ER"
    assert read_name("Cytoplasm_AreaShape_Area").channel == "none"


def test_contributions_add_up_and_the_largest_come_first():
    sub, _, _, centre = library()
    profile = centre[2] + 0.1
    profile[3] = np.nan
    terms = contributions(profile, sub, "hsp90")
    assert terms.sum() == pytest.approx(biosimilarity(profile, sub, missing="pairwise")[0, 2], abs=1e-12)
    assert (terms[~sub.mask[2]] == 0).all()
    top, groups = drivers(profile, sub, "hsp90", most=4)
    assert [d.contribution for d in top] == sorted(terms, reverse=True)[:4]
    assert sum(g.n_features for g in groups) == (sub.mask[2] & ~np.isnan(profile)).sum()


def test_refusals():
    sub, references, null, _ = library()
    with pytest.raises(InvalidProfiles, match="3 features"):
        predict("Q", np.ones((2, 3)), sub, null, references)
    with pytest.raises(InvalidProfiles, match="other labels"):
        predict("Q", np.ones((2, K)), sub, replace(null, labels=LABELS[::-1]), references)
