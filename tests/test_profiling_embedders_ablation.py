"""Which rows and channels a recipe learns from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from embedder_data import make, recipe

from profiling.embedders.ablation import LEFT_OUT, UNUSED, DataConfig, left_out, matching, part
from profiling.embedders.data import InvalidTrainingData, TrainingPictures, find_cells, load_pictures, philox
from profiling.embedders.methods.method import sources
from profiling.embedders.recipe import InvalidRecipe
from profiling.embedders.train import build, run
from profiling.embedders.weights import read_card


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingPictures:
    return load_pictures(make(tmp_path_factory.mktemp("ablation") / "data", targets=6))


def test_rows_are_kept_dropped_and_shared_out(data: TrainingPictures) -> None:
    rows = data.rows
    only = part(data, DataConfig(only=("batch=B0",))).rows
    assert set(only.loc[only["split"] == "train", "batch"]) == {"B0"}
    assert (only.loc[rows["split"] == "val", "split"] == "val").all()
    without = part(data, DataConfig(without=("compound=C1", "compound=C2"))).rows
    assert set(without.loc[without["split"] == "train", "compound"]) == {"C0", "C3"}
    half = part(data, DataConfig(share=0.5)).rows
    assert (half["split"] == "train").sum() == 14
    assert (half["split"] == UNUSED).sum() == 14
    assert part(data, DataConfig()).rows.equals(rows)
    np.testing.assert_array_equal(matching(rows, ["batch=B1"]), rows["batch"] == "B1")


def test_groups_are_left_out_whole_and_each_once(data: TrainingPictures) -> None:
    folds = [left_out(data.rows, DataConfig(leave="compound", folds=4, fold=f)) for f in range(4)]
    assert (np.sum(folds, axis=0) == 1).all()
    seen = part(data, DataConfig(leave="compound", folds=4, fold=2)).rows
    gone = set(seen.loc[seen["split"] == LEFT_OUT, "compound"])
    assert len(gone) == 1
    assert not gone & set(seen.loc[seen["split"] == "train", "compound"])
    assert not left_out(data.rows, DataConfig()).any()


@pytest.mark.parametrize("network", ["boc", "mca"])
def test_channels_that_are_left_out_are_never_read(network: str, data: TrainingPictures, tmp_path: Path) -> None:
    own = replace(recipe("mae", network), data=DataConfig(channels=("DNA", "RNA")))
    spoiled = np.array(data.pictures)
    spoiled[:, 1] = np.nan
    seen = replace(data, pictures=spoiled)
    cells = find_cells(data, own.crops, tmp_path / "cells.parquet")
    material = sources(part(seen, own.data), cells, "train", own.crops)
    method = build(own, material)
    for step in range(5):
        batch, channels = method.batch(material, 4, philox(1, step, 0))
        assert bool(batch["views"].isfinite().all())
        assert set(channels) <= {"", "DNA", "RNA"}


def test_the_folder_says_what_it_learned_from(data: TrainingPictures, tmp_path: Path) -> None:
    config = DataConfig(channels=("DNA",), leave="compound", folds=4)
    own = replace(recipe("phenoprofiler", "phenoprofiler", steps=1), data=config)
    card = read_card(run(own, data, tmp_path))
    assert card["channels"] == ["DNA"]
    assert card["data"]["leave"] == "compound"
    assert len(card["training"]["compounds"]) == 3


def test_refusals(data: TrainingPictures) -> None:
    with pytest.raises(InvalidTrainingData, match="column=value"):
        part(data, DataConfig(only=("line=U2OS",)))
    with pytest.raises(InvalidTrainingData, match="no training row"):
        part(data, DataConfig(only=("batch=B7",)))
    with pytest.raises(InvalidTrainingData, match="channels Z"):
        part(data, DataConfig(channels=("Z",)))
    with pytest.raises(InvalidTrainingData, match="ask for fewer folds"):
        left_out(data.rows, DataConfig(leave="compound", folds=9))
    with pytest.raises(InvalidTrainingData, match="no column 'well'"):
        left_out(data.rows, DataConfig(leave="well"))
    with pytest.raises(InvalidRecipe, match="share 0"):
        DataConfig(share=0.0)
