"""What all HTTP doors share: the desk, the settings, the keys, and the parameters that several doors take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated

import anyio
from fastapi import Depends, Header, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from service.jobs import Desk
from service.keys import Keys
from service.limits import Buckets, Usage
from service.metrics import Metrics
from service.settings import Settings
from service.signed import Signer, secret_of
from service.store import ENDED, Job
from service.uploads import Bounds
from service.who import Who, is_loopback, who_is

POLL_S = 0.1

Asker = Annotated[Who, Depends(who_is)]
JobId = Annotated[
    str,
    Path(min_length=1, max_length=64, pattern=r"^[0-9A-Za-z-]+$", description="from the Location header of the POST"),
]
Index = Annotated[int, Path(ge=0, le=999, description="place of the molecule in the request, from 0")]
Draw = Annotated[int, Path(ge=0, le=999, description="number of the draw, from 0")]
Wait = Annotated[float, Query(ge=0, le=60, allow_inf_nan=False, description="seconds to wait for the finished answer")]
Limit = Annotated[int, Query(ge=1, le=100, description="entries a page")]
After = Annotated[
    str | None, Query(max_length=200, pattern=r"^[0-9A-Za-z_=.:-]+$", description="`next` of the page before")
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="the same key and the same request again: the first job, nothing new",
    ),
]


@dataclass(frozen=True)
class Doors:
    """See the module. `auth`: keys are asked for."""

    desk: Desk
    settings: Settings
    keys: Keys
    usage: Usage
    signer: Signer
    buckets: Buckets
    metrics: Metrics
    auth: bool

    @property
    def uploads(self) -> FilePath:
        """Where own pictures wait for their job."""
        return self.desk.data / "uploads"

    @property
    def bounds(self) -> Bounds:
        """What an upload may be."""
        return bounds_of(self.settings)


def bounds_of(settings: Settings) -> Bounds:
    """What an upload may be."""
    return Bounds(
        settings.max_upload_bytes, settings.max_inflation, settings.max_upload_files, settings.max_upload_pixels
    )


def open_doors(desk: Desk, settings: Settings) -> Doors:
    """Reads the keys and the secret of the data folder, and opens the usage table."""
    data = desk.data
    keys = Keys(FilePath(settings.keys) if settings.keys else data / "keys.json")
    signer = Signer(secret_of(data), keys.active)
    auth = settings.auth == "required" or not is_loopback(settings.host)
    return Doors(desk, settings, keys, Usage(data / "usage.sqlite"), signer, Buckets(), Metrics(), auth)


async def finished(desk: Desk, key: str, owner: str, seconds: float) -> Job:
    """The job, once it has ended or the time is over. Raises `NotFound`."""
    until = time.monotonic() + seconds
    while True:
        job = await anyio.to_thread.run_sync(desk.get, key, owner)
        if job.state in ENDED or time.monotonic() >= until:
            return job
        await anyio.sleep(POLL_S)


def ranged(request: Request, content: bytes, media_type: str, headers: dict[str, str] | None = None) -> Response:
    """Bytes, or the one range of them that was asked for: 206, or 416 where it lies outside."""
    told = {"Accept-Ranges": "bytes", **(headers or {})}
    wanted = _range(request.headers.get("range", ""), len(content))
    if wanted is None:
        return Response(content, media_type=media_type, headers=told)
    start, stop = wanted
    if start >= stop:
        return Response(b"", 416, {**told, "Content-Range": f"bytes */{len(content)}"}, media_type)
    told["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
    return Response(content[start:stop], 206, told, media_type)


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Start and stop of "bytes=a-b", "bytes=a-" or "bytes=-n"; None for no range, several, or another unit."""
    unit, _, rest = text.partition("=")
    first, dash, last = rest.strip().partition("-")
    digits = all(part.isascii() and part.isdigit() and len(part) < 20 for part in (first, last) if part)
    if unit.strip() != "bytes" or not dash or not digits or not (first or last):
        return None
    if not first:
        return max(0, size - int(last)), size if int(last) else 0
    stop = size if not last else min(size, int(last) + 1)
    return int(first), stop
