"""Where every compound of a run is: a state machine without processes, clocks or files, shared by all executors.

admitted -> encoded -> pieces painted and measured -> finished, or more draws wanted -> ... ; a part is whole when all
its compounds are finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.batch.plan import READY, Entry
from service.batch.stages import CONTROL_ROW, Item, control_item, slabs


@dataclass
class _Compound:
    base: Item
    wanted: int
    measured: int = 0
    pieces: list[Item] = field(default_factory=list)
    broken: bool = False


@dataclass
class _Part:
    entries: Sequence[Entry]
    left: int
    results: dict[int, Item] = field(default_factory=dict)


class Tracker:
    """Compounds in work, by entry number; what is finished with its part is forgotten."""

    def __init__(self, first: int, draws: int, micro_batch: int) -> None:
        self._first, self._draws, self._micro_batch = first, draws, micro_batch
        self._compounds: dict[int, _Compound] = {}
        self._parts: dict[int, _Part] = {}

    @property
    def in_work(self) -> int:
        """Compounds admitted and not finished."""
        return len(self._compounds)

    def admit_control(self) -> Item:
        """The control, which gets every draw."""
        return self._admit(control_item(), self._draws)

    def admit(self, part: int, entries: Sequence[Entry]) -> list[Item]:
        """The compounds of a part, ready for `chem`; none when it holds only refused entries and duplicates."""
        ready = [one for one in entries if one.state == READY]
        self._parts[part] = _Part(entries, len(ready))
        return [
            self._admit(
                Item({"row": one.row, "part": part, "smiles": one.smiles, "inchikey": one.inchikey}, {}), self._first
            )
            for one in ready
        ]

    def encoded(self, item: Item) -> list[Item]:
        """After `chem`: the pieces to paint; none if it failed, which `ready` then tells."""
        compound = self._compounds[item.header["row"]]
        if "failed" in item.header:
            compound.pieces, compound.broken = [item], True
            return []
        compound.base = item
        return slabs(item, 0, compound.wanted, self._micro_batch)

    def measured(self, item: Item) -> list[Item] | None:
        """After `profile` (or a failed `paint`): all pieces of the compound when they are there, else None."""
        compound = self._compounds[item.header["row"]]
        compound.pieces.append(item)
        compound.measured += item.header["stop"] - item.header["start"]
        compound.broken |= "failed" in item.header
        return compound.pieces if compound.measured >= compound.wanted else None

    def pieces(self, row: int) -> list[Item]:
        """The pieces of a compound so far."""
        return self._compounds[row].pieces

    def finished(self, result: Item) -> list[Item]:
        """After `finish`: the further pieces to paint when it wants more draws, else none."""
        row = result.header["row"]
        compound = self._compounds[row]
        if "more" in result.header:
            before, compound.wanted = compound.wanted, int(result.header["more"])
            return slabs(compound.base, before, compound.wanted, self._micro_batch)
        del self._compounds[row]
        if row != CONTROL_ROW:
            part = self._parts[result.header["part"]]
            part.results[row] = result
            part.left -= 1
        return []

    def whole(self, part: int) -> tuple[Sequence[Entry], dict[int, Item]] | None:
        """Entries and results of a part that has all of them, which is then forgotten; else None."""
        if part not in self._parts or self._parts[part].left:
            return None
        found = self._parts.pop(part)
        return found.entries, found.results

    def _admit(self, item: Item, wanted: int) -> Item:
        self._compounds[item.header["row"]] = _Compound(item, wanted)
        return item
