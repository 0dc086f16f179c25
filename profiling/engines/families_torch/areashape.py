"""MeasureObjectSizeShape of a batch: definitions in `families.areashape`, which also puts the columns together.

On the device: moments, outlines, Euler numbers, radii, Zernike moments: what reads every pixel. The few numbers an
object that follow from them, and those of its convex hull, are made on the host.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from profiling.engines.families import areashape
from profiling.engines.families_torch import distance, zernike
from profiling.engines.families_torch.batch import Lists, reduce, sorted_within
from profiling.engines.pipeline_settings import SizeShape

_RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
_STRAIGHT, _DIAGONAL, _CORNER = (5, 7, 15, 17, 25, 27), (21, 33), (13, 23)


def measure(
    of: Lists, settings: SizeShape, hulls: Float64[Tensor, "n 6"], *, stable: bool = False
) -> Float64[Tensor, "n k"]:
    """Values of `families.areashape.names`. hulls: `families.areashape.hull_parts` of each object."""
    if not of.n:
        return torch.zeros(0, len(areashape.names(settings)), dtype=torch.float64, device=of.device)
    orders = 4 if settings.advanced else 3
    box = _box(of)
    v, u = of.y - box[:, 0][of.owner], of.x - box[:, 1][of.owner]
    raw = _moments(of, v.double(), u.double(), orders)
    cy, cx = raw[:, 1, 0] / raw[:, 0, 0], raw[:, 0, 1] / raw[:, 0, 0]
    central = _moments(of, v - cy[of.owner], u - cx[of.owner], orders)
    places = of.sums(torch.stack([of.x.double(), of.y.double()], dim=1)) / of.area[:, None]
    zernikes = zernike.of_shapes(of, hulls[:, 3:]) if settings.zernikes else None
    parts = areashape.Parts(
        area=of.area.double().cpu().numpy(),
        box=box.double().cpu().numpy(),
        raw=raw.cpu().numpy(),
        central=central.cpu().numpy(),
        outline=_outlines(of).cpu().numpy(),
        radii=_radii(of).cpu().numpy(),
        centre=places.cpu().numpy(),
        hull=hulls.cpu().numpy(),
        zernikes=None if zernikes is None else zernikes.cpu().numpy(),
    )
    return torch.as_tensor(areashape.together(parts, settings, stable), device=of.device)


def _box(of: Lists) -> Int64[Tensor, "n 4"]:
    places = torch.stack([of.y, of.x], dim=1).double()
    low, high = reduce(places, "min", of.runs), reduce(places, "max", of.runs)
    box = torch.stack([low[:, 0], low[:, 1], high[:, 0] + 1, high[:, 1] + 1], dim=1)
    return torch.where(torch.isfinite(box), box, 0.0).long()


def _moments(of: Lists, v: Float64[Tensor, " p"], u: Float64[Tensor, " p"], orders: int) -> Float64[Tensor, "n 4 4"]:
    """Σ v^i u^j over each object, powers below `orders`."""
    out = torch.zeros(of.n, 4, 4, dtype=torch.float64, device=of.device)
    row = torch.ones_like(v)
    for i in range(orders):
        powers = [row]
        for _ in range(orders - 1):
            powers.append(powers[-1] * u)
        out[:, i, :orders] = of.sums(torch.stack(powers, dim=1))
        row = row * v
    return out


def _outlines(of: Lists) -> Float64[Tensor, "n 4"]:
    """Border pixels by weight 1, √2 and (1 + √2) / 2, and the Euler number (8-connected)."""
    same = {offset: of.same(*offset) for offset in _RING} | {(0, 0): torch.ones_like(of.owner, dtype=torch.bool)}
    border = ~(same[-1, 0] & same[1, 0] & same[0, -1] & same[0, 1])
    dense = torch.zeros(of.ids.numel(), dtype=torch.bool, device=of.device)
    dense[of.index] = border
    code = torch.ones_like(of.owner)
    for dy, dx in _RING:
        code += (dense[of.at(dy, dx)[0]] & same[dy, dx]) * (10 if dy and dx else 2)
    kinds = [sum((code == c for c in codes), torch.zeros_like(border)) for codes in (_STRAIGHT, _DIAGONAL, _CORNER)]
    quads = torch.zeros_like(of.owner)
    for a in (-1, 0):
        for b in (-1, 0):
            n00, n01, n10, n11 = (same[a + i, b + j] for i in (0, 1) for j in (0, 1))
            total = n00.long() + n01 + n10 + n11
            quads += 12 * (total == 1) - 4 * (total == 3) - 12 * ((total == 2) & (n00 == n11))
    weights = of.sums(torch.stack([(kind.bool() & border).double() for kind in kinds] + [quads.double()], dim=1))
    return torch.cat([weights[:, :3], torch.div(weights[:, 3:], 48, rounding_mode="floor")], dim=1)


def _radii(of: Lists) -> Float64[Tensor, "n 3"]:
    """Greatest, mean and median distance to the edge; the frame of the picture is an edge here."""
    padded = torch.nn.functional.pad(of.ids, (1, 1, 1, 1), value=-1)
    squares = of.gather(distance.squared_to_edge(padded)[:, 1:-1, 1:-1])
    radii = squares.double().sqrt()
    rising = sorted_within(of.owner, squares)[0].double().sqrt()
    last = max(len(rising) - 1, 0)
    middle = [rising[(of.start + at.clamp(min=0)).clamp(max=last)] for at in ((of.area - 1) // 2, of.area // 2)]
    return torch.stack([reduce(radii, "max", of.runs), of.sums(radii) / of.area, (middle[0] + middle[1]) / 2], dim=1)
