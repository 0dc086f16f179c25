"""ASGI middleware that says who asks: this machine on loopback, the holder of a key elsewhere, or a signed link.

Without keys the service answers this machine alone: the address must be loopback, and so must the name under which it
is asked (or have no dot), since a page elsewhere could point a name of its own at 127.0.0.1. A request that a browser
sends for another site's page is refused wherever it would change something.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Forbidden, NotFound, ServiceError, Unauthorised
from service.keys import Key, Keys
from service.limits import Buckets
from service.problems import refusal
from service.signed import PREFIX, Opened, Signer

LOCAL = "local"  # the owner of every job where no key is asked for
OPEN = ("/v1/health/live", "/v1/health/ready", "/v1/version", "/v1/openapi.json")
SAFE = ("GET", "HEAD", "OPTIONS")
_WHO = "dopaint.who"


@dataclass(frozen=True)
class Who:
    """Who asks. `key` is None on loopback. `job`: the one job that a signed link opens; None: all of the owner's."""

    owner: str
    key: Key | None = None
    job: str | None = None


def who_is(request: Request) -> Who:
    """Who sends this request."""
    found: Who = request.scope[_WHO]
    return found


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Gate:
    """See the module. `required`: keys are asked for."""

    def __init__(self, app: ASGIApp, keys: Keys, signer: Signer, buckets: Buckets, required: bool) -> None:
        self._app, self._keys, self._signer, self._buckets, self._required = app, keys, signer, buckets, required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        try:
            if path.startswith(PREFIX):
                opened = self._opened(scope)
                scope = {**scope, "path": opened.path, "raw_path": opened.path.encode(), "dopaint.signed": True}
                scope[_WHO] = Who(opened.owner or LOCAL, None, opened.job)
                scope.get("dopaint.places", []).append(scope)
            else:
                scope[_WHO] = await self._who(scope)
        except ServiceError as error:
            await refusal(error, path)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _opened(self, scope: Scope) -> Opened:
        opened = self._signer.opened(scope["path"])
        if opened is None or (not opened.owner and self._required):
            raise NotFound("this link is not valid, or not any more: ask for a new one")
        if scope["method"] not in SAFE:
            raise Forbidden("a signed link is for reading only")
        if opened.owner:
            self._buckets.take(f"link {opened.owner}", 6000)
        return opened

    async def _who(self, scope: Scope) -> Who:
        path, headers = scope["path"], dict(scope["headers"])
        if not self._required:
            _from_here(scope, headers)
            return Who(LOCAL)
        if path in OPEN or not (path.startswith("/v1/") or path == "/metrics"):
            return Who("")
        word, _, text = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if word.lower() != "bearer":
            raise Unauthorised("no key came: send the header Authorization: Bearer <key>")
        key = await anyio.to_thread.run_sync(self._keys.find, text.strip())
        if key is None:
            client = scope.get("client") or ("",)
            self._buckets.take(f"wrong {client[0]}", 60)
            raise Unauthorised("this key is not known, or was revoked: ask whoever runs the service for another")
        self._buckets.take(key.id, key.per_minute)
        return Who(key.id, key)


def _from_here(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuses names that another site could point at this machine, and changes that another site's page asks for."""
    asked = headers.get(b"host", b"").decode("latin-1")
    host = _host(asked)
    if host is None or ("." in host and not is_loopback(host)):
        raise Forbidden(f"without keys this service answers as localhost only, and was asked as {asked[:100]!r}")
    if scope["method"] in SAFE:
        return
    origin = headers.get(b"origin", b"").decode("latin-1")
    foreign = origin.partition("://")[2].lower() != asked.lower() if origin else False
    if foreign or headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        raise Forbidden(f"a page of {origin[:100]!r} asked for a change: only the service's own page may")


def _host(text: str) -> str | None:
    """The name in a Host header without its port; None where it is none."""
    try:
        return urlsplit("//" + text).hostname or ""
    except ValueError:
        return None
