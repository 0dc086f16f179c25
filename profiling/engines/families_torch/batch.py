"""A batch of fields on a device: the pixels of every object of every field as one list, sorted by object.

Objects are numbered 0 to n − 1 over the batch, field after field. Sums over objects are segment sums, each object's own
pixels in raster order, without atomics: the same numbers in any batch and at any repetition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Shaped
from torch import Tensor

Reduction = Literal["sum", "max", "min"]
_PIECE = 256  # rows that one thread adds up: a whole picture is one run


@dataclass(frozen=True)
class Runs:
    """Runs of rows of known lengths, each cut into pieces from its own start, so that no sum depends on the batch."""

    lengths: Int64[Tensor, " n"]
    piece_lengths: Int64[Tensor, " m"]
    pieces: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Lists:
    """One kind of object of a batch; the twin of `families.regions.Regions`.

    ids: object of each pixel of the pictures, -1 for background. field: of each object. index: place of each pixel of
    the list in the raveled pictures [f, h, w]. y, x: its row and column. owner: its object. start, area: where an
    object's run begins, and how long it is. first: number of the first object of each field, and n behind the last.
    """

    ids: Int64[Tensor, "f h w"]
    field: Int64[Tensor, " n"]
    index: Int64[Tensor, " p"]
    y: Int64[Tensor, " p"]
    x: Int64[Tensor, " p"]
    owner: Int64[Tensor, " p"]
    start: Int64[Tensor, " n"]
    area: Int64[Tensor, " n"]
    runs: Runs
    first: tuple[int, ...]

    @property
    def n(self) -> int:
        """Objects of the batch."""
        return self.first[-1]

    @property
    def device(self) -> torch.device:
        """Where the lists lie."""
        return self.ids.device

    def gather(self, pictures: Shaped[Tensor, "f h w"]) -> Shaped[Tensor, " p"]:
        """The values of one channel at the pixels of the list."""
        return pictures.reshape(-1)[self.index]

    def stack(self, pictures: Sequence[Shaped[Tensor, "f h w"]]) -> Shaped[Tensor, "p c"]:
        """The values of several channels at the pixels of the list."""
        return torch.stack([self.gather(one) for one in pictures], dim=1)

    def sums(self, values: Shaped[Tensor, "p ..."]) -> Float64[Tensor, "n ..."]:
        """Sum over the pixels of each object, float64."""
        return reduce(values.double(), "sum", self.runs)

    def same(self, dy: int, dx: int) -> Bool[Tensor, " p"]:
        """Whether the pixel at (y + dy, x + dx) lies in the picture and belongs to the same object."""
        return self.at(dy, dx)[1]

    def at(self, dy: int, dx: int) -> tuple[Int64[Tensor, " p"], Bool[Tensor, " p"]]:
        """Place of (y + dy, x + dx) in the raveled pictures (0 where it is not `same`), and `same`."""
        _, height, width = self.ids.shape
        y, x = self.y + dy, self.x + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        place = torch.where(inside, self.index + (dy * width + dx), 0)
        same = inside & (self.ids.reshape(-1)[place] == self.owner)
        return torch.where(same, place, 0), same


def lists(labels: Int32[Tensor, "f h w"]) -> Lists:
    """The objects of label images (0 background, 1 to n each), on their device."""
    fields, height, width = labels.shape
    counts = labels.amax(dim=(1, 2)).tolist() if labels.numel() else [0] * fields
    first = [0]
    for count in counts:
        first.append(first[-1] + int(count))
    offset = torch.tensor(first[:-1], device=labels.device)
    ids = torch.where(labels > 0, labels.long() - 1 + offset[:, None, None], -1)
    places = (ids.reshape(-1) >= 0).nonzero()[:, 0]
    owner, order = ids.reshape(-1)[places].sort(stable=True)
    index = places[order]
    area = torch.bincount(owner, minlength=first[-1])
    field = torch.repeat_interleave(
        torch.arange(fields, device=labels.device), torch.tensor(counts, device=labels.device, dtype=torch.int64)
    )
    within = index % (height * width)
    start = area.cumsum(0) - area
    return Lists(ids, field, index, within // width, within % width, owner, start, area, runs(area), tuple(first))


def runs(lengths: Int64[Tensor, " n"]) -> Runs:
    """Runs of these lengths, one behind the other."""
    pieces = (lengths + (_PIECE - 1)) // _PIECE
    of = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), pieces)
    within = torch.arange(len(of), device=lengths.device) - (pieces.cumsum(0) - pieces)[of]
    return Runs(lengths, (lengths[of] - _PIECE * within).clamp(max=_PIECE), pieces)


def reduce(values: Shaped[Tensor, "p ..."], how: Reduction, over: Runs) -> Shaped[Tensor, "n ..."]:
    """Sum or extreme of each run of rows; an empty one: 0 or infinity.

    float64: of its pieces, then of those. float32: one value after the other, whose rounding is that of a plain loop.
    """
    if values.ndim == 1:
        return reduce(values[:, None], how, over)[:, 0]
    if values.dtype == torch.float32:
        return _reduced(values, how, over.lengths)
    return _reduced(_reduced(values, how, over.piece_lengths), how, over.pieces)


def _reduced(values: Shaped[Tensor, "p c"], how: Reduction, lengths: Int64[Tensor, " n"]) -> Shaped[Tensor, "n c"]:
    """One thread a run and column."""
    start = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}[how]
    if not len(values) or not len(lengths):
        return values.new_full((len(lengths), values.shape[1]), start)
    return torch.segment_reduce(values.contiguous(), how, lengths=lengths, axis=0, initial=start, unsafe=True)


def bits(values: Float32[Tensor, " p"]) -> Int64[Tensor, " p"]:
    """Whole numbers that order as these values, none of which is negative."""
    return (values + 0.0).contiguous().view(torch.int32).long()


def values_of(keys: Int64[Tensor, " p"]) -> Float32[Tensor, " p"]:
    """The values of `bits`."""
    return keys.to(torch.int32).view(torch.float32)


def sorted_within(
    groups: Int64[Tensor, " p"], keys: Int64[Tensor, " p"]
) -> tuple[Int64[Tensor, " p"], Int64[Tensor, " p"]]:
    """Keys (0 to 2³² − 1) by rising group, then rising key; and the place that each had."""
    both, order = ((groups << 32) | keys).sort(stable=True)
    return both & 0xFFFFFFFF, order


def first_maxima(of: Lists, values: Shaped[Tensor, " p"]) -> Int64[Tensor, " n"]:
    """Place in its field of each object's first maximum in raster order; -1 for an object without pixels."""
    height, width = of.ids.shape[1:]
    top = reduce(values.double(), "max", of.runs)
    place = torch.where(values.double() == top[of.owner], of.index % (height * width), height * width)
    least = reduce(place.double(), "min", of.runs)
    return torch.where(of.area > 0, least, -1.0).long()
