"""MeasureImageQuality of a batch: definitions in `families.image_quality`.

On the device: medians and extremes (one sort a channel), tiles, co-occurrences, spectra. Sums whose float32 rounding is
CellProfiler's are read off the pictures on the host, where they came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from profiling.engines.families import float32_sums, image_quality
from profiling.engines.pipeline_settings import ImageQuality

_CAMERA_MAXIMUM = 65535.0


def measure(
    pictures: Mapping[str, Float32[Tensor, "f h w"]],
    hosts: Mapping[str, Float32[np.ndarray, "f h w"]],
    settings: ImageQuality,
) -> Float64[Tensor, "f k"]:
    """Values of `families.image_quality.image_names` of each field; `hosts`: the same pictures on the host."""
    columns: list[Float64[Tensor, " f"]] = []
    for group in settings.groups:
        known = {image: _Channel(pictures[image], hosts[image]) for image in group.images}
        if group.scaling:
            columns += [torch.full_like(channel.total, _CAMERA_MAXIMUM) for channel in known.values()]
        for channel in known.values() if group.blur else ():
            columns += [channel.focus(), channel.power_slope()]
            for scale in group.scales:
                columns += [channel.local_focus(scale), channel.correlation(scale)]
        for channel in known.values() if group.intensity else ():
            columns += channel.intensity()
        for channel in known.values() if group.saturation else ():
            columns += channel.saturation()
    return torch.stack(columns, dim=1)


class _Channel:
    """One channel of a batch, sorted once."""

    def __init__(self, planes: Float32[Tensor, "f h w"], hosts: Float32[np.ndarray, "f h w"]) -> None:
        self.planes, self.hosts = planes, hosts
        self.rising = planes.flatten(1).sort(dim=1)[0]
        self.total = self._host([float(float32_sums.pairwise(plane.ravel())) for plane in hosts])

    def _host(self, values: Sequence[float]) -> Float64[Tensor, " f"]:
        return torch.tensor(values, dtype=torch.float64, device=self.planes.device)

    def focus(self) -> Float64[Tensor, " f"]:
        return self._host([image_quality.focus_score(plane) for plane in self.hosts])

    def intensity(self) -> list[Float64[Tensor, " f"]]:
        """In the order of `families.image_quality.INTENSITY`."""
        size = self.rising.shape[1]
        half = size // 2
        middle = self.rising[:, half] if size % 2 else (self.rising[:, half - 1] + self.rising[:, half]) / 2
        deviation = self._host([float(float32_sums.deviation(plane)) for plane in self.hosts])
        low, high = self.rising[:, 0], self.rising[:, -1]
        area = torch.full_like(self.total, size)
        columns = [area, self.total, self.total / size, middle, deviation, self._spread(middle), high, low]
        return [column.double() for column in columns]

    def saturation(self) -> list[Float64[Tensor, " f"]]:
        size = self.rising.shape[1]
        ends = self.rising[:, -1:], self.rising[:, :1]
        return [100.0 * (self.rising == end).sum(dim=1).double() / size for end in ends]

    def _spread(self, centre: Float32[Tensor, " f"]) -> Float32[Tensor, " f"]:
        """Median of |x − centre|, float32."""
        off = (self.rising - centre[:, None]).abs().sort(dim=1)[0]
        half = off.shape[1] // 2
        return off[:, half] if off.shape[1] % 2 else (off[:, half - 1] + off[:, half]) / 2

    def local_focus(self, scale: int) -> Float64[Tensor, " f"]:
        """Variance over median of the tiles' normalised variances."""
        planes = self.planes.double()
        rows, columns = (_one_hot(side, (side + scale - 1) // scale, planes.device) for side in self.planes.shape[1:])
        count = rows.sum(dim=1)[:, None] * columns.sum(dim=1)[None, :]
        mean = rows @ planes @ columns.T / count
        spread = (planes - rows.T @ mean @ columns) ** 2
        scores = (rows @ spread @ columns.T / (count * mean)).flatten(1)
        used = (mean != 0).flatten(1)
        number = used.sum(dim=1)
        rising = torch.where(used, scores, torch.inf).sort(dim=1)[0]
        last = rising.shape[1] - 1
        middle = [rising.gather(1, at.clamp(0, last)[:, None])[:, 0] for at in ((number - 1) // 2, number // 2)]
        median = (middle[0] + middle[1]) / 2
        average = torch.where(used, scores, 0.0).sum(dim=1) / number
        variance = torch.where(used, (scores - average[:, None]) ** 2, 0.0).sum(dim=1) / number
        return torch.where((number > 0) & torch.isfinite(median) & (median > 0), variance / median, 0.0)

    def correlation(self, scale: int, levels: int = 8) -> Float64[Tensor, " f"]:
        """Haralick's correlation of pixels `scale` apart in a row."""
        fields, _, width = self.planes.shape
        if scale >= width:
            return torch.zeros_like(self.total)
        low, high = self.rising[:, 0], self.rising[:, -1]
        range_ = torch.where(high > low, (high - low).double(), 1.0)[:, None, None]
        share = (self.planes - low[:, None, None]).double() / range_
        level = (share * levels).clamp(max=levels - 1).long() * (high > low)[:, None, None]
        cell = level[:, :, :-scale] * levels + level[:, :, scale:]
        offset = torch.arange(fields, device=level.device)[:, None, None] * levels**2
        counts = torch.bincount((cell + offset).reshape(-1), minlength=fields * levels**2)
        p = counts.reshape(fields, levels, levels).double()
        p = p / p.sum(dim=(1, 2), keepdim=True)
        k = torch.arange(1, levels + 1, dtype=torch.float64, device=p.device)
        px, py = p.sum(dim=2), p.sum(dim=1)
        mean_x, mean_y = px @ k, py @ k
        spread = [(((k - m[:, None]) ** 2) * q).sum(dim=1).sqrt() for m, q in ((mean_x, px), (mean_y, py))]
        deviation = spread[0] * spread[1]
        cross = (p * k[:, None] * k[None, :]).sum(dim=(1, 2)) - mean_x * mean_y
        return torch.where(deviation == 0, 0.0, cross / deviation)

    def power_slope(self) -> Float64[Tensor, " f"]:
        """Slope of the log-log power spectrum; 0 for an even picture or one below 32 pixels a side."""
        height, width = self.planes.shape[1:]
        rings = torch.arange(2, math.floor(min(height, width) / 8.0), device=self.planes.device)
        if len(rings) < 2:
            return torch.zeros_like(self.total)
        magnitude, power = self._rings(int(rings[-1]))
        log_power, x = power[:, rings].log(), rings.double().log()[None, :]
        valid = (magnitude[:, rings] > 0) & torch.isfinite(log_power)
        number = valid.sum(dim=1)
        x, y = torch.where(valid, x, 0.0), torch.where(valid, log_power, 0.0)
        mean_x, mean_y = x.sum(dim=1) / number, y.sum(dim=1) / number
        off = torch.where(valid, x - mean_x[:, None], 0.0)
        slope = (off * (y - mean_y[:, None])).sum(dim=1) / (off**2).sum(dim=1)
        even = self.rising[:, 0] == self.rising[:, -1]
        return torch.where(even | (number < 2), 0.0, slope)

    def _rings(self, most: int) -> tuple[Float64[Tensor, "f r"], Float64[Tensor, "f r"]]:
        """Sums of magnitude and of power over the frequencies of each ring 0 to `most`; see the twin."""
        device = self.planes.device
        means = torch.tensor([float(float32_sums.mean(p)) for p in self.hosts], dtype=torch.float32, device=device)
        scaled = self.planes / self._spread(means)[:, None, None]
        centre = torch.tensor(
            [float(float32_sums.mean(plane)) for plane in scaled.cpu().numpy()], dtype=torch.float32, device=device
        )
        scaled = scaled - centre[:, None, None]
        spectrum = torch.fft.fft(torch.fft.rfft(scaled, dim=2)[:, :, : most + 1], dim=1).abs()
        height = self.planes.shape[1]
        near = torch.arange(most, device=device)
        rows = torch.cat([near, height - 1 - near])
        mirrored = (height - rows) % height
        at = torch.cat([near, near])
        radius = ((at[:, None] ** 2 + near[None, :] ** 2).double().sqrt().floor().long() + 1).reshape(-1)
        hot = torch.nn.functional.one_hot(torch.where(radius <= most, radius, 0), most + 1).double()
        hot[radius > most] = 0.0
        sides = (spectrum[:, rows][:, :, near], spectrum[:, mirrored][:, :, near + 1])
        both = [side.flatten(1) for side in sides]
        return sum(v.double() @ hot for v in both), sum((v**2).double() @ hot for v in both)


def _one_hot(side: int, tiles: int, device: torch.device) -> Float64[Tensor, "t s"]:
    """Which tile each row (or column) lies in."""
    tile = (np.arange(side, dtype=float) * float(tiles) / float(side)).astype(np.int64)
    return torch.as_tensor((tile[None, :] == np.arange(tiles)[:, None]).astype(float), device=device)
