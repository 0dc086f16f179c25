"""Distances inside the objects of a batch: to the edge, and from a centre along paths inside.

Edge: how far the run of equal labels goes up and down each column comes from two scans; then the row is searched one
step further out at a time, until no step can lower any pixel. Path: every pixel takes the least of its eight neighbours
plus 1 or √2 until nothing changes. Both give the numbers of `families.edge_distance` to the bit.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from profiling.engines.families_torch.batch import Lists

_FAR = 1 << 14
_AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)
_CHECK = 8  # iterations between two looks whether anything changed


def squared_to_edge(ids: Int64[Tensor, "f h w"]) -> Int64[Tensor, "f h w"]:
    """Squared distance of each object pixel to the nearest pixel with another label; 0 in the background."""
    width = ids.shape[2]
    column = torch.minimum(_run(ids), _run(ids.flip(1)).flip(1)) * (ids >= 0)
    best = column * column
    step = 1
    most = int(best.max()) if best.numel() else 0
    while step < width and step * step < most:
        for a, b in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            here, there = ids[:, :, a], ids[:, :, b]
            near = torch.where(here == there, column[:, :, b] ** 2, 0) + step * step
            best[:, :, a] = torch.minimum(best[:, :, a], near)
        step += 1
        if step % _CHECK == 0:
            most = int(best.max())
    return torch.where(ids >= 0, best, 0)


def _run(ids: Int64[Tensor, "f h w"]) -> Int64[Tensor, "f h w"]:
    """Rows up to the first pixel with another label; `_FAR` where the frame comes first."""
    rows = torch.arange(ids.shape[1], device=ids.device)[None, :, None]
    begins = torch.zeros_like(ids)
    begins[:, 1:] = torch.where(ids[:, 1:] != ids[:, :-1], rows[:, 1:], 0)
    begin = begins.cummax(dim=1)[0]
    return torch.where(begin > 0, rows - begin + 1, _FAR)


def path_from(of: Lists, centres: Int64[Tensor, " n"]) -> Float64[Tensor, " p"]:
    """Length of the shortest 8-connected path inside the object from its centre (place in its field; -1: none)."""
    count = len(of.index)
    size = of.ids.shape[1] * of.ids.shape[2]
    position = torch.full((of.ids.numel(),), count, device=of.device)
    position[of.index] = torch.arange(count, device=of.device)
    neighbours = torch.stack(
        [torch.where(same, position[place], count) for place, same in (of.at(dy, dx) for dy, dx in _AROUND)]
    )
    steps = torch.tensor([2.0**0.5 if dy and dx else 1.0 for dy, dx in _AROUND], dtype=torch.float64, device=of.device)
    known = centres >= 0
    distance = torch.full((count + 1,), torch.inf, dtype=torch.float64, device=of.device)
    distance[position[(of.field * size + centres)[known]]] = 0.0
    while True:
        before = distance
        for _ in range(_CHECK):
            nearer = (distance[neighbours] + steps[:, None]).amin(dim=0)
            distance = torch.cat([torch.minimum(distance[:-1], nearer), distance[-1:]])
        if torch.equal(distance, before):
            return distance[:-1]
