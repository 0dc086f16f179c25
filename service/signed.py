"""Expiring links: a token before a path, so that a viewer that cannot send a header may read one job's results.

`/s/<token>/v1/predictions/<job>/...` is what `/v1/predictions/<job>/...` is, for GET and HEAD, until the token expires
or its key is revoked. The token stands in the path, not in the query, so a Zarr reader can add names below it; it names
what it opens, and HMAC-SHA256 under a secret of the data folder binds it to one job, one owner and one end.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PREFIX = "/s/"
NO_KEY = "-"  # the owner where no key is asked for
SHORTEST_S, LONGEST_S = 60, 86_400
_BELOW = r"molecules/\d{1,4}/"
#: What each resource opens, as patterns of the path below /v1/predictions/<job>/.
RESOURCES: dict[str, re.Pattern[str]] = {
    "events": re.compile(r"events"),
    "zip": re.compile(r"files\.zip"),
    "zarr": re.compile(_BELOW + r"(compound|control)\.zarr(/[A-Za-z0-9_.-]{1,64}){0,8}/?"),
    "pictures": re.compile(_BELOW + r"pictures(/\d{1,4})?"),
    "files": re.compile(r"(events|files\.zip|" + _BELOW + r"[A-Za-z_.]{1,40}(/[A-Za-z0-9_.-]{1,64}){0,8})/?"),
}
_PATH = re.compile(r"/s/([^/]{1,200})(/v1/predictions/([0-9A-Za-z-]{1,64})/(.+))")
_TOKEN = re.compile(r"([a-z]{3,8})\.([0-9a-f]{12}|-)\.([0-9a-f]{1,12})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Opened:
    """What a signed path opens: the path without the token, the one job it is bound to, and the key that made it."""

    path: str
    job: str
    owner: str


class Signer:
    """Makes and checks links; `active` says whether a key of this id may still ask."""

    def __init__(self, secret: bytes, active: Callable[[str], bool], clock: Callable[[], float] = time.time) -> None:
        self._secret, self._active, self._clock = secret, active, clock

    def link(self, job: str, resource: str, owner: str, seconds: int) -> tuple[str, float]:
        """The prefix of a link, and when it expires (seconds since the epoch). `resource` is one of RESOURCES."""
        ends = int(self._clock()) + min(max(seconds, SHORTEST_S), LONGEST_S)
        who = owner or NO_KEY
        return f"{PREFIX}{resource}.{who}.{ends:x}.{self._sign(job, resource, who, ends)}", float(ends)

    def opened(self, path: str) -> Opened | None:
        """What a path below /s/ opens; None where its token is wrong, expired, revoked, or for something else."""
        match = _PATH.fullmatch(path)
        token = _TOKEN.fullmatch(match[1]) if match else None
        if match is None or token is None or token[1] not in RESOURCES or ".." in match[4]:
            return None
        resource, who, ends = token[1], token[2], int(token[3], 16)
        if not hmac.compare_digest(token[4], self._sign(match[3], resource, who, ends)):
            return None
        if self._clock() >= ends or not RESOURCES[resource].fullmatch(match[4]):
            return None
        if who != NO_KEY and not self._active(who):
            return None
        return Opened(match[2], match[3], "" if who == NO_KEY else who)

    def _sign(self, job: str, resource: str, who: str, ends: int) -> str:
        text = "\n".join((resource, job, who, str(ends)))
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


def secret_of(folder: Path) -> bytes:
    """The secret of a data folder; made once, readable by its owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "links.secret"
    aside = folder / f".links.secret.{secrets.token_hex(8)}"
    if not file.exists():
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            os.link(aside, file)  # the first of several workers wins, and none reads half a secret
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    return file.read_bytes()
