"""TRex on tables where it is known what it can find."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from profiling.embedders.recipe import InvalidRecipe, read_recipe, table_of
from profiling.embedders.trex import TrexConfig, TrexScores, fit, load_adaptation, score
from profiling.embedders.trex.fit import batches, held, truth_of
from profiling.embedders.trex.network import TrexNetwork
from profiling.embedders.trex.score import to_wells
from profiling.embedders.trex.train import train
from profiling.embedders.weights import InvalidWeights
from profiling.profiles import InvalidProfiles, Profiles
from profiling.tables import write_profiles

SMALL = TrexConfig(
    widths=(64, 32, 16), epochs=20, batch=64, validate_by="plate", validation=0.25, dropout=0.1, learning_rate=3e-3
)


def world(line: int = 0, seed: int = 0, plates: int = 8, wells: int = 4) -> Profiles:
    """24 compounds of 8 mechanisms in four wells of every plate, and DMSO. A compound has its mechanism's direction, a
    stronger one of its own, and noise; treated wells also vary along eight directions that say nothing, so that no
    scaling to DMSO takes these out. Another cell line has other directions of everything that matters."""
    rng = np.random.default_rng(seed)
    fixed, own = np.random.default_rng(100), np.random.default_rng(200 + line)
    idle = fixed.normal(size=(8, 48))
    moas, compounds = 0.7 * own.normal(size=(8, 48)), 0.9 * own.normal(size=(24, 48))
    rows, values = [], []
    for plate in range(plates):
        for w in range(36 * wells):
            c = w // wells
            x = 1.5 * rng.normal(size=48)
            if c < 24:
                x = x + moas[c % 8] + compounds[c] + 2.5 * rng.normal(size=8) @ idle
            values.append(x)
            treated = c < 24
            rows.append((f"C{c}" if treated else "DMSO", f"M{c % 8}" if treated else None, f"P{plate}", f"W{w}"))
    meta = pd.DataFrame(rows, columns=["Metadata_compound", "Metadata_moa", "Metadata_plate", "Metadata_well"])
    return Profiles(meta, np.array(values), tuple(f"f{i}" for i in range(48)))


def split(profiles: Profiles) -> tuple[Profiles, Profiles]:
    late = np.isin(profiles.column("plate"), ("P6", "P7"))
    return profiles.rows(~late), profiles.rows(late)


def scored(profiles: Profiles) -> TrexScores:
    return score(profiles, profiles.column("compound") == "DMSO", keep=0.99)


def test_the_network_is_its_formula() -> None:
    torch.manual_seed(0)
    net = TrexNetwork(5, 3, (6, 4, 3)).eval()
    with torch.no_grad():
        net.mean += 1.0
        net.sd *= 2.0
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            layer.norm.running_mean.normal_()
            layer.norm.running_var.uniform_(0.5, 2.0)
    x = torch.randn(2, 5)

    def layer(name: str, t: np.ndarray) -> np.ndarray:
        part = getattr(net, name)
        y = t @ part.linear.weight.detach().numpy().T + part.linear.bias.detach().numpy()
        y = (y - part.norm.running_mean.numpy()) / np.sqrt(part.norm.running_var.numpy() + 1e-5)
        return torch.nn.functional.gelu(torch.from_numpy(y)).numpy()

    x2 = layer("layer2", layer("layer1", (x.numpy() - 1.0) / 2.0))
    third = x2 + layer("layer3", x2)
    np.testing.assert_allclose(net.features(x).detach().numpy(), third, atol=1e-5)
    logits = layer("layer4", third) @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    np.testing.assert_allclose(net(x).detach().numpy(), logits, atol=1e-5)
    assert [p.shape[0] for p in TrexNetwork(7, 9).parameters() if p.ndim == 2] == [1024, 512, 512, 256, 9]


def test_each_objective_finds_what_it_was_asked_for_where_it_was_taught() -> None:
    """The paper's claims, on plates that no fit saw. Measured: mechanisms 0.41 before, 0.56 with the mechanism
    objective, 0.41 with the compound objective; replicates 0.05, 0.11, 0.12; in the other line 0.43 and 0.42."""
    early, late = split(world())
    before = scored(late)
    by_moa = fit(early, SMALL)
    by_compound = fit(early, replace(SMALL, objective="compound", label="compound"))
    moa, compound = scored(by_moa.transform(late)), scored(by_compound.transform(late))
    assert by_moa.labels == tuple(f"M{i}" for i in range(8))
    assert "DMSO" in by_compound.labels
    assert moa.moa > before.moa + 0.08
    assert moa.compound > before.compound + 0.03
    assert compound.compound > before.compound + 0.03
    assert compound.moa < before.moa + 0.5 * (moa.moa - before.moa)
    other = world(line=1, seed=5)
    assert scored(by_moa.transform(other)).moa < scored(other).moa + 0.05


def test_fitting_twice_gives_the_same_weights_and_the_folder_keeps_them(tmp_path: Path) -> None:
    early, late = split(world())
    config = replace(SMALL, epochs=3)
    one, two = fit(early, config), fit(early, config)
    np.testing.assert_array_equal(one.vectors(late.values), two.vectors(late.values))
    again = load_adaptation(one.save(tmp_path))
    np.testing.assert_array_equal(again.transform(late).values, one.transform(late).values)
    np.testing.assert_array_equal(again.scores(late.values), one.scores(late.values))
    assert (again.config, again.labels, again.names) == (config, one.labels, one.names)
    np.testing.assert_allclose(one.vectors(late.values[3:4])[0], one.vectors(late.values)[3], atol=1e-5)
    with pytest.raises(InvalidWeights):
        load_adaptation(tmp_path / "nothing")


def test_rate_halves_after_five_and_training_stops_after_ten_epochs_without_gain() -> None:
    """Labels that say nothing: validation mAP soon stops rising."""
    profiles = world()
    rng = np.random.default_rng(3)
    meta = profiles.meta.assign(Metadata_moa=rng.permutation(profiles.meta["Metadata_moa"].fillna("none")))
    history = fit(Profiles(meta, profiles.values, profiles.names), replace(SMALL, epochs=100)).history
    best = int(history["validation"].to_numpy().argmax())
    assert len(history) == best + 1 + 10
    rates = history["rate"].to_numpy()
    since, expected = 0, [SMALL.learning_rate]
    top = -1.0
    for value in history["validation"].to_numpy()[:-1]:
        since = 0 if value > top else since + 1
        top = max(top, value)
        halve = since and since % 5 == 0
        expected.append(expected[-1] * (0.5 if halve else 1.0))
    np.testing.assert_allclose(rates, expected)


def test_labels_validation_and_batches() -> None:
    truth, labels = truth_of(np.array(["b|a", "c", "a"], dtype=object), True)
    assert labels == ("a", "b", "c")
    np.testing.assert_array_equal(truth, [[1, 1, 0], [0, 0, 1], [1, 0, 0]])
    whole, names = truth_of(np.array(["b|a", "c"], dtype=object), False)
    assert names == ("b|a", "c")
    assert whole.sum() == 2
    profiles = world()
    out = held(profiles, SMALL, np.random.default_rng(0))
    plates = profiles.column("plate")
    assert set(plates[out]) & set(plates[~out]) == set()
    assert len(set(plates[out])) == 2
    assert held(profiles, replace(SMALL, validate_by=""), np.random.default_rng(0)).sum() == round(0.25 * len(profiles))
    assert sum(map(len, batches(np.arange(257), 256))) == 257
    assert min(map(len, batches(np.arange(257), 256))) > 1
    assert [len(b) for b in batches(np.arange(3), 1)] == [3]


def test_cells_become_wells_by_means_of_means() -> None:
    meta = pd.DataFrame({"Metadata_plate": "P", "Metadata_well": "W", "Metadata_field": ["1", "1", "2"]})
    cells = Profiles(meta, np.array([[0.0], [2.0], [5.0]]), ("f",))
    assert float(to_wells(cells).values[0, 0]) == 3.0  # not 7 / 3


def test_scores_count_each_query_once() -> None:
    """Two compounds of one mechanism and one of another, exactly apart: everything is found."""
    rows, values = [], []
    for plate in ("P1", "P2"):
        for name, moa, x in (
            ("A", "m", [9.0, 0.0]),
            ("B", "m", [9.0, 1.5]),
            ("C", "n", [0.0, 9.0]),
            ("D", "n|m", [2, 9]),
        ):
            rows.append((name, moa, plate))
            values.append(x)
        for i in range(4):
            rows.append(("DMSO", None, plate))
            values.append([0.1 * (-1) ** i, 0.1 * (-1) ** (i // 2)])
    meta = pd.DataFrame(rows, columns=["Metadata_compound", "Metadata_moa", "Metadata_plate"])
    found = score(
        Profiles(meta, np.array(values), ("x", "y")), (meta["Metadata_compound"] == "DMSO").to_numpy(), keep=0
    )
    assert found.compound == 1.0
    assert len(found.compound_queries) == 8
    # A finds B, then D, then not C; B the same; C finds D. All others are positives of D: it is no query
    assert len(found.moa_queries) == 3
    assert found.moa_chance < 1.0
    assert found.moa >= 0.99


def test_training_from_a_recipe(tmp_path: Path) -> None:
    early, late = split(world(plates=8))
    (tmp_path / "data").mkdir()
    write_profiles(early, tmp_path / "data" / "profiles.parquet")
    config = tmp_path / "trex.toml"
    config.write_text("[trex]\nwidths = [16, 8, 4]\nepochs = 2\n")
    made = load_adaptation(train(config, tmp_path / "data", tmp_path / "run"))
    assert made.transform(late).values.shape == (len(late), 8)
    root = Path(__file__).resolve().parent.parent / "configs/embedders"
    for path in sorted(root.glob("trex*.toml")):
        assert table_of(read_recipe(path), "trex", TrexConfig, path.name).widths == (1024, 512, 256)


def test_refusals() -> None:
    profiles = world(plates=2)
    with pytest.raises(InvalidRecipe, match="objective 'target'"):
        TrexConfig(objective="target")
    with pytest.raises(InvalidProfiles, match="expected at least 2"):
        fit(profiles.rows(profiles.column("compound") == "C1"), SMALL)
    with pytest.raises(InvalidProfiles, match="NaN"):
        fit(profiles.with_values(np.where(profiles.values > 2, np.nan, profiles.values)), SMALL)
    with pytest.raises(InvalidProfiles, match="1 group"):
        fit(profiles.rows(profiles.column("plate") == "P1"), SMALL)
    with pytest.raises(InvalidProfiles, match="not in the profiles"):
        fit(profiles, replace(SMALL, epochs=1)).transform(profiles.features(profiles.names[:5]))
