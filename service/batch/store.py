"""Files of a run below one fsspec address, each written whole or not at all.

On this machine's disk a file is written beside its place, flushed to the disk and renamed; on an object store (s3, gs,
abfs, memory) one put is already all or nothing; on anything else it is written under another name and moved.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from service.errors import ServiceError

ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
TEMPORARY = ".tmp"
HOST = socket.gethostname()  # other machines may write into the same folder
#: Told (what is about to happen, name): "begin" before the first byte, "aside" when all bytes lie beside the place,
#: "placed" when the file has its name.
OnState = Callable[[str, str], None]


class StorageError(ServiceError):
    """The address cannot be read or written."""


class Store:
    """Names are relative, with slashes. `options` go to fsspec, such as {"endpoint_url": ...} for s3."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, on_state: OnState | None = None) -> None:
        self.url, self.options = url, dict(options or {})
        self._tell = on_state or (lambda what, name: None)
        try:
            self._fs, self._root = url_to_fs(url, **self.options)
        except (ValueError, ImportError, TypeError) as error:
            raise StorageError(
                f"out: {url!r} cannot be opened ({error}): give a folder or an address as s3://..."
            ) from error
        protocol = self._fs.protocol
        self._kinds = {protocol} if isinstance(protocol, str) else set(protocol)

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        return Path(self._root) if "file" in self._kinds else None

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a file. Raises `StorageError`; the earlier file then stays."""
        path = f"{self._root}/{name}"
        self._tell("begin", name)
        try:
            if self.local is not None:
                self._put_local(Path(path), content, name)
            elif self._kinds & ATOMIC:
                self._fs.pipe_file(path, content)
            else:
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(path + TEMPORARY, content)
                self._tell("aside", name)
                self._fs.mv(path + TEMPORARY, path)
        except Exception as error:  # clients of object stores raise many types
            raise StorageError(
                f"out: {self.url}/{name} cannot be written ({error}); what is kept so far stays"
            ) from error
        self._tell("placed", name)

    def _put_local(self, path: Path, content: bytes, name: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{HOST}.{os.getpid()}{TEMPORARY}")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._tell("aside", name)
        os.replace(aside, path)

    def get(self, name: str) -> bytes:
        """The content of a file. Raises `StorageError`."""
        try:
            content: bytes = self._fs.cat_file(f"{self._root}/{name}")
        except Exception as error:
            raise StorageError(f"{self.url}/{name} cannot be read ({error})") from error
        return content

    def get_many(self, names: Sequence[str]) -> list[bytes]:
        """The contents of many files, side by side where the address can do that. Raises `StorageError`."""
        if not names:
            return []
        paths = [f"{self._root}/{name}" for name in names]
        try:
            found = self._fs.cat(paths)
        except Exception as error:
            raise StorageError(f"{self.url} cannot be read ({error})") from error
        if isinstance(found, bytes):
            return [found]
        return [found[self._fs._strip_protocol(path)] for path in paths]

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        self._fs.invalidate_cache()
        return bool(self._fs.isfile(f"{self._root}/{name}"))

    def names(self, folder: str) -> list[str]:
        """Names of the files right inside a folder, sorted; none where it is missing. Temporary ones are left out."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(f"{self._root}/{folder}", detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise StorageError(f"{self.url}/{folder} cannot be listed ({error})") from error
        names = [str(one["name"]).rsplit("/", 1)[-1] for one in found if one["type"] == "file"]
        return sorted(name for name in names if name and not name.endswith(TEMPORARY))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self.has(name):
            self._fs.rm_file(f"{self._root}/{name}")

    def sweep(self, folder: str) -> None:
        """Remove what killed runs of this machine left half written in a folder."""
        if self.local is not None:
            for path in (self.local / folder).glob(f".*{TEMPORARY}"):
                begun, _, writer = path.name.removesuffix(TEMPORARY).rpartition(".")
                if begun.endswith(f".{HOST}") and not Path(f"/proc/{writer}").is_dir():
                    path.unlink(missing_ok=True)


def digest(content: bytes) -> str:
    """sha256."""
    return hashlib.sha256(content).hexdigest()
