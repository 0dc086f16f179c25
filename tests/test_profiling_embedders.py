"""The slot for learned engines, and the untrained control in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from embedder_data import recipe

from profiling.embedders import EMBEDDERS, Embedder, InvalidEmbedder, cell_vectors, column_names, field_vector
from profiling.embedders.embedding import check_pictures
from profiling.embedders.networks.build import build_encoder
from profiling.embedders.networks.phenoprofiler import PhenoConfig, PhenoNetwork
from profiling.embedders.random_conv import FILTERS, SIDES, random_filters
from profiling.embedders.recipe import as_table
from profiling.embedders.trex import TrexConfig, fit
from profiling.embedders.weights import save_folder
from profiling.profiles import Profiles

CHANNELS = ("DNA", "ER")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).random((3, 2, 24, 20), dtype=np.float32)


def folder_of(name: str, out: Path) -> Path | None:
    """A folder of tiny untrained weights of an engine that reads tiles of DNA and ER; None for the control."""
    if name == "random_conv":
        return None
    if name == "trex":
        rng = np.random.default_rng(0)
        k = 2 * len(random_filters()) * 2
        meta = pd.DataFrame({"Metadata_moa": ["a", "b", "a|b"] * 6})
        table = Profiles(meta, rng.normal(size=(18, k)), column_names("random_conv", k))
        return fit(table, TrexConfig(widths=(8, 6, 4), epochs=1, base="random_conv")).save(out)
    return save_untrained(name, out)


def save_untrained(name: str, out: Path) -> Path:
    """Weights as they start, for the channels DNA and ER."""
    kind, network = name.rsplit("_", 1) if name.endswith(("_boc", "_mca")) else ("phenoprofiler", name)
    kind, network = {"cha_mae": ("cha_mae", "mca"), "brightfield_dino": ("dino", "boc")}.get(name, (kind, network))
    own = recipe(kind, network, engine=name)
    net = own.network
    encoder = PhenoNetwork(replace(net, out=5), 2) if isinstance(net, PhenoConfig) else build_encoder(net, CHANNELS)
    crops = replace(own.crops, source="tiles", scales=(8,), read=8)
    card = {
        "engine": name,
        "network": as_table(encoder.config if isinstance(encoder, PhenoNetwork) else net),
        "crops": as_table(crops),
        "channels": list(CHANNELS),
        "reading": as_table(replace(own.embedder, pool="mean" if name == "brightfield_dino" else "concat")),
    }
    save_folder(out, encoder, card)
    return out


@pytest.mark.parametrize("name", sorted(EMBEDDERS))
def test_every_embedder_names_its_columns_and_is_blind_to_the_rest_of_the_batch(
    name: str, pictures: np.ndarray, tmp_path: Path
) -> None:
    with EMBEDDERS[name](folder_of(name, tmp_path / "weights")) as embedder:
        assert isinstance(embedder, Embedder)
        told: list[int] = []
        together = embedder.measure(pictures, CHANNELS, told.append)
        assert told == [1, 2, 3]
        for i in (2, 0, 1):
            ((names, values),) = embedder.measure(pictures[i : i + 1], CHANNELS)[0].objects.values()
            assert names == column_names(name, len(names))
            assert len(values)
            assert len(embedder.hash) == 64
            ((_, batch),) = together[i].objects.values()
            np.testing.assert_array_equal(values, batch)


def test_names_sort_as_numbers() -> None:
    assert column_names("x", 3) == ("x_000", "x_001", "x_002")
    many = column_names("x", 1001)
    assert many[1000] == "x_1000"
    assert list(many) == sorted(many)


def test_random_conv_is_a_loop_over_pixels(pictures: np.ndarray) -> None:
    """Parity with the definition, written as loops, on one filter of each size and the second channel."""
    ((_, values),) = EMBEDDERS["random_conv"](None).measure(pictures[:1], CHANNELS)[0].objects.values()
    filters = random_filters()
    assert values.shape == (1, 2 * len(filters) * 2)
    plane = pictures[0, 1].astype(float)
    for k in range(0, len(filters), FILTERS):
        kernel = filters[k][::-1, ::-1]  # a convolution turns its kernel
        side = len(kernel)
        response = [
            max(float((plane[y : y + side, x : x + side] * kernel).sum()), 0.0)
            for y in range(24 - side + 1)
            for x in range(20 - side + 1)
        ]
        at = 2 * (len(filters) + k)
        # sums of at most 225 products of numbers below 1, by FFT: a few units in the 15th place
        np.testing.assert_allclose(values[0, at : at + 2], [np.mean(response), np.std(response)], rtol=1e-11)


def test_random_filters_are_fixed_and_blind_to_brightness() -> None:
    for one in random_filters():
        assert abs(one.sum()) < 1e-12
        assert (one**2).sum() == pytest.approx(1.0)
    assert [len(one) for one in random_filters()] == [side for side in SIDES for _ in range(FILTERS)]


def test_vectors_of_cells_and_fields() -> None:
    field = field_vector("a", np.arange(4.0))
    assert field.outcome == "ok"
    assert field.objects["Field"].values.shape == (1, 4)
    cells = cell_vectors("a", np.ones((5, 4)))
    assert cells.objects["Cells"].names[-1] == "a_003"
    assert cell_vectors("a", np.ones((0, 4))).outcome == "no_cells"


def test_refusals(pictures: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InvalidEmbedder, match="never trained"):
        EMBEDDERS["random_conv"](tmp_path)
    control = EMBEDDERS["random_conv"](None)
    with pytest.raises(InvalidEmbedder, match="at least 15"):
        control.measure(pictures[..., :10], CHANNELS)
    with pytest.raises(InvalidEmbedder, match="one distinct name"):
        control.measure(pictures, ("DNA", "DNA"))
    with pytest.raises(InvalidEmbedder, match="float32"):
        check_pictures(pictures[0], CHANNELS)
