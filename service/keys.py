"""API keys: who may ask, how often and for how much. A key is shown once; a file keeps its SHA-256 only.

A key reads `dopaint_<id>_<secret>`; the secret has 256 random bits, so a plain hash of it cannot be guessed backwards.
The file is written whole and renamed, readable by its owner alone; a running service sees changes at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from service.errors import InvalidRequest, NotFound, ServiceError

FORMAT = "dopaint/keys/1"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_TEXT = re.compile(r"dopaint_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY = "0" * 64


class DamagedKeys(ServiceError):
    """The file of keys cannot be read: nobody gets in until it is repaired."""


@dataclass(frozen=True)
class Key:
    """One key. `per_minute`: requests; `pictures_a_day`: pictures asked for, compound and control, until 0:00 UTC; 0 is
    no limit. Times are seconds since the epoch."""

    id: str
    name: str
    hash: str
    created: float
    revoked: float | None = None
    per_minute: int = 600
    pictures_a_day: int = 0


class Keys:
    """The keys of one service, in a file."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file, self._clock = file, clock
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def add(self, name: str, *, per_minute: int = 600, pictures_a_day: int = 0) -> tuple[Key, str]:
        """A new key and its text, which is kept nowhere. Raises `InvalidRequest` for a bad or taken name."""
        if not NAME.fullmatch(name):
            raise InvalidRequest(
                f"name: got {name[:80]!r}, expected 1 to 64 letters, digits, blanks or any of . _ @ - after a letter "
                "or digit"
            )
        for word, value in (("per_minute", per_minute), ("pictures_a_day", pictures_a_day)):
            if value < 0:
                raise InvalidRequest(f"{word}: got {value}, expected 0 (no limit) or more")
        secret = secrets.token_urlsafe(32)
        made = Key(secrets.token_hex(6), name, _hash(secret), self._clock(), None, per_minute, pictures_a_day)
        with self._changing() as keys:
            if any(one.name == name and one.revoked is None for one in keys.values()):
                raise InvalidRequest(f"name: {name!r} has a key already: revoke it first, or choose another name")
            keys[made.id] = made
        return made, f"dopaint_{made.id}_{secret}"

    def revoke(self, which: str) -> Key:
        """Shuts a key out, by its id or name. Raises `NotFound`."""
        with self._changing() as keys:
            found = [one for one in keys.values() if which in (one.id, one.name) and one.revoked is None]
            if not found:
                raise NotFound(f"no active key has the id or name {which[:80]!r}: see `dopaint keys list`")
            gone = replace(found[0], revoked=self._clock())
            keys[gone.id] = gone
        return gone

    def all(self) -> list[Key]:
        """Every key, oldest first. Raises `DamagedKeys`."""
        return sorted(self._current().values(), key=lambda one: (one.created, one.id))

    def find(self, text: str) -> Key | None:
        """The active key of this text; the same work whether or not its id is known."""
        match = _TEXT.fullmatch(text)
        found = self._current().get(match[1]) if match else None
        same = hmac.compare_digest(_hash(match[2] if match else ""), found.hash if found else _NOBODY)
        return found if found is not None and same and found.revoked is None else None

    def active(self, key: str) -> bool:
        """Whether the key of this id may still ask."""
        found = self._current().get(key)
        return found is not None and found.revoked is None

    def _current(self) -> dict[str, Key]:
        with self._lock:
            try:
                stat = self._file.stat()
            except FileNotFoundError:
                self._seen, self._keys = None, {}
                return {}
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._keys, self._seen = _read(self._file), seen
            return dict(self._keys)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_name(f"{self._file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self._current()
            yield keys
            document = {"format": FORMAT, "keys": [asdict(one) for one in keys.values()]}
            aside = self._file.with_name(f".{self._file.name}.new")
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
                stream.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self._file)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(file: Path) -> dict[str, Key]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']!r}")
        return {one["id"]: Key(**one) for one in document["keys"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedKeys(
            f"the file of keys {file.name!r} cannot be read: {type(error).__name__}; restore it from a copy, or remove "
            "it and add the keys again"
        ) from error
