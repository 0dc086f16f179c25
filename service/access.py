"""The outermost ASGI middleware: an id for every request, one log line, and its numbers for Prometheus."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.logs import REQUEST_ID
from service.metrics import Metrics
from service.problems import refusal

LOG = logging.getLogger("dopaint.access")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
OTHER = "other"  # whatever matched no route: one name for all, so that numbers stay few


class Access:
    """Takes the caller's X-Request-Id where it is a plain word, or makes one; gives it back with the answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        came = dict(scope["headers"]).get(b"x-request-id", b"")
        name = came.decode() if _ID.fullmatch(came) else uuid.uuid4().hex
        token = REQUEST_ID.set(name)
        started, status, sent = time.perf_counter(), 500, 0
        places: list[Scope] = [scope]  # the layers below may go on with a scope of their own

        async def told(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = name
            sent += len(message.get("body", b""))
            await send(message)

        scope["dopaint.places"] = places
        try:
            await self._app(scope, receive, told)
        except Exception as error:
            LOG.exception("the answer to %s %s broke off", scope["method"], scope["path"])
            if sent or status != 500:
                raise  # the client must see that its answer is not whole
            await refusal(error, scope["path"])(scope, receive, told)
        finally:
            seconds = time.perf_counter() - started
            template = _template(places)
            self._metrics.seen(scope["method"], template, status, seconds, sent)
            if LOG.isEnabledFor(logging.INFO):
                data = {"method": scope["method"], "path": scope["path"], "status": status}
                data |= {"ms": round(1000 * seconds, 1), "bytes": sent}
                LOG.info("%s %s %d", scope["method"], scope["path"], status, extra={"data": data})
            REQUEST_ID.reset(token)


def _template(places: list[Scope]) -> str:
    for place in reversed(places):
        path = getattr(place.get("route"), "path", None)
        if isinstance(path, str):
            return path or "/"
    return OTHER
