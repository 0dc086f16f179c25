"""MeasureGranularity of a batch: definitions in `families.granularity`, whose grids and operator are used as they are.

All channels of all fields are one stack of planes. The mean over an object of a resampled plane is the operator's
sparse row times the plane, all objects at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from profiling.engines.families import float32_sums
from profiling.engines.families.granularity import check_grid, shrunk_shape
from profiling.engines.families_torch import morphology
from profiling.engines.families_torch.batch import Lists, reduce, runs
from profiling.engines.pipeline_settings import Granularity

_EPSILON = float(np.finfo(float).eps)


def measure(
    found: Mapping[str, Lists], pictures: Mapping[str, Float32[Tensor, "f h w"]], settings: Granularity
) -> tuple[dict[str, Float64[Tensor, "n k"]], Float64[Tensor, "f k"]]:
    """Values of `families.granularity.names` for each kind of object, and of `image_names` for each field.

    Raises:
        InvalidSettings: a subsampling whose grid leaves the picture.
    """
    planes = torch.stack([pictures[image] for image in settings.images], dim=1)
    fields, channels, height, width = planes.shape
    current = _prepared(planes.flatten(0, 1), settings)
    rows = {name: _operator(of, (height, width), settings.subsample) for name, of in found.items()}
    # CellProfiler takes the first mean in float32.
    whole = torch.tensor(
        [float(float32_sums.mean(plane)) for plane in current.cpu().numpy()], dtype=torch.float64, device=planes.device
    )
    scale = whole.clamp(min=_EPSILON)
    means = {
        name: of.sums(of.stack([pictures[image] for image in settings.images])) / of.area[:, None]
        for name, of in found.items()
    }
    first = {name: mean.clamp(min=_EPSILON) for name, mean in means.items()}
    spectra: list[Tensor] = []
    tables: dict[str, list[Tensor]] = {name: [] for name in found}
    eroded = current
    for _ in range(settings.spectrum):
        eroded = morphology.erode_cross(eroded)
        current = morphology.reconstruct(eroded, current)
        after = current.double().mean(dim=(1, 2))
        spectra.append((whole - after) * 100 / scale)
        whole = after
        by_channel = current.reshape(fields, channels, -1).transpose(1, 2).flatten(0, 1)
        for name, of in found.items():
            mean = rows[name].means(of, by_channel)
            tables[name].append((means[name] - mean) * 100 / first[name])
            means[name] = mean
    image = torch.stack(spectra, dim=1).reshape(fields, channels * settings.spectrum)
    return {name: torch.stack(parts, dim=2).flatten(1) for name, parts in tables.items()}, image


class _Operator:
    """Means over objects of small planes at full size: entries (place in the stacked planes, weight) by object."""

    def __init__(self, place: Int64[Tensor, " z"], weight: Float64[Tensor, " z"], lengths: Int64[Tensor, " n"]) -> None:
        self._place, self._weight, self._runs = place, weight, runs(lengths)

    def means(self, of: Lists, planes: Float32[Tensor, "q c"]) -> Float64[Tensor, "n c"]:
        """planes: [fields × small pixels, channels]. NaN for an object without pixels."""
        total = reduce(self._weight[:, None] * planes[self._place].double(), "sum", self._runs)
        return torch.where(of.area[:, None] > 0, total, torch.nan)


def _operator(of: Lists, shape: tuple[int, int], subsample: float) -> _Operator:
    small = shrunk_shape(shape, subsample)
    scale = [(side * subsample - 1) / (side - 1) if subsample < 1 else 1.0 for side in shape]
    corners = [
        _corners(np.arange(side) * s, size, of.device) for side, s, size in zip(shape, scale, small, strict=True)
    ]
    field = of.field[of.owner] * (small[0] * small[1])
    (top, v, rows), (left, u, columns) = (
        tuple(part[at] for part in corner) for corner, at in zip(corners, (of.y, of.x), strict=True)
    )
    inside = (rows & columns).double()
    below, right = (top + 1).clamp(max=small[0] - 1), (left + 1).clamp(max=small[1] - 1)
    places, weights = [], []
    for y, wy in ((top, 1.0 - v), (below, v)):
        for x, wx in ((left, 1.0 - u), (right, u)):
            places.append(field + y * small[1] + x)
            weights.append(inside * wy * wx)
    owner = of.owner.repeat(4)
    size = len(of.first[1:]) * small[0] * small[1]
    keys, order = (owner * size + torch.cat(places)).sort(stable=True)
    kept, entries = torch.unique_consecutive(keys, return_counts=True)
    weight = reduce(torch.cat(weights)[order], "sum", runs(entries))
    object_of = kept // max(size, 1)
    return _Operator(
        kept % max(size, 1), weight / of.area.double()[object_of], torch.bincount(object_of, minlength=of.n)
    )


def _corners(at: np.ndarray, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Left neighbour of each coordinate, the weight of the right one, and whether it is inside (scipy's rules)."""
    inside = (at >= 0.0) & (at <= size - 1)
    i = np.where(inside, np.floor(at), 0).astype(np.int64)
    last = inside & (i + 1 >= size)
    weight = np.where(last, 1.0 if size > 1 else 0.0, np.where(inside, at - i, 0.0))
    i = np.where(last & (size > 1), i - 1, i)
    return tuple(torch.as_tensor(part, device=device) for part in (i, weight, inside))  # type: ignore[return-value]


def _sample(planes: Float32[Tensor, "n h w"], rows: np.ndarray, columns: np.ndarray) -> Float32[Tensor, "n a b"]:
    """`scipy.ndimage.map_coordinates` of order 1 on a grid, float32, sums in its order."""
    top, v, row_in = _corners(rows, planes.shape[1], planes.device)
    left, u, column_in = _corners(columns, planes.shape[2], planes.device)
    below, right = (top + 1).clamp(max=planes.shape[1] - 1), (left + 1).clamp(max=planes.shape[2] - 1)
    v, u = v[:, None], u[None, :]
    total = planes[:, top][:, :, left] * (1.0 - v) * (1.0 - u)
    total = total + planes[:, top][:, :, right] * (1.0 - v) * u
    total = total + planes[:, below][:, :, left] * v * (1.0 - u)
    total = total + planes[:, below][:, :, right] * v * u
    return torch.where(row_in[:, None] & column_in[None, :], total, 0.0).float()


def _prepared(planes: Float32[Tensor, "n h w"], settings: Granularity) -> Float32[Tensor, "n a b"]:
    """The subsampled planes minus their background, never negative."""
    shape = (planes.shape[1], planes.shape[2])
    size = np.array(shape, float)
    pixels = planes + 0.0
    if settings.subsample < 1:
        small = shrunk_shape(shape, settings.subsample)
        size = size * settings.subsample
        pixels = _sample(pixels, *(np.arange(n) / settings.subsample for n in small))
    back = pixels
    if settings.background < 1:
        grid = tuple(int(np.ceil(side * settings.background)) for side in size.tolist())
        check_grid(grid, tuple(pixels.shape[1:]), settings.background)
        back = _sample(pixels, *(np.arange(n) / settings.background for n in grid))
    opened = morphology.open_disk(back, settings.radius)
    if settings.background < 1:
        scale = [(side * settings.background - 1) / (side - 1) for side in size.tolist()]
        opened = _sample(opened, *(np.arange(n) * s for n, s in zip(pixels.shape[1:], scale, strict=True)))
    return (pixels - opened).clamp(min=0.0)
