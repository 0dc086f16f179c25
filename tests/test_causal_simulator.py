"""The painted world: what it says is true is true of what it paints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from causal import painter
from causal.allocation import AllocationConfig, allocate
from causal.exposure import LINES, UnknownExposure, exposure_factor
from causal.laboratory import Laboratory, UnknownContext
from causal.markers import ALL_CHANNELS, UnknownChannel, paint_markers
from causal.painter import STATE
from causal.phenotype import DMSO, PhenotypeConfig, UnknownCompound, class_directions, compound_effects
from causal.simulator import World

CLASSES = 6
LIBRARY = pd.DataFrame(
    {
        "compound": [f"K{i}" for i in range(60)],
        "moa": [f"class {i % CLASSES}" for i in range(60)],
        "second_moa": ["class 0" if i == 7 else "" for i in range(60)],
    }
)
STRUCTURE = np.random.default_rng(0).poisson(0.05, (60, 256)).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    return World(Laboratory(), compound_effects(LIBRARY, STRUCTURE))


def rows(world: World, compounds: list[str], plate: str = "S2B01P1", seed: int = 5, **more: object) -> pd.DataFrame:
    context = world.plates.set_index("plate").loc[plate]
    table = pd.DataFrame({"compound": compounds})
    for name, value in {"source": context["source"], "batch": context["batch"], "plate": plate}.items():
        table[name] = value
    table["plate_format"] = int(context["plate_format"])
    table["row"], table["column"] = 7, 11
    table["seed"] = np.arange(seed, seed + len(table), dtype=np.uint64)
    return table.assign(**more)


def test_a_row_determines_its_picture(world: World) -> None:
    table = rows(world, [DMSO, "K0", "K1", "K2"])
    together = world.paint(table)
    for i in (2, 0):
        assert np.array_equal(world.paint(table.iloc[[i]])[0], together[i])
    assert np.array_equal(world.paint(table.iloc[::-1])[::-1], together)


def test_twins_share_everything_but_the_compound(world: World) -> None:
    table = rows(world, [DMSO, "K1"]).assign(seed=np.uint64(9))
    control, treated = world.fields(table)
    n = min(len(control.xy), len(treated.xy))
    assert np.array_equal(control.xy[:n], treated.xy[:n])
    assert np.array_equal(control.pixel, treated.pixel)
    moved = treated.state[:n] - control.state[:n]
    effect = world.effect(table)[1]
    silent = np.all(moved == 0, axis=1)
    assert 0 < silent.sum() < n or world.compounds.responders[1] > 0.9
    strength = moved[~silent] @ effect / (effect @ effect)
    assert np.allclose(moved[~silent], strength[:, None] * effect)


def test_expected_state_is_the_mean_of_many_cells(world: World) -> None:
    table = pd.concat([rows(world, ["K1"])] * 400).assign(seed=np.arange(400, dtype=np.uint64))
    cells = np.concatenate([f.state for f in world.fields(table)])
    want = world.expected_state(table.iloc[[0]])[0]
    error = cells.std(0) / np.sqrt(len(cells))
    assert np.all(np.abs(cells.mean(0) - want)[1:] < 5 * error[1:])
    naive = world.field_state(table.iloc[[0]])[0]
    assert np.abs(cells.mean(0) - naive)[1:].max() > 50 * error.max()


def test_controls_have_whole_cells_and_large_nuclei(world: World) -> None:
    plates = world.plates
    parts = [rows(world, [DMSO] * 2, plate, seed=10 * i) for i, plate in enumerate(plates["plate"])]
    table = pd.concat(parts, ignore_index=True)
    whole = [int(((f.xy > 13) & (f.xy < world.size - 13)).all(1).sum()) for f in world.fields(table)]
    assert np.median(whole) >= 12
    diameters = []
    for f in world.fields(table):
        plain = f.state.copy()
        signal = np.zeros((5, world.size, world.size), np.float32)
        painter.paint_cells(f.xy[:1] * 0 + 64, plain[:1], f.shape[:1], painter.noise_tiles(), world.size, signal)
        labels, n = ndimage.label(signal[0] > 0.5 * signal[0].max())
        area = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, n + 1)).max()
        diameters.append(2 * np.sqrt(area / np.pi))
    assert np.median(diameters) >= 12


def test_each_axis_of_the_state_is_visible() -> None:
    """Moving one axis by two steps changes the picture; the same state gives the same picture."""
    shape = np.random.default_rng(1).random((12, painter.N_UNIFORM), dtype=np.float32)
    xy = painter.place_cells(np.random.default_rng(2).random((12, 32), dtype=np.float32), 128, painter.MARGIN)

    def paint(state: np.ndarray) -> np.ndarray:
        out = np.zeros((5, 128, 128), np.float32)
        painter.paint_cells(xy, state, shape, painter.noise_tiles(), 128, out)
        return out

    base = paint(np.zeros((12, 16)))
    assert np.array_equal(base, paint(np.zeros((12, 16))))
    for axis in range(1, len(STATE)):
        moved = np.zeros((12, 16))
        moved[:, axis] = 2.0
        assert np.abs(paint(moved) - base).mean() > 1e-3, STATE[axis]


def test_fewer_cells_are_the_first_cells() -> None:
    uniform = np.random.default_rng(3).random((40, 32), dtype=np.float32)
    many, few = painter.place_cells(uniform, 128, 14.0), painter.place_cells(uniform[:15], 128, 14.0)
    assert np.array_equal(many[:15], few)


def test_class_directions_are_long_and_apart() -> None:
    config = PhenotypeConfig()
    d = np.stack(list(class_directions([f"c{i}" for i in range(20)], config).values()))
    assert np.allclose(np.linalg.norm(d, axis=1), config.class_norm)
    cosine = d @ d.T / config.class_norm**2
    assert np.abs(cosine[~np.eye(20, dtype=bool)]).max() <= config.max_cosine
    assert (d[:, 0] <= 0).all()


def test_weak_classes_and_cliffs_do_little() -> None:
    config = PhenotypeConfig(weak_classes=("class 1",))
    truth = compound_effects(LIBRARY, STRUCTURE, config)
    size = np.linalg.norm(truth.effect, axis=1)
    weak = (LIBRARY["moa"] == "class 1").to_numpy()
    assert size[weak & ~truth.cliff].mean() < 0.6 * size[~weak & ~truth.cliff].mean()
    assert 0 < truth.cliff.mean() <= 0.1
    assert size[truth.cliff].max() < size[~truth.cliff & ~weak].mean()


def test_structure_moves_the_phenotype_smoothly() -> None:
    near = STRUCTURE.copy()
    near[:, 0] += 1.0
    a, b = (compound_effects(LIBRARY, s, PhenotypeConfig(cliff_share=0.0)).effect for s in (STRUCTURE, near))
    far = compound_effects(LIBRARY, STRUCTURE[::-1], PhenotypeConfig(cliff_share=0.0)).effect
    assert 0 < np.abs(a - b).mean() < 0.5 * np.abs(a - far).mean()


def test_optics_and_stain_belong_to_source_and_batch(world: World) -> None:
    table = pd.concat([rows(world, [DMSO], plate) for plate in ("S1B01P1", "S2B01P1", "S2B02P1")])
    optics = world.laboratory.optics(table)
    assert not np.allclose(optics.blur[0], optics.blur[1])
    assert np.array_equal(optics.blur[1], optics.blur[2])
    assert not np.allclose(optics.gain[1], optics.gain[2])


def test_three_to_seven_channels_look_the_same_whatever_others_are_painted(world: World) -> None:
    table = rows(world, [DMSO, "K1"])
    five = world.paint(table)
    seven = World(world.laboratory, world.compounds, channels=ALL_CHANNELS).paint(table)
    three = World(world.laboratory, world.compounds, channels=("Mito", "DNA", "Tubulin")).paint(table)
    assert seven.shape[1] == 7
    assert np.array_equal(seven[:, :5], five)
    assert np.array_equal(three, seven[:, [4, 0, 6]])
    assert seven[:, 5:].std((2, 3)).min() > 0.01
    for bad in (("DNA", "ER"), ("DNA", "DNA", "ER"), ("DNA", "ER", "Golgi")):
        with pytest.raises(UnknownChannel, match="channels"):
            World(world.laboratory, world.compounds, channels=bad)


@pytest.mark.parametrize(("axis", "stain", "grows"), [(9, 0, False), (15, 0, True), (2, 1, True), (13, 1, False)])
def test_further_stains_follow_their_axes(axis: int, stain: int, grows: bool) -> None:
    shape = np.random.default_rng(1).random((12, painter.N_UNIFORM), dtype=np.float32)
    xy = painter.place_cells(np.random.default_rng(2).random((12, 32), dtype=np.float32), 128, painter.MARGIN)
    light = []
    for step in (0.0, 1.5):
        state, out = np.zeros((12, 16)), np.zeros((2, 128, 128), np.float32)
        state[:, axis] = step
        paint_markers(xy, state, shape, painter.noise_tiles(), 128, out)
        light.append(float(out[stain].sum()))
    assert (light[1] > 1.05 * light[0]) if grows else (light[1] < 0.95 * light[0])


def test_dose_and_time_raise_the_effect(world: World) -> None:
    table = pd.concat([rows(world, ["K1"], dose=d, hours=h) for d, h in ((10.0, 48.0), (1.0, 48.0), (10.0, 6.0))])
    full, low, early = np.linalg.norm(world.effect(table), axis=1)
    assert full > low
    assert full > early
    assert np.allclose(exposure_factor(rows(world, ["K1"]), np.zeros(1)), 1.0)
    assert np.isclose(exposure_factor(rows(world, ["K1"], dose=1.0), np.zeros(1))[0], 0.5 / (10 / 11))


def test_cell_lines_differ_at_rest_and_in_response(world: World) -> None:
    table = pd.concat([rows(world, ["K1"], cell_line=line) for line in LINES])
    base, effect = world.field_state(table), world.effect(table)
    assert np.abs(base[0] - base[1]).max() > 0.5
    assert not np.allclose(effect[0] / np.linalg.norm(effect[0]), effect[1] / np.linalg.norm(effect[1]))


def test_brightfield_contrast_turns_over_with_focus(world: World) -> None:
    over, focus, under = world.paint_brightfield(rows(world, [DMSO]))[0]
    away = np.corrcoef((over - over.mean()).ravel(), (under - under.mean()).ravel())[0, 1]
    assert away < -0.1
    assert focus.std() < min(over.std(), under.std())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"compound": "nobody"}, UnknownCompound),
        ({"batch": "S9B99"}, UnknownContext),
        ({"row": 16}, UnknownContext),
        ({"dose": 0.0}, UnknownExposure),
        ({"cell_line": "HeLa"}, UnknownExposure),
    ],
)
def test_unknown_things_are_refused(world: World, change: dict[str, object], error: type[ValueError]) -> None:
    with pytest.raises(error):
        world.paint(rows(world, ["K1"]).assign(**change))


def test_allocation_dial() -> None:
    plates = Laboratory().plates
    wells = LIBRARY[["compound", "moa"]].assign(wells=40)
    free = allocate(plates, wells, AllocationConfig(dial=0.0))
    tied = allocate(plates, wells, AllocationConfig(dial=1.0))
    batches = [t[t["compound"] != DMSO].groupby("compound")["batch"].nunique() for t in (free, tied)]
    assert batches[0].min() > 8
    assert batches[1].max() <= 3
    share = (tied["compound"] == DMSO).mean()
    assert abs(share - AllocationConfig().control_share) < 0.01
    assert set(tied.loc[tied["compound"] == DMSO, "batch"]) == set(plates["batch"])

    def association(table: pd.DataFrame) -> float:
        """Mean share of a class's wells in its three most frequent batches."""
        treated = table[table["compound"] != DMSO].merge(LIBRARY[["compound", "moa"]], on="compound")
        counts = pd.crosstab(treated["moa"], treated["batch"]).to_numpy()
        return float((np.sort(counts, 1)[:, -3:].sum(1) / counts.sum(1)).mean())

    assert association(tied) > association(free) + 0.1
    with pytest.raises(ValueError, match="dial"):
        allocate(plates, wells, AllocationConfig(dial=1.5))
