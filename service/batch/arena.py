"""Memory that worker processes share: a fixed number of slots for pictures, so that no picture passes through a pipe.

The slots lie in one file without a name (below /dev/shm where there is one), which other processes open through
/proc/<pid>/fd: it is gone when the last of them ends, also after kill -9. As many slots, as many pictures in memory:
a painter without a free slot waits, and that is the back-pressure of the stream.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32

from service.errors import EngineFailure

SHARED = Path("/dev/shm")


class Arena:
    """`slots` places for arrays of up to `bytes_each`. The first process makes it, others `Arena.open` its address."""

    def __init__(self, file: IO[bytes], slots: int, bytes_each: int) -> None:
        self._file, self.slots, self.bytes_each = file, slots, bytes_each
        self._memory = mmap.mmap(file.fileno(), slots * bytes_each)

    @staticmethod
    def make(slots: int, bytes_each: int) -> Arena:
        """A new one. Raises `EngineFailure` where the memory is not there."""
        folder = SHARED if SHARED.is_dir() and os.access(SHARED, os.W_OK) else None
        file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as the arena)
        try:
            os.posix_fallocate(file.fileno(), 0, slots * bytes_each)
        except OSError as error:
            file.close()
            raise EngineFailure(
                f"{slots * bytes_each >> 20} MiB of shared memory for pictures cannot be had ({error}): take fewer "
                "workers"
            ) from error
        return Arena(file, slots, bytes_each)

    @property
    def address(self) -> str:
        """What another process of this machine opens."""
        return f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    @staticmethod
    def open(address: str, slots: int, bytes_each: int) -> Arena:
        """The arena of another process."""
        return Arena(Path(address).open("r+b"), slots, bytes_each)

    def put(self, slot: int, pictures: Float32[np.ndarray, "n c h w"]) -> None:
        """Copy pictures into a slot."""
        self.get(slot, pictures.shape)[...] = pictures

    def get(self, slot: int, shape: tuple[int, ...]) -> Float32[np.ndarray, "n c h w"]:
        """The slot's memory as float32 of this shape; not a copy. Raises ValueError for what does not fit."""
        size = 4 * int(np.prod(shape))
        if not 0 <= slot < self.slots or size > self.bytes_each:
            raise ValueError(f"slot {slot} of {self.slots} with {self.bytes_each} bytes cannot hold {size} bytes")
        return np.frombuffer(self._memory, np.float32, size // 4, slot * self.bytes_each).reshape(shape)

    def close(self) -> None:
        """Let go of the memory in this process."""
        self._file.close()
