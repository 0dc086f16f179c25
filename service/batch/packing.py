"""Pieces of several compounds in whole micro-batches: the network always runs a full one, so a gap costs as much as a
picture."""

from __future__ import annotations

from collections.abc import Sequence


def best_prefix(sizes: Sequence[int], micro_batch: int, most: int) -> tuple[int, bool]:
    """How many of the first pieces to paint together, and whether they fill at least one whole micro-batch.

    sizes: pictures of each piece, in order. Of the prefixes with at most `most` pictures (or the first piece alone) the
    one that wastes the smallest share of its last micro-batch, the longest of those.
    """
    best, share, total = 1, 0.0, 0
    for n, size in enumerate(sizes, start=1):
        total += size
        if n > 1 and total > most:
            break
        used = total / (-(-total // micro_batch) * micro_batch)
        if used >= share:
            best, share = n, used
    return best, sum(sizes[:best]) >= micro_batch
