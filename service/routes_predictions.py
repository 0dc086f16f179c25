"""Predictions over HTTP: ask, list, look, follow, cancel, delete, and make a signed link."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from chem.bounded import standardise_within
from chem.molecule import InvalidSmiles
from service import schemas, views
from service.doors import After, Asker, Doors, IdempotencyKey, JobId, Limit, Wait, finished
from service.errors import INVALID_SMILES, Forbidden, UnknownName, entry, problem_from_entries
from service.events import stream
from service.pipeline import target
from service.problems import documented, problem_response
from service.rooms import DMSO_INCHIKEY
from service.settings import Settings
from service.who import Who

KIND = "prediction"
ROOT = "/v1/predictions"
LOOK_S = 5.0  # spent on finding out whether every SMILES of a request is bad
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": schemas.Prediction, "description": "the first answer again, or finished within `wait`"},
    202: {"model": schemas.Prediction, "description": "queued; look at its Location"},
}


def router(doors: Doors) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["predictions"], responses=documented(404, 422))
    desk = doors.desk

    @routes.post(ROOT, status_code=202, responses={**ANSWER, **documented(409, 507)})
    async def create(
        body: schemas.PredictionRequest, who: Asker, wait: Wait = 0, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Queue a prediction of 1 to 1,000 molecules. With `wait`, the finished answer if it is done by then.

        A molecule that cannot be used is an outcome of its own and spoils none of the others; only where all are bad is
        the request refused."""
        await anyio.to_thread.run_sync(known, doors, body)
        entries = await anyio.to_thread.run_sync(refusals, body)
        if entries is not None:
            return problem_response(problem_from_entries(INVALID_SMILES, entries), ROOT)
        asked = body.model_dump(exclude={"smiles"}) | {"smiles": body.entries}
        pictures = (len(body.entries) + 1) * body.draws
        submitted = await anyio.to_thread.run_sync(submit, doors, asked, who, KIND, idempotency_key, pictures)
        job = await finished(desk, submitted.job.id, who.owner, wait)
        answer = await anyio.to_thread.run_sync(views.prediction, desk, job, who.owner)
        headers = {"Location": f"{ROOT}/{job.id}"}
        if not submitted.created:
            headers["Idempotency-Replayed"] = "true"
        return JSONResponse(answer, 200 if job.ended else 202, headers)

    @routes.get(ROOT, response_model=schemas.PredictionList)
    def listed(
        who: Asker,
        limit: Limit = 20,
        after: After = None,
        status: Annotated[schemas.Status | None, Query(description="only these")] = None,
    ) -> Response:
        """Your predictions, newest first."""
        page = desk.page(who.owner, states=(status,) if status else (), kind=KIND, limit=limit, cursor=after)
        return JSONResponse({"items": [views.prediction_item(one) for one in page.jobs], "next": page.next})

    @routes.get(ROOT + "/{key}", response_model=schemas.Prediction)
    async def status(key: JobId, who: Asker, wait: Wait = 0) -> Response:
        """Where a prediction stands; its answer once it is done."""
        job = await finished(desk, key, who.owner, wait)
        return JSONResponse(await anyio.to_thread.run_sync(views.prediction, desk, job, who.owner))

    @routes.get(
        ROOT + "/{key}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "server-sent events until the end"}},
    )
    async def events(key: JobId, who: Asker, request: Request) -> Response:
        """What happens to a prediction, as server-sent events: progress, picture, molecule, end.

        `Last-Event-ID` goes on after that event. Read it by fetch (with a key) or by EventSource (a signed link)."""
        job = await anyio.to_thread.run_sync(desk.get, key, who.owner)
        last = request.headers.get("last-event-id", "0")
        start = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else 0
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        body = stream(desk, job.id, who.owner, start)
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    @routes.post(ROOT + "/{key}/cancel", response_model=schemas.Prediction)
    def cancel(key: JobId, who: Asker) -> Response:
        """Stop a prediction; what is finished of it stays. One that has ended is left as it is."""
        job = desk.cancel(key, who.owner)
        return JSONResponse(views.prediction(desk, job, who.owner))

    @routes.delete(ROOT + "/{key}", status_code=204)
    def delete(key: JobId, who: Asker) -> Response:
        """Stop a prediction and remove it with its results."""
        desk.delete(key, who.owner)
        return Response(status_code=204)

    @routes.post(ROOT + "/{key}/links", response_model=schemas.Link, responses=documented(403))
    def link(key: JobId, body: schemas.LinkRequest, who: Asker) -> Response:
        """An expiring link for a viewer that cannot send a key: reading only, this prediction only."""
        if who.job is not None:
            raise Forbidden("a signed link makes no further links")
        desk.get(key, who.owner)
        owner = who.key.id if who.key else ""
        prefix, expires = doors.signer.link(key, body.resource, owner, body.seconds)
        below = {"events": "/events", "zip": "/files.zip"}.get(body.resource, "")
        answer = {"url": f"{prefix}{ROOT}/{key}{below}", "prefix": prefix, "expires": views.iso(expires)}
        return JSONResponse(answer)

    return routes


def submit(doors: Doors, request: dict[str, Any], who: Who, kind: str, key: str | None, pictures: int) -> Any:
    """Queues a job on its owner's account. Raises `TooMany`, and what the desk refuses."""
    if who.key is not None:
        doors.usage.charge(who.key, pictures)
    try:
        submitted = doors.desk.submit(request, owner=who.owner, kind=kind, idempotency_key=key)
    except BaseException:
        if who.key is not None:
            doors.usage.refund(who.key, pictures)
        raise
    if who.key is not None and not submitted.created:
        doors.usage.refund(who.key, pictures)
    return submitted


def known(doors: Doors, body: schemas.PredictionRequest) -> None:
    """Refuses names that nobody here has. Raises `UnknownName`."""
    settings: Settings = doors.settings
    if body.engine is not None and body.engine != settings.engine:
        raise UnknownName(f"engine {body.engine[:80]!r} does not run here: expected {settings.engine!r}")
    name = settings.model.rstrip("/").rpartition("/")[2]
    if body.model is not None and body.model != name:
        raise UnknownName(f"model {body.model[:80]!r} does not run here: expected {name!r}")
    if body.contexts:
        target(doors.desk.room().contexts, "valid", body.contexts)


def refusals(body: schemas.PredictionRequest) -> list[dict[str, Any]] | None:
    """One entry for each SMILES where none of them can be used; None as soon as one can.

    Hostile SMILES can take their full time each: after `LOOK_S` the job is queued, and tells them one by one.
    """
    found, until = [], time.monotonic() + LOOK_S
    for i, text in enumerate(body.entries):
        pointer = "#/smiles" if isinstance(body.smiles, str) else f"#/smiles/{i}"
        try:
            if standardise_within(text).inchikey != DMSO_INCHIKEY:
                return None
            message = "DMSO is the control that every effect is measured against: give another molecule."
            found.append({"reason": "is_control", "pointer": pointer, "message": message, "position": None})
        except InvalidSmiles as error:
            found.append(entry(error, pointer))
        if time.monotonic() > until and i + 1 < len(body.entries):
            return None
    return found
