"""The HTTP application: routers around a desk, the middleware before them, and the page.

The app is made around a `Desk` that is given, so tests put a fake room behind it. Every refusal is a problem document
(RFC 9457); no traceback leaves the process. Seen from outside: `Access` (id, log, numbers), `Guard` (size, nesting,
headers), `Gate` (who asks), then the routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service import routes_model, routes_predictions, routes_profiles, routes_results, schemas
from service.access import Access
from service.doors import Doors, open_doors
from service.guard import Guard
from service.jobs import Desk
from service.problems import PROBLEM, add_errors, documented
from service.settings import Settings
from service.version import __version__
from service.who import OPEN, Gate

WEB = FilePath(__file__).parent / "web"
SCORE = "/v1/profiles/score"
SCORE_BYTES, SCORE_JSON_BYTES = 64_000_000, 16_000_000  # own profiles: thousands of features as text
EVERYWHERE = (400, 401, 403, 413, 429, 503)


def make_app(desk: Desk, settings: Settings, *, web: bool = True) -> FastAPI:
    """The application around a desk; its lifespan starts and stops the desk's workers."""
    doors = open_doors(desk, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk:
            yield
        doors.usage.close()

    app = FastAPI(
        title="dopaint",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        description="From a SMILES to Cell Painting pictures, profiles and mechanisms of action under do(compound).",
        responses=documented(*EVERYWHERE),
    )
    app.state.doors = doors
    app.add_middleware(
        Gate, keys=doors.keys, signer=doors.signer, buckets=doors.buckets, required=doors.auth
    )  # the last that is added is the first that is met
    app.add_middleware(Guard, limit_of=_limits(settings), max_nesting=settings.max_nesting)
    app.add_middleware(Access, metrics=doors.metrics)
    add_errors(app)
    for module in (routes_predictions, routes_results, routes_profiles, routes_model):
        app.include_router(module.router(doors))
    _describe(app, doors)
    if web:
        app.mount("/", _Page(directory=WEB, html=True), name="page")
    return app


def _limits(settings: Settings) -> Callable[[str, bool], int]:
    def longest(path: str, is_json: bool) -> int:
        if path == SCORE:
            return max(SCORE_JSON_BYTES if is_json else SCORE_BYTES, settings.max_body_bytes)
        return settings.max_upload_bytes if path == routes_profiles.ROOT and not is_json else settings.max_body_bytes

    return longest


class _Page(StaticFiles):
    """The page; a browser asks each time whether it has changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _describe(app: FastAPI, doors: Doors) -> None:
    """The OpenAPI document, with what no route says by itself: the key, and the body of own profiles."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            parts = document.setdefault("components", {})
            own = schemas.OwnProfiles.model_json_schema(ref_template="#/components/schemas/{model}")
            definitions = own.pop("$defs", {})
            parts.setdefault("schemas", {}).update({**definitions, "OwnProfiles": own})
            parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "dopaint keys add"}}
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    operation["security"] = [{}] if path in OPEN or not doors.auth else [{"key": []}]
                    problems = [one for code, one in operation["responses"].items() if str(code) >= "400"]
                    for one in problems:  # FastAPI writes its own media type beside ours
                        if PROBLEM in one.get("content", {}):
                            content = one["content"]
                            content[PROBLEM] = {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
                            content.pop("application/json", None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
