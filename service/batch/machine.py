"""How many worker processes of each role this machine gets."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LocalConfig:
    """Processes of each role; 0 chooses: a painter for every GPU (one on the CPU without), profilers for all cores (but
    those that feed a GPU), a desk (chem, effects and predictions) for every eight profilers.

    devices: as torch names them; empty = every GPU, else the CPU. pack: pictures that a painter is given at once.
    timeout_s: longest time for one task. trace: paint by replaying this file (`service.batch.replay`), to measure.
    """

    painters: int = 0
    profilers: int = 0
    desks: int = 0
    devices: tuple[str, ...] = ()
    pack: int = 32
    timeout_s: float = 900.0
    trace: str = ""


def gpus() -> tuple[str, ...]:
    """Every GPU of this machine; none without."""
    import torch

    return tuple(f"cuda:{i}" for i in range(torch.cuda.device_count()))


def resolved(config: LocalConfig) -> LocalConfig:
    """The configuration with its choices made."""
    devices = config.devices or gpus() or ("cpu",)
    painters = config.painters or len(devices)
    cores = len(os.sched_getaffinity(0))
    profilers = config.profilers or max(1, cores if devices == ("cpu",) else cores - painters)
    return replace(
        config,
        devices=devices,
        painters=painters,
        profilers=profilers,
        desks=config.desks or max(1, profilers // 8),
    )
