"""Small parts of the batch: micro-batches, the state machine, declared engines, shared memory, messages."""

import numpy as np
import pytest

from service.batch.arena import Arena
from service.batch.equivalence import compatibility
from service.batch.packing import best_prefix
from service.batch.plan import Entry
from service.batch.stages import Item, joined, slabs
from service.batch.tracker import Tracker
from service.batch.worker import packed, unpacked
from service.errors import ReferenceMismatch


@pytest.mark.parametrize(
    ("sizes", "most", "expected"),
    [
        ([4, 4, 4], 32, (2, True)),  # 8 of 8 beats 12 of 16
        ([4], 32, (1, False)),
        ([8, 8], 32, (2, True)),
        ([3, 3], 32, (2, False)),  # 6 of 8, less than one
        ([3, 3, 3], 32, (2, False)),  # 9 of 16 wastes more
        ([3, 3, 3, 3], 32, (4, True)),  # 12 of 16 as much as 6 of 8, and more is done at once
        ([40, 4], 32, (1, True)),
    ],
)
def test_micro_batches_are_filled(sizes: list[int], most: int, expected: tuple[int, bool]) -> None:
    assert best_prefix(sizes, 8, most) == expected


def entry(row: int, state: str = "ready") -> Entry:
    return Entry(row, "", "C", state, smiles="C", inchikey=f"K{row}")


def test_the_tracker_lets_a_part_go_when_all_of_it_is_finished() -> None:
    tracker = Tracker(first=10, draws=40, micro_batch=8)
    first, second = tracker.admit(3, [entry(1), entry(2, "invalid"), entry(4)])
    assert tracker.whole(3) is None
    pieces = tracker.encoded(Item({**first.header}, {"vector": np.zeros(2, np.float32)}))
    assert [(one.header["start"], one.header["stop"]) for one in pieces] == [(0, 10)]
    assert tracker.measured(pieces[0]) == pieces
    more = tracker.finished(Item({**first.header, "more": 40}, {}))
    assert [(one.header["start"], one.header["stop"]) for one in more] == [(10, 40)]
    assert more[0].arrays["vector"].shape == (2,)
    assert tracker.measured(more[0]) == [*pieces, *more]
    assert tracker.finished(first) == []
    assert tracker.whole(3) is None
    broken = Item({**second.header, "failed": "internal", "sentence": "x"}, {})
    assert tracker.encoded(broken) == []
    assert tracker.pieces(4) == [broken]
    tracker.finished(broken)
    whole = tracker.whole(3)
    assert whole is not None
    assert set(whole[1]) == {1, 4}
    assert tracker.in_work == 0
    assert tracker.whole(3) is None


def test_pieces_are_whole_micro_batches_and_join_in_any_order() -> None:
    item = Item({"row": 1, "part": 0, "smiles": "C", "inchikey": "K"}, {})
    cut = slabs(item, 0, 75, 12)
    assert [(one.header["start"], one.header["stop"]) for one in cut] == [(0, 24), (24, 48), (48, 72), (72, 75)]
    measured = []
    for one in cut:
        rows = list(range(one.header["start"], one.header["stop"]))
        header = {**one.header, "outcomes": [f"o{i}" for i in rows], "reasons": [""] * len(rows)}
        measured.append(Item(header, {"values": np.array(rows, float)[:, None]}))
    found = joined(reversed(measured))
    np.testing.assert_array_equal(found.arrays["values"][:, 0], np.arange(75))
    assert found.header["outcomes"][74] == "o74"
    bad = Item({**cut[1].header, "failed": "x", "sentence": "y"}, {})
    assert joined([measured[0], bad, measured[3]]) is bad


def test_messages_keep_items_apart() -> None:
    items = [Item({"row": i}, {"vector": np.full(3, i, np.float32), "a/b": np.arange(i)}) for i in range(3)]
    header, arrays = packed(items, task="paint")
    assert header["task"] == "paint"
    for before, after in zip(items, unpacked(header, arrays), strict=True):
        assert before.header == after.header
        assert set(after.arrays) == set(before.arrays)
        np.testing.assert_array_equal(after.arrays["vector"], before.arrays["vector"])


def test_shared_slots_hold_what_was_put_and_refuse_more() -> None:
    arena = Arena.make(2, 4 * 2 * 3)
    other = Arena.open(arena.address, 2, 4 * 2 * 3)
    pictures = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    arena.put(1, pictures)
    np.testing.assert_array_equal(other.get(1, (1, 1, 2, 3)), pictures)
    assert not other.get(0, (1, 1, 2, 3)).any()
    with pytest.raises(ValueError, match="cannot hold"):
        arena.put(0, np.zeros((2, 1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="slot 2"):
        arena.get(2, (1, 1, 1, 1))
    other.close()
    arena.close()


def test_only_declared_engines_may_be_scored_together() -> None:
    hashes = {"cellprofiler": "c" * 64, "fast": "f" * 64, "cp_measure": "m" * 64}
    same = compatibility("fast", "f" * 64, "f" * 64, hashes.__getitem__)
    assert same.document()["basis"] == "same"
    assert same.not_scored(("Nuclei_AreaShape_CentralMoment_0_1",)) == ()
    declared = compatibility("fast", "f" * 64, "c" * 64, hashes.__getitem__)
    told = declared.document()
    assert told["basis"] == "declared"
    assert told["library_engine"] == "cellprofiler"
    names = ("Nuclei_AreaShape_CentralMoment_0_1", "Nuclei_AreaShape_CentralMoment_0_2", "Cells_AreaShape_Area")
    assert declared.not_scored(names) == names[:1]
    for engine, library in (("cp_measure", "c"), ("cellprofiler", "f"), ("fast", "m")):
        with pytest.raises(ReferenceMismatch, match="no equivalence is declared"):
            compatibility(engine, hashes[engine], library * 64, hashes.__getitem__)
