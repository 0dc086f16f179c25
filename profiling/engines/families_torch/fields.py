"""A batch of prepared fields through the steps of a pipeline, on one device.

In go the fields as they were prepared (`fast_prepare`) and their pictures; out come the arrays that the engine `fast`
makes of one field at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from profiling.engines import fast_field
from profiling.engines import pipeline_settings as settings
from profiling.engines.families import areashape
from profiling.engines.families import colocalization as host_colocalization
from profiling.engines.families import granularity as host_granularity
from profiling.engines.families import image_quality as host_quality
from profiling.engines.families import intensity as host_intensity
from profiling.engines.families import radial as host_radial
from profiling.engines.families import texture as host_texture
from profiling.engines.families_torch import areashape as shapes
from profiling.engines.families_torch import colocalization, granularity, image_quality, intensity, radial, texture
from profiling.engines.families_torch.batch import Lists, lists
from profiling.engines.fast_prepare import Prepared
from profiling.engines.pipeline_settings import Step
from profiling.engines.pipeline_steps import Plan

Measured = tuple[str, Sequence[str], Tensor]  # objects or Image, columns, values with a row an object or a field


class _Batch:
    """The pictures and objects of a batch on a device; lists of pixels are made when first asked for."""

    def __init__(
        self, pictures: np.ndarray, channels: Sequence[str], prepared: Sequence[Prepared], device: torch.device
    ) -> None:
        self.hosts = {name: np.ascontiguousarray(pictures[:, c]) for c, name in enumerate(channels)}
        self.planes = {name: torch.from_numpy(plane).to(device) for name, plane in self.hosts.items()}
        self.prepared, self.device = prepared, device
        self._lists: dict[str, Lists] = {}

    def lists(self, owner: str) -> Lists:
        if owner not in self._lists:
            stack = np.stack([one.labels[owner] for one in self.prepared]).astype(np.int32, copy=False)
            self._lists[owner] = lists(torch.from_numpy(stack).to(self.device))
        return self._lists[owner]

    def whole(self) -> Lists:
        """Each picture as one object."""
        if fast_field.IMAGE not in self._lists:
            ones = torch.ones_like(next(iter(self.planes.values())), dtype=torch.int32)
            self._lists[fast_field.IMAGE] = lists(ones)
        return self._lists[fast_field.IMAGE]

    def extra(self, name: str) -> Tensor:
        """What was prepared of each object, field after field."""
        return torch.from_numpy(np.concatenate([one.extras[name] for one in self.prepared])).to(self.device)


def measure(
    plan: Plan,
    pictures: Float32[np.ndarray, "f c h w"],
    channels: Sequence[str],
    prepared: Sequence[Prepared],
    device: torch.device,
    *,
    stable: bool,
) -> list[dict[str, np.ndarray]]:
    """Of each field: `values/<objects>` float64 [n, k], `mask/<objects>` uint16 [h, w], `image` float64 [k]."""
    batch = _Batch(pictures, channels, prepared, device)
    names = {owner: {name: k for k, name in enumerate(all_)} for owner, all_ in fast_field.columns(plan).items()}
    tables = {owner: [one.tables[owner].copy() for one in prepared] for owner in prepared[0].tables}
    images = np.stack([one.image for one in prepared])
    with torch.inference_mode():
        for step in plan.steps:
            for owner, columns, values in _step(step, batch, stable):
                at = [names[owner][column] for column in columns]
                rows = values.cpu().numpy()
                if owner == fast_field.IMAGE:
                    images[:, at] = rows
                    continue
                done = 0
                for table in tables[owner]:
                    table[:, at] = rows[done : done + len(table)]
                    done += len(table)
    return [
        {f"values/{owner}": tables[owner][i] for owner in tables}
        | {f"mask/{owner}": labels.astype(np.uint16) for owner, labels in one.labels.items()}
        | {"image": images[i]}
        for i, one in enumerate(prepared)
    ]


def _step(step: Step, batch: _Batch, stable: bool) -> Iterator[Measured]:
    """What one step measures; nothing where it was done when the fields were prepared."""
    planes, image = batch.planes, fast_field.IMAGE
    owners = [name for name in fast_field.owners_of(step) if name in batch.prepared[0].labels]
    if isinstance(step, settings.ImageQuality):
        yield image, host_quality.image_names(step), image_quality.measure(planes, batch.hosts, step)
    elif isinstance(step, settings.Distribution):
        for owner in owners:
            centres = None if stable else batch.extra(f"centre/{owner}")
            circles = batch.extra(f"hull/{owner}")[:, 3:]
            values = radial.measure(batch.lists(owner), planes, step, centres, circles)
            yield owner, host_radial.names(step), values
    elif isinstance(step, settings.SizeShape):
        for owner in owners:
            values = shapes.measure(batch.lists(owner), step, batch.extra(f"hull/{owner}"), stable=stable)
            yield owner, areashape.names(step), values
    elif isinstance(step, settings.Colocalization):
        costes = _costes(batch)
        for owner in host_colocalization.names(step) and owners:
            values = colocalization.measure(batch.lists(owner), planes, step, costes, stable=stable)
            yield owner, host_colocalization.names(step), values
    elif isinstance(step, settings.Granularity):
        tables, whole = granularity.measure({owner: batch.lists(owner) for owner in owners}, planes, step)
        yield image, host_granularity.image_names(step), whole
        for owner in owners:
            yield owner, host_granularity.names(step), tables[owner]
    elif isinstance(step, settings.Intensity):
        for owner in owners:
            places = [batch.extra(f"brightest/{owner}/{name}") for name in step.images] if not stable else None
            brightest = None if places is None else torch.stack(places, dim=1)
            values = intensity.measure(batch.lists(owner), planes, step.images, brightest)
            yield owner, host_intensity.names(step), values
    elif isinstance(step, settings.Texture):
        asked = (planes, step.images, step.scales, step.levels)
        if step.where != "Objects":
            yield image, host_texture.image_names(step), texture.measure(batch.whole(), *asked, whole=True)
        for owner in owners if step.where != "Images" else ():
            yield owner, host_texture.names(step), texture.measure(batch.lists(owner), *asked)


def _costes(batch: _Batch) -> Mapping[tuple[str, str], Tensor]:
    found = {}
    for name in batch.prepared[0].extras:
        kind, *pair = name.split("/")
        if kind == "costes":
            limits = np.stack([one.extras[name] for one in batch.prepared])
            found[pair[0], pair[1]] = torch.from_numpy(limits).to(batch.device)
    return found
