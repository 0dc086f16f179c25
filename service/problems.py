"""Every refusal as a problem document (RFC 9457), whichever layer it comes from; no traceback leaves the process."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service import schemas
from service.errors import INVALID_REQUEST, Fault, Problem, problem_from_entries, problem_of
from service.logs import REQUEST_ID, blotted

LOG = logging.getLogger("dopaint.http")
PROBLEM = "application/problem+json"
MOST_ENTRIES = 100
_LATER_S = 10  # of a refusal that does not say when to come back
_TITLES = {
    400: ("bad_request", "The request cannot be read"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "This address does not take this method"),
    406: ("not_acceptable", "Not in this form"),
    416: ("range_not_satisfiable", "The range is not in the file"),
}
Answers = dict[int | str, dict[str, Any]]


def documented(*statuses: int) -> Answers:
    """Descriptions of problem documents for the OpenAPI document."""
    return {status: {"model": schemas.ProblemDocument, "content": {PROBLEM: {}}} for status in statuses}


def problem_response(problem: Problem, instance: str, retry_after_s: float | None = None) -> JSONResponse:
    """A problem document as a response."""
    headers = {}
    if problem.status in (429, 503, 507):
        headers["Retry-After"] = str(max(1, math.ceil(_LATER_S if retry_after_s is None else retry_after_s)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="dopaint"'
    document = problem.document(blotted(instance)) | {"request_id": REQUEST_ID.get()}
    return JSONResponse(document, problem.status, headers, media_type=PROBLEM)


def refusal(error: BaseException, instance: str) -> JSONResponse:
    """The response to an exception."""
    problem = problem_of(error)
    if problem.status >= 500 and problem.code in ("internal", "engine_failure"):
        LOG.error("request %s failed", instance, exc_info=error)
    return problem_response(problem, instance, getattr(error, "retry_after_s", None))


def add_errors(app: FastAPI) -> None:
    """Makes the application answer every exception with a problem document."""

    def answer(request: Request, error: Exception) -> Response:
        return refusal(error, request.url.path)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        entries = [_entry(one) for one in error.errors()[:MOST_ENTRIES]]
        return problem_response(problem_from_entries(INVALID_REQUEST, entries), request.url.path)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code, title = _TITLES.get(error.status_code, ("http", str(error.detail)))
        words = f"{request.method} {request.url.path}: {error.detail}"
        entries = [{"reason": code, "pointer": "", "message": words[:1000], "position": None}]
        response = problem_response(
            problem_from_entries(Fault(code, error.status_code, 2, title), entries), request.url.path
        )
        response.headers.update(error.headers or {})
        return response

    handlers: list[tuple[type[Exception], Callable[[Request, Exception], Response]]] = [
        (RequestValidationError, invalid),
        (HTTPException, http),
        (ValueError, answer),
        (Exception, answer),
    ]
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


def _entry(one: dict[str, Any]) -> dict[str, Any]:
    """One refusal of pydantic: its place as a JSON pointer into the body, or as ?name, or as /name of the path."""
    place, *rest = one["loc"]
    start = {"body": "#/", "query": "?", "header": "header "}.get(str(place), "/")
    parts = [str(part).replace("~", "~0").replace("/", "~1")[:200] for part in rest]
    return {
        "reason": str(one["type"]),
        "pointer": start + "/".join(parts),
        "message": str(one["msg"]),
        "position": None,
    }
