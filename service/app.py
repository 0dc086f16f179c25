"""The HTTP doors: predictions as jobs, their pictures and profiles, health, version, contexts, and the page.

The app is made around a `Desk` that is given, so tests put a fake room behind it. Every refusal is a problem document
(RFC 9457); no traceback leaves the process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import anyio
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from chem.bounded import standardise_within
from chem.molecule import InvalidSmiles
from service import schemas, views
from service.errors import (
    INVALID_REQUEST,
    INVALID_SMILES,
    Fault,
    InvalidRequest,
    Problem,
    QueueFull,
    UnknownName,
    entry,
    problem_from_entries,
    problem_of,
)
from service.guard import Guard
from service.jobs import Desk, why_not
from service.pipeline import target
from service.rooms import DMSO_INCHIKEY
from service.settings import Settings
from service.store import DONE, FAILED, Job
from service.version import __version__

LOG = logging.getLogger("dopaint.http")
PROBLEM = "application/problem+json"
WEB = FilePath(__file__).parent / "web"
_POLL_S = 0.1

JobId = Annotated[str, Path(min_length=1, max_length=64, description="from the Location header of the POST")]
Index = Annotated[int, Path(ge=0, le=999, description="place of the molecule in the request, from 0")]
Wait = Annotated[float, Query(ge=0, le=60, allow_inf_nan=False, description="seconds to wait for the finished answer")]
Draw = Annotated[int, Path(ge=0, le=999, description="number of the draw, from 0")]
Format = Annotated[Literal["json", "csv", "parquet"], Query()]


def make_app(desk: Desk, settings: Settings, *, web: bool = True) -> FastAPI:
    """The application around a desk; its lifespan starts and stops the desk's worker."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk:
            yield

    described = {
        status: {"model": schemas.ProblemDocument, "content": {PROBLEM: {}}}
        for status in (404, 409, 413, 422, 429, 503)
    }
    app = FastAPI(
        title="dopaint",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        description="From a SMILES to Cell Painting pictures, profiles and mechanisms of action under do(compound).",
        responses=described,  # type: ignore[arg-type]
    )
    app.add_middleware(Guard, max_body_bytes=settings.max_body_bytes)
    _add_errors(app)
    _add_predictions(app, desk, settings)
    _add_results(app, desk)
    _add_facts(app, desk)
    if web:
        app.mount("/", StaticFiles(directory=WEB, html=True), name="page")
    return app


def _add_predictions(app: FastAPI, desk: Desk, settings: Settings) -> None:
    @app.post(
        "/v1/predictions",
        status_code=202,
        response_model=schemas.Prediction,
        tags=["predictions"],
        responses={200: {"model": schemas.Prediction, "description": "finished within `wait`"}},
    )
    async def create(
        body: schemas.PredictionRequest,
        wait: Wait = 0,
    ) -> Response:
        """Queue a prediction of 1 to 1,000 molecules. With `wait`, the finished answer if it is done by then."""
        _known(desk, body, settings)
        entries = await anyio.to_thread.run_sync(_refusals, body)
        if len(entries) == len(body.entries):
            return problem_response(problem_from_entries(INVALID_SMILES, entries), "/v1/predictions")
        request = body.model_dump(include={"draws", "seed", "allow_simulated", "abstain", "contexts"}) | {
            "smiles": body.entries
        }
        job = await anyio.to_thread.run_sync(desk.add, request)
        job = await _finished(desk, job.id, wait)
        ready = job.state in (DONE, FAILED)
        answer = await anyio.to_thread.run_sync(views.prediction, desk, job, time.time())
        return JSONResponse(answer, 200 if ready else 202, {"Location": f"/v1/predictions/{job.id}"})

    @app.get("/v1/predictions/{key}", response_model=schemas.Prediction, tags=["predictions"])
    async def status(key: JobId, wait: Wait = 0) -> Response:
        """Where a prediction stands; its answer once it is done."""
        job = await _finished(desk, key, wait)
        return JSONResponse(await anyio.to_thread.run_sync(views.prediction, desk, job, time.time()))

    @app.post("/v1/molecules", response_model=schemas.MoleculeAnswer, tags=["molecules"])
    def molecule(body: schemas.MoleculeRequest) -> Response:
        """Standardise and draw a molecule, and say where it stands to what the model knows."""
        return JSONResponse(views.molecule(desk, body.smiles))


