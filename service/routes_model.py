"""What answers, and what it knows: molecules, the model, contexts, the reference library, health, numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from service import schemas, views
from service.doors import Doors
from service.engine import find_model
from service.errors import ServiceError
from service.jobs import why_not
from service.metrics import CONTENT_TYPE
from service.problems import documented
from service.version import __version__


def router(doors: Doors) -> APIRouter:
    """The routes."""
    routes = APIRouter()
    desk = doors.desk

    @routes.post(
        "/v1/molecules",
        response_model=schemas.MoleculeAnswer,
        tags=["molecules"],
        responses=documented(422),
    )
    def molecule(body: schemas.MoleculeRequest) -> Response:
        """Standardise and draw a molecule, and say where it stands to what the model knows."""
        return JSONResponse(views.molecule(desk, body.smiles))

    @routes.get("/v1/models", tags=["model"])
    def models() -> dict[str, Any]:
        """The model that answers, with its model card."""
        return views.models(desk, doors.settings.engine, card_of(doors.settings.model))

    @routes.get("/v1/contexts", tags=["model"])
    def contexts() -> dict[str, Any]:
        """The laboratories, batches and plates that the model knows."""
        return views.contexts(desk)

    @routes.get("/v1/reference", tags=["model"])
    def reference() -> dict[str, Any]:
        """The reference library that every score is made against: settings, hashes, labels, compounds."""
        return views.reference(desk)

    @routes.get("/v1/version", tags=["health"])
    def version() -> dict[str, Any]:
        """Versions and hashes of what answers, and whether keys are asked for."""
        return views.version(desk, __version__, doors.auth)

    @routes.get("/v1/health/live", tags=["health"])
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @routes.get(
        "/v1/health/ready",
        tags=["health"],
        responses={503: {"description": "not ready, and why", "content": {"application/json": {}}}},
    )
    def ready() -> Response:
        """200 when the model is loaded and jobs are worked on, 503 and why otherwise."""
        reason = why_not(desk)
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, 503, {"Retry-After": "5"})

    @routes.get("/metrics", tags=["health"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def metrics() -> Response:
        """Numbers for Prometheus."""
        facts = {"version": __version__, "model": Path(doors.settings.model).name, "engine": doors.settings.engine}
        return Response(doors.metrics.text(desk.counters(), facts), media_type=CONTENT_TYPE)

    return routes


def card_of(model: str) -> str:
    """The model card, Markdown; empty where there is none."""
    try:
        file = find_model(model) / "README.md"
    except ServiceError:
        return ""
    return file.read_text(encoding="utf-8") if file.is_file() else ""
