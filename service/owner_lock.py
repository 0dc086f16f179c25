"""A lock on the data folder: one process at a time works in it, so that one process owns the model and the files."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

from service.errors import ServiceError


class OwnerLock:
    """Held from the moment it is made until `release`, or until the process is gone, however it ended."""

    def __init__(self, folder: Path) -> None:
        """Raises `ServiceError` when another process has the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / "owner.lock").open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ServiceError(
                f"data folder {folder.name!r} is in use by another dopaint service: stop it or choose another --data"
            ) from error

    def release(self) -> None:
        """Lets another process have the folder."""
        self._file.close()
