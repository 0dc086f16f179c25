"""Log lines as JSON, each with the id of the request it belongs to; what looks like a key or a link is blotted out."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Any

#: Set by the outermost middleware; threads that work for a request inherit it.
REQUEST_ID: ContextVar[str] = ContextVar("dopaint_request_id", default="")
LOGGERS = ("dopaint", "uvicorn", "uvicorn.error")
_SECRETS = (
    (re.compile(r"dopaint_([0-9a-f]{12})_[A-Za-z0-9_-]+"), r"dopaint_\1_..."),
    (re.compile(r"/s/[^/\s\"']+"), "/s/..."),
    (re.compile(r"(?i)(bearer\s+)\S+"), r"\1..."),
)


def blotted(text: str) -> str:
    """The text without the secrets of keys and signed links."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC), level, logger, message, request, and `extra={"data": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := REQUEST_ID.get():
            line["request"] = request
        data = getattr(record, "data", None)
        if isinstance(data, dict):
            line |= data
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return blotted(json.dumps(line, ensure_ascii=True, default=str))


class Plain(logging.Formatter):
    """One line for people, blotted like the JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        return blotted(super().format(record))


def configure(form: str, level: str = "INFO", stream: io.TextIOBase | None = None) -> None:
    """Sends the service's and the server's log lines to `stream` (stderr) as "json" or "plain"."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else Plain("%(levelname)s %(name)s: %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name in ("dopaint", "uvicorn") else []
        logger.propagate = name not in ("dopaint", "uvicorn")
        logger.setLevel(level)