def _add_results(app: FastAPI, desk: Desk) -> None:
    root = "/v1/predictions/{key}/molecules/{index}"

    @app.get(root + "/pictures", tags=["results"])
    def pictures(key: JobId, index: Index) -> dict[str, Any]:
        """The draws of a molecule with their contexts, and where their pictures are."""
        return views.draws(desk, key, index)

    @app.get(
        root + "/pictures/{draw}",
        tags=["results"],
        response_class=Response,
        responses={200: {"content": {"image/png": {}, "image/tiff": {}}, "description": "a picture"}},
    )
    def picture(
        key: JobId,
        index: Index,
        draw: Draw,
        row: Annotated[Literal["compound", "control"], Query()] = "compound",
        channel: Annotated[str, Query(max_length=40, description="composite or a channel's name")] = "composite",
        format: Annotated[Literal["png", "ome-tiff"], Query()] = "png",
        low: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="shown black")] = 0.0,
        high: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False, description="shown white")] = 0.3,
    ) -> Response:
        """One picture: PNG of a channel or composite, or the OME-TIFF with all channels."""
        if high <= low:
            raise InvalidRequest(f"high is {high}, low is {low}: expected high above low")
        if format == "ome-tiff":
            return FileResponse(views.tiff_file(desk, key, index, draw, row), media_type="image/tiff")
        return Response(views.png_bytes(desk, key, index, draw, row, channel, low, high), media_type="image/png")

    @app.get(root + "/profile", tags=["results"], response_class=Response)
    def profile(key: JobId, index: Index, format: Format = "json") -> Response:
        """Raw profiles: one row a draw, the median over its cells of every feature."""
        return _table(views.result_file(desk, key, index, "profiles.parquet"), format)

    @app.get(root + "/effects", tags=["results"], response_class=Response)
    def effects(key: JobId, index: Index, format: Format = "json") -> Response:
        """The compound's effect on every feature, in control MADs, with its interval over draws."""
        return _table(views.result_file(desk, key, index, "effects.parquet"), format)

    @app.get(root + "/predictions", tags=["results"], response_class=Response)
    def predictions(key: JobId, index: Index, format: Annotated[Literal["json", "csv"], Query()] = "json") -> Response:
        """Mechanisms and targets of one molecule."""
        kind = "text/csv; charset=utf-8" if format == "csv" else "application/json"
        return FileResponse(views.result_file(desk, key, index, f"predictions.{format}"), media_type=kind)


def _add_facts(app: FastAPI, desk: Desk) -> None:
    @app.get("/v1/health/live", tags=["health"])
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/v1/health/ready", tags=["health"])
    def ready() -> Response:
        """200 when the model is loaded and jobs are worked on, 503 and why otherwise."""
        reason = why_not(desk)
        return (
            JSONResponse({"status": "not ready", "reason": reason}, 503)
            if reason
            else JSONResponse({"status": "ready"})
        )

    @app.get("/v1/version", tags=["health"])
    def version() -> dict[str, Any]:
        """Versions and hashes of what answers."""
        return views.version(desk, __version__)

    @app.get("/v1/contexts", tags=["model"])
    def contexts() -> dict[str, Any]:
        """The laboratories, batches and plates that the model knows."""
        return views.contexts(desk)


async def _finished(desk: Desk, key: str, seconds: float) -> Job:
    until = time.monotonic() + seconds
    while True:
        job = await anyio.to_thread.run_sync(desk.get, key)
        if job.state in (DONE, FAILED) or time.monotonic() >= until:
            return job
        await anyio.sleep(_POLL_S)


def _known(desk: Desk, body: schemas.PredictionRequest, settings: Settings) -> None:
    if body.engine is not None and body.engine != settings.engine:
        raise UnknownName(f"engine {body.engine!r} does not run here: expected {settings.engine!r}")
    name = FilePath(settings.model).name
    if body.model is not None and body.model != name:
        raise UnknownName(f"model {body.model!r} does not run here: expected {name!r}")
    if body.contexts:
        target(desk.room().contexts, "valid", body.contexts)


def _refusals(body: schemas.PredictionRequest) -> list[dict[str, Any]]:
    """One entry for each SMILES that cannot be used."""
    found = []
    for i, text in enumerate(body.entries):
        pointer = "#/smiles" if isinstance(body.smiles, str) else f"#/smiles/{i}"
        try:
            if standardise_within(text).inchikey == DMSO_INCHIKEY:
                message = "DMSO is the control that every effect is measured against: give another molecule."
                found.append({"reason": "is_control", "pointer": pointer, "message": message, "position": None})
        except InvalidSmiles as error:
            found.append(entry(error, pointer))
    return found


def _table(file: FilePath, kind: str) -> Response:
    if kind == "parquet":
        return FileResponse(file, media_type="application/vnd.apache.parquet")
    if kind == "csv":
        return Response(views.table_csv(file), media_type="text/csv; charset=utf-8")
    return JSONResponse(views.table_json(file))


# ----------------------------------------------------------------------------------------------------------------------
# Refusals.


def problem_response(problem: Problem, instance: str) -> JSONResponse:
    """A problem document as a response."""
    headers = {"Retry-After": "10"} if problem.status in (429, 503) else None
    return JSONResponse(problem.document(instance), problem.status, headers, media_type=PROBLEM)


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem.status >= 500 and not isinstance(error, QueueFull):
            LOG.error("request %s failed", request.url.path, exc_info=error)
        return problem_response(problem, request.url.path)

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        entries = [
            {
                "reason": str(one["type"]),
                "pointer": ("#/" if one["loc"][0] == "body" else "?" if one["loc"][0] == "query" else "/")
                + "/".join(str(part) for part in one["loc"][1:]),
                "message": str(one["msg"]),
                "position": None,
            }
            for one in error.errors()
        ]
        return problem_response(problem_from_entries(INVALID_REQUEST, entries[:100]), request.url.path)

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed", 400: "bad_request"}.get(error.status_code, "http")
        fault = Fault(code, error.status_code, 2, str(error.detail))
        message = {
            "reason": code,
            "pointer": "",
            "message": f"{request.method} {request.url.path}: {error.detail}",
            "position": None,
        }
        response = problem_response(problem_from_entries(fault, [message]), request.url.path)
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
