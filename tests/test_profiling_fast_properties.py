"""What must hold of every family of the engine `fast` on any label image: numbers of objects are names, places are
places, and half a turn of a field turns nothing but directions.

All families of the settings `full` at once, on small fields with objects that Hypothesis places; `stable`, as ties are
broken by the order of pixels otherwise.
"""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from profiling.engines import fast_field
from profiling.engines.pipeline_steps import Plan, read_plan

SIDE = 72
CHANNELS = ("DNA", "RNA", "ER", "AGP", "Mito")
#: A failure is not shrunk: an example is a field through all families.
FEW = settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan("full")


@st.composite
def fields(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Ellipses (the later ones above) with gaps between numbers closed, and textured pictures [5, h, w] in [0, 1]."""
    yy, xx = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.int32)
    for k in range(draw(st.integers(1, 4))):
        y, x = draw(st.integers(22, SIDE - 23)), draw(st.integers(22, SIDE - 23))
        a, b = draw(st.integers(4, 10)), draw(st.integers(4, 10))
        labels[((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 <= 1] = k + 1
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return labels, rng.uniform(0.1, 0.6, (5, SIDE, SIDE)).astype(np.float32)


def measure(plan: Plan, labels: np.ndarray, pixels: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Columns and values of the cells; nothing else is wanted, so nothing else is found or measured."""
    planes = dict(zip(CHANNELS, pixels, strict=True))
    found = fast_field.measure_field(plan, planes, {"Cells": labels}, ("Cells",), stable=True)
    assert list(found.tables) == ["Cells"]
    return fast_field.columns(plan)["Cells"], found.tables["Cells"]


def kept(names: tuple[str, ...], *without: str) -> list[int]:
    return [k for k, name in enumerate(names) if not any(part in name for part in without)]


@FEW
@given(field=fields(), random=st.randoms(use_true_random=False))
def test_permuted_labels_permute_the_rows_of_every_family(
    plan: Plan, field: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    labels, pixels = field
    order = np.arange(labels.max())
    random.shuffle(order)  # type: ignore[attr-defined]
    renamed = np.concatenate([[0], order + 1]).astype(np.int32)[labels]
    names, before = measure(plan, labels, pixels)
    # Names themselves, and the closest of several at one distance, which is the one with the lower number.
    columns = kept(names, "Number", "Parent", "Closest", "AngleBetween")
    after = measure(plan, renamed, pixels)[1]
    np.testing.assert_allclose(after[order][:, columns], before[:, columns], rtol=1e-9, atol=1e-12)


@FEW
@given(field=fields(), down=st.integers(-11, 11), right=st.integers(-11, 11))
def test_a_shifted_field_gives_the_same_but_for_places(
    plan: Plan, field: tuple[np.ndarray, np.ndarray], down: int, right: int
) -> None:
    labels, pixels = field
    names, before = measure(plan, labels, pixels)
    after = measure(plan, np.roll(labels, (down, right), (0, 1)), np.roll(pixels, (down, right), (1, 2)))[1]
    # Granularity and Costes look at the whole picture, whose frame the shift moves through.
    columns = kept(names, "Location", "Center", "BoundingBoxM", "Granularity", "Costes", "CentralMoment")
    np.testing.assert_allclose(after[:, columns], before[:, columns], rtol=1e-8, atol=1e-11)
    moved = [names.index(f"Location_CenterMassIntensity_{axis}_RNA") for axis in "XY"]
    np.testing.assert_allclose(after[:, moved] - before[:, moved], np.tile([right, down], (len(after), 1)), atol=1e-9)


@FEW
@given(field=fields())
def test_half_a_turn_keeps_zernikes_textures_and_intensities(plan: Plan, field: tuple[np.ndarray, np.ndarray]) -> None:
    labels, pixels = field
    names, before = measure(plan, labels, pixels)
    after = measure(plan, labels[::-1, ::-1].copy(), pixels[:, ::-1, ::-1].copy())[1]
    families = ("Texture_", "Intensity_", "Correlation_")
    columns = [k for k in kept(names, "Costes") if names[k].startswith(families)]
    assert len(columns) > 800
    np.testing.assert_allclose(after[:, columns], before[:, columns], rtol=1e-7, atol=1e-9)
    # The two or three pixels that define the smallest circle lie on it, and rounding says which of them are inside:
    # each is worth its light over the object's area.
    moments = [k for k, name in enumerate(names) if "Zernike" in name and "Phase" not in name]
    assert len(moments) == 6 * 30
    one_pixel = 1.0 / before[:, names.index("AreaShape_Area")]
    off = np.abs(after[:, moments] - before[:, moments]).max(axis=1)
    assert (off < 3 * one_pixel).all(), off / one_pixel
