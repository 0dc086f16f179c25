"""ASGI middleware at the very door: bodies over the limits are refused, and browsers are told to be strict.

A body of JSON is read whole, so that its nesting can be judged before any parser sees it; other bodies (own pictures)
pass piece by piece and are counted on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooLarge
from service.problems import refusal

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "font-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # an open end matches too: no place is looked at twice
_INNERMOST = re.compile(rb"\[\]|\{\}")
_BRACKETS = b"[]{}"
_REST = bytes(set(range(256)) - set(_BRACKETS))


class _TooLong(Exception):
    """The body passed the limit while it was read."""


def too_deep(body: bytes, most: int) -> bool:
    """Whether JSON has brackets nested more than `most` levels deep. Linear in the length of the body."""
    if body.count(b"[") + body.count(b"{") <= most:
        return False
    left = _TEXTS.sub(b"", body).translate(None, _REST)
    for _ in range(most):  # each time the innermost level goes
        fewer = _INNERMOST.sub(b"", left)
        if len(fewer) == len(left):
            return len(left) > most  # what does not pair is no JSON; the parser says so where it is short
        left = fewer
    return bool(left)


class Guard:
    """See the module. `limit_of` gives the longest body of a path, in bytes, for JSON or not."""

    def __init__(self, app: ASGIApp, limit_of: Callable[[str, bool], int], max_nesting: int) -> None:
        self._app, self._limit_of, self._nesting = app, limit_of, max_nesting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent, path, started = dict(scope["headers"]), scope["path"], False
        is_json = b"json" in sent.get(b"content-type", b"").lower()
        limit = self._limit_of(path, is_json)

        async def strict(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        too_long = TooLarge(f"the body is longer than {limit} bytes: send less at once")
        length = sent.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            await refusal(too_long, path)(scope, receive, strict)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _TooLong
            return message

        try:
            if is_json:
                body, whole = await _read(counted)
                if await anyio.to_thread.run_sync(too_deep, body, self._nesting):
                    deep = TooLarge(f"the JSON is nested more than {self._nesting} levels deep: send a flatter one")
                    await refusal(deep, path)(scope, receive, strict)
                    return
                await self._app(scope, _again(body, whole, receive), strict)
            else:
                await self._app(scope, counted, strict)
        except _TooLong:
            if not started:
                await refusal(too_long, path)(scope, receive, strict)


async def _read(receive: Receive) -> tuple[bytes, bool]:
    """The whole body; False where the client went away before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts), False
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts), True


def _again(body: bytes, whole: bool, receive: Receive) -> Receive:
    """Gives a body that was read once more, then whatever else the server has to say."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False} if whole else {"type": "http.disconnect"}

    return once
