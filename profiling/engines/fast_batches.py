"""The engine `fast` on a device: prepared fields gathered into batches, each measured at once by torch.

While one batch is on the device, the workers prepare the next. A batch that fails (out of memory, say) is measured in
halves, so that a field which cannot be measured costs itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing

import numpy as np

from profiling.engines.families_torch import fields
from profiling.engines.families_torch.device import checked
from profiling.engines.fast_prepare import Prepared
from profiling.engines.measurement import FieldMeasurement
from profiling.engines.pipeline_steps import Plan

Answers = Generator[tuple[int, FieldMeasurement | Prepared]]


class Batches:
    """Measures up to `size` fields at a time on the device of that name.

    Raises:
        InvalidDevice: no such device here. ValueError: size not positive.
    """

    def __init__(self, plan: Plan, device: str, size: int, stable: bool) -> None:
        if size < 1:
            raise ValueError(f"batch must be positive, got {size}")
        self.device, self.size = checked(device), size
        self._plan, self._stable = plan, stable

    def measured(
        self,
        prepared: Answers,
        pictures: np.ndarray,
        channels: Sequence[str],
        assemble: Callable[[Mapping[str, np.ndarray]], FieldMeasurement],
    ) -> Generator[tuple[int, FieldMeasurement]]:
        """(i, its measurement) of pictures [n, c, h, w] as batches of them come in; failures pass through."""
        waiting: list[tuple[int, Prepared]] = []
        with closing(prepared):
            for i, answer in prepared:
                if isinstance(answer, FieldMeasurement):
                    yield i, answer
                    continue
                waiting.append((i, answer))
                if len(waiting) == self.size:
                    yield from self._batch(waiting, pictures, channels, assemble)
                    waiting = []
        yield from self._batch(waiting, pictures, channels, assemble)

    def _batch(
        self,
        waiting: Sequence[tuple[int, Prepared]],
        pictures: np.ndarray,
        channels: Sequence[str],
        assemble: Callable[[Mapping[str, np.ndarray]], FieldMeasurement],
    ) -> Generator[tuple[int, FieldMeasurement]]:
        if not waiting:
            return
        places = [i for i, _ in waiting]
        try:
            found = fields.measure(
                self._plan, pictures[places], channels, [one for _, one in waiting], self.device, stable=self._stable
            )
        except Exception as error:
            if len(waiting) == 1:
                yield places[0], FieldMeasurement("failed", f"{type(error).__name__}: {error}")
                return
            half = len(waiting) // 2
            for part in (waiting[:half], waiting[half:]):
                yield from self._batch(part, pictures, channels, assemble)
            return
        for i, arrays in zip(places, found, strict=True):
            yield i, assemble(arrays)
