"""Neighbours, parents and places of objects: CellProfiler's numbers and scenes by hand."""

import numpy as np
import pytest

from profiling.engines.families import location, neighbours
from profiling.engines.families.regions import regions
from profiling.engines.pipeline_settings import Neighbours
from profiling.segment import Objects


def within(distance: int, method: str = "Within a specified distance") -> Neighbours:
    return Neighbours("Cells", "Cells", method, distance, count_discarded=True)


def row_of_squares(gaps: tuple[int, ...]) -> Objects:
    """Squares of 5 pixels in a row, with `gaps` free columns between them."""
    labels = np.zeros((15, 6 + 5 * (len(gaps) + 1) + sum(gaps)), np.int32)
    x = 3
    for k, gap in enumerate((*gaps, 0), 1):
        labels[5:10, x : x + 5] = k
        x += 5 + gap
    return Objects.of(labels)


def test_counts_within_a_distance() -> None:
    found = row_of_squares((0, 2, 4))
    counts = {d: neighbours.measure(found, found, within(d))[:, 0].tolist() for d in (1, 2, 3, 5)}
    assert counts == {1: [1, 1, 0, 0], 2: [1, 1, 0, 0], 3: [1, 2, 1, 0], 5: [1, 2, 2, 1]}
    assert neighbours.measure(found, found, within(5, "Adjacent"))[:, 0].tolist() == [1, 1, 0, 0]
    # Grown until they meet, all are in a row.
    assert neighbours.measure(found, found, within(5, "Expand until adjacent"))[:, 0].tolist() == [1, 2, 2, 1]


def test_shares_and_closest_objects() -> None:
    found = row_of_squares((0, 2))
    values = neighbours.measure(found, found, within(1))
    # 16 outline pixels; those within 1.5 pixels of the other square: one column of 5.
    np.testing.assert_allclose(values[:, 1], [500 / 16, 500 / 16, 0])
    np.testing.assert_array_equal(values[:, 2], [2, 1, 2])
    np.testing.assert_allclose(values[:, 3], [5, 5, 7])
    np.testing.assert_array_equal(values[:, 4], [3, 3, 1])
    np.testing.assert_allclose(values[:, 5], [12, 7, 12])
    np.testing.assert_allclose(values[:, 6], [0, 180, 0], atol=1e-5)


def test_dropped_objects_count_as_neighbours_but_have_no_number() -> None:
    whole = row_of_squares((0, 2))
    kept = np.where(whole.labels == 1, 0, whole.labels)
    kept = np.where(kept > 0, kept - 1, 0).astype(np.int32)
    found = Objects(kept, whole.labels, whole.labels)
    values = neighbours.measure(found, found, within(1))
    assert values[:, 0].tolist() == [1, 0]
    np.testing.assert_allclose(values[0, 3], 5)
    assert values[:, 2].tolist() == [2, 1]
    alone = neighbours.measure(found, found, Neighbours("Cells", "Cells", "Adjacent", 5, count_discarded=False))
    assert alone[:, 0].tolist() == [0, 0]


def test_neighbours_of_another_kind() -> None:
    cells = row_of_squares((2,))
    spots = np.zeros_like(cells.labels)
    spots[7, 8], spots[7, 9] = 1, 2  # in the gap between both squares
    settings = Neighbours("Cells", "Spots", "Within a specified distance", 1, count_discarded=True)
    values = neighbours.measure(cells, Objects.of(spots), settings)
    assert neighbours.names(settings)[0] == "Neighbors_NumberOfNeighbors_Spots_1"
    assert values[:, 0].tolist() == [1, 1]
    assert values[:, 2].tolist() == [1, 2]


def test_no_object_and_one_object() -> None:
    none = Objects.of(np.zeros((5, 5), np.int32))
    assert neighbours.measure(none, none, within(2)).shape == (0, 7)
    single = row_of_squares(())
    np.testing.assert_array_equal(neighbours.measure(single, single, within(2)), np.zeros((1, 7)))


def test_parents_by_largest_overlap() -> None:
    parent = np.zeros((4, 10), np.int32)
    parent[:, :5], parent[:, 5:9] = 1, 2
    child = np.zeros((4, 10), np.int32)
    child[0, 3:6], child[1, 4:7], child[2, 4:6], child[3, 9] = 1, 2, 3, 4
    of, count = location.parents(parent, child, 2, 4)
    assert of.tolist() == [1, 2, 1, 0]  # the tie of child 3 goes to the lower number
    assert count.tolist() == [2, 1]


def test_centres() -> None:
    labels = np.zeros((6, 6), np.int32)
    labels[1, 2:5] = 2
    centres = location.centres(regions(labels))
    assert np.isnan(centres[0]).all()
    assert centres[1].tolist() == pytest.approx([3, 1])
