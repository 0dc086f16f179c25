"""Tensors that are cut over processes: the piece that lies here, and the whole put together again."""

from __future__ import annotations

from typing import Any

from torch.distributed.tensor import DTensor


def here(value: Any) -> Any:
    """The piece of a cut tensor that this process holds, sharing its memory; anything else as it is."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Any) -> Any:
    """A cut tensor put together on every process, all of which must ask; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value
