"""Own pictures and own profiles over HTTP: measured like the model's, scored against its reference library."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from chem.bounded import standardise_within
from profiling.profiles import META, Profiles
from service import own_pictures, schemas, views
from service.doors import After, Asker, Doors, IdempotencyKey, JobId, Limit, Wait, finished
from service.errors import Gone, InvalidRequest, NotReady, TooLarge, WrongMedia
from service.jobs import Desk
from service.problems import documented
from service.routes_predictions import submit
from service.routes_results import PARQUET, Format, kinds, table
from service.score_own import CONTROL_MADS, Own, check_engine, score_own
from service.store import DONE, EXPIRED, QUEUED, RUNNING
from service.uploads import CONTROL, receive, sweep, upload_file
from service.who import Who

KIND = "profiles"
ROOT = "/v1/profiles"
PICTURES = ("image/tiff", "application/zip", "application/x-zip-compressed", "application/octet-stream")
MOST_VALUES = 20_000_000  # rows times features of own profiles
MOST_ROWS = 10_000
_BINARY = {"type": "string", "format": "binary"}
BODY = {"requestBody": {"required": True, "content": {media: {"schema": _BINARY} for media in PICTURES[:2]}}}

Smiles = Annotated[str | None, Query(max_length=2000, description="of the compound, for the baseline of structure")]
AllowSimulated = Annotated[bool, Query(description="call mechanisms by a library of simulated pictures")]


def router(doors: Doors) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["own pictures"], responses=documented(404, 422))
    _own_profiles(routes, doors)
    _jobs(routes, doors)
    return routes


def _jobs(routes: APIRouter, doors: Doors) -> None:
    desk = doors.desk
    answer: dict[int | str, dict[str, Any]] = {
        200: {"model": schemas.OwnPictures, "description": "the first answer again, or finished within `wait`"},
        202: {"model": schemas.OwnPictures, "description": "queued; look at its Location"},
    }

    @routes.post(ROOT, status_code=202, openapi_extra=BODY, responses={**answer, **documented(409, 415, 507)})
    async def create(
        request: Request,
        who: Asker,
        channels: Annotated[
            str | None, Query(max_length=400, description="of the pages, in order: DNA,ER,RNA,AGP,Mito")
        ] = None,
        pixel_size_um: Annotated[float | None, Query(gt=0, lt=1000, allow_inf_nan=False)] = None,
        bits: Annotated[Literal["8", "12", "16", "float"] | None, Query(description="range of the numbers")] = None,
        engine: Annotated[str | None, Query(max_length=100)] = None,
        smiles: Smiles = None,
        allow_simulated: AllowSimulated = False,
        wait: Wait = 0,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Measure and score pictures of your own. The body is the file itself: a TIFF or OME-TIFF (one field of the
        compound), or a zip with such files below `compound/` and, if you have controls, `control/`."""
        if _media(request) not in PICTURES:
            raise WrongMedia(f"content type {_media(request)[:80]!r}: expected one of {', '.join(PICTURES[:2])}")
        room = await anyio.to_thread.run_sync(desk.room)
        if engine is not None:
            check_engine(room, engine, (doors.settings.engine,))
        if smiles:
            await anyio.to_thread.run_sync(standardise_within, smiles)
        asked: dict[str, Any] = {
            "channels": _channels(channels),
            "pixel_size_um": pixel_size_um,
            "bits": bits,
            "smiles": smiles,
            "allow_simulated": allow_simulated,
            "engine": doors.settings.engine,
        }
        asked["upload"] = await receive(request.stream(), doors.uploads, doors.settings.max_upload_bytes)

        def queue() -> Any:
            _clean(doors)
            file = upload_file(doors.uploads, asked["upload"])
            into = doors.uploads / f".looked-{asked['upload']}-{id(asked):x}"
            own = file.stat().st_ino
            try:
                own_pictures.inspect(room.card, file, into, doors.bounds, asked)
                return submit(doors, asked, who, KIND, idempotency_key, 1)
            except BaseException:
                _forget(doors, file, own)
                raise

        submitted = await anyio.to_thread.run_sync(queue)
        job = await finished(desk, submitted.job.id, who.owner, wait)
        headers = {"Location": f"{ROOT}/{job.id}"}
        if not submitted.created:
            headers["Idempotency-Replayed"] = "true"
        body = await anyio.to_thread.run_sync(views.own_pictures, desk, job, who.owner)
        return JSONResponse(body, 200 if job.ended else 202, headers)

    @routes.get(ROOT, response_model=schemas.OwnPicturesList)
    def listed(who: Asker, limit: Limit = 20, after: After = None) -> Response:
        """Your own pictures, newest first."""
        page = desk.page(who.owner, kind=KIND, limit=limit, cursor=after)
        return JSONResponse({"items": [views.item(one, ROOT) for one in page.jobs], "next": page.next})

    @routes.get(ROOT + "/{key}", response_model=schemas.OwnPictures)
    async def status(key: JobId, who: Asker, wait: Wait = 0) -> Response:
        """Where a job on own pictures stands; its result once it is done."""
        job = await finished(desk, key, who.owner, wait)
        return JSONResponse(await anyio.to_thread.run_sync(views.own_pictures, desk, job, who.owner))

    @routes.post(ROOT + "/{key}/cancel", response_model=schemas.OwnPictures)
    def cancel(key: JobId, who: Asker) -> Response:
        """Stop a job on own pictures. One that has ended is left as it is."""
        return JSONResponse(views.own_pictures(desk, desk.cancel(key, who.owner), who.owner))

    @routes.delete(ROOT + "/{key}", status_code=204)
    def delete(key: JobId, who: Asker) -> Response:
        """Remove a job on own pictures, its results, and the pictures themselves."""
        upload = str(desk.get(key, who.owner).request.get("upload", ""))
        desk.delete(key, who.owner)
        if upload and upload not in _needed(desk):
            (doors.uploads / upload).unlink(missing_ok=True)
        return Response(status_code=204)

    formats = kinds("application/json", "text/csv", PARQUET)

    @routes.get(ROOT + "/{key}/profile", response_class=Response, responses={**formats, **documented(409, 410)})
    def profile(key: JobId, who: Asker, format: Format = "json") -> Response:
        """Raw profiles of own pictures, one row a field."""
        return table(_file(desk, key, who, "profiles.parquet"), format)

    @routes.get(ROOT + "/{key}/effects", response_class=Response, responses={**formats, **documented(409, 410)})
    def effects(key: JobId, who: Asker, format: Format = "json") -> Response:
        """The effect on every feature, in control MADs of the reference library."""
        return table(_file(desk, key, who, "effects.parquet"), format)


def _file(desk: Desk, key: str, who: Who, name: str) -> Path:
    job = desk.get(key, who.owner)
    if job.state == EXPIRED:
        raise Gone(f"the results of {key} have expired: send the pictures again")
    if job.state != DONE:
        raise NotReady(f"own pictures {key} are {job.state}: their results are there when they are done")
    return desk.folder(key) / name


def _needed(desk: Desk) -> set[str]:
    """Uploads that a waiting or running job reads."""
    found: set[str] = set()
    cursor = None
    while True:
        page = desk.page(kind=KIND, states=(QUEUED, RUNNING), limit=100, cursor=cursor)
        found |= {str(one.request.get("upload", "")) for one in page.jobs}
        cursor = page.next
        if cursor is None:
            return found


def _forget(doors: Doors, file: Path, own: int) -> None:
    """Removes a refused upload, unless a job needs the same pictures or somebody has just sent them again."""
    if file.name not in _needed(doors.desk) and file.is_file() and file.stat().st_ino == own:
        file.unlink(missing_ok=True)


def _clean(doors: Doors) -> None:
    sweep(doors.uploads, _needed(doors.desk))


def _media(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _channels(text: str | None) -> list[str] | None:
    if text is None or not text.strip():
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InvalidRequest(f"channels: got {text[:100]!r}, expected distinct names such as DNA,ER,RNA,AGP,Mito")
    return names


# ----------------------------------------------------------------------------------------------------------------------
# Own profiles.


def _own_profiles(routes: APIRouter, doors: Doors) -> None:
    schema = {"$ref": "#/components/schemas/OwnProfiles"}
    content = {"application/json": {"schema": schema}, "text/csv": {"schema": _BINARY}, PARQUET: {"schema": _BINARY}}
    extra = {"requestBody": {"required": True, "content": content}}

    @routes.post(
        ROOT + "/score",
        response_model=schemas.Scores,
        openapi_extra=extra,
        responses=documented(400, 409, 415),
    )
    async def score(
        request: Request,
        engine: Annotated[str | None, Query(max_length=100, description="CSV and parquet: hash or name")] = None,
        unit: Annotated[Literal["raw", "control MADs"], Query(description="CSV and parquet")] = "raw",
        smiles: Smiles = None,
        allow_simulated: AllowSimulated = False,
    ) -> Response:
        """Score profiles of your own against the reference library: JSON, or a table (CSV, parquet) whose columns are
        features and whose column `Metadata_Role` says compound or control."""
        media, body = _media(request), await request.body()
        room = await anyio.to_thread.run_sync(doors.desk.room)

        def made() -> dict[str, Any]:
            if media in ("application/json", "") or media.endswith("+json"):
                own, named = _of_json(body)
            elif media in ("text/csv", PARQUET):
                if engine is None:
                    raise InvalidRequest("engine: not given: say by which engine the profiles were measured")
                own, named = _of_table(_read(body, media), unit, smiles, allow_simulated), engine
            else:
                raise WrongMedia(f"content type {media[:80]!r}: expected application/json, text/csv or {PARQUET}")
            check_engine(room, named, (doors.settings.engine,))
            return score_own(room, own)[0]

        return JSONResponse(await anyio.to_thread.run_sync(made))


def _of_json(body: bytes) -> tuple[Own, str]:
    try:
        asked = schemas.OwnProfiles.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "/".join(str(part)[:100] for part in first["loc"])
        raise InvalidRequest(f"body at #/{place}: {first['msg'][:300]}") from error
    names = tuple(asked.features)
    if len(set(names)) < len(names):
        raise InvalidRequest("features: two have the same name: each may stand once")
    for i, row in enumerate(asked.rows):
        if len(row.values) != len(names):
            raise InvalidRequest(f"rows/{i}/values has {len(row.values)} numbers for {len(names)} features")
    values = np.array([[np.nan if v is None else v for v in row.values] for row in asked.rows], np.float64)
    meta = pd.DataFrame({META + "Role": [row.role for row in asked.rows]})
    molecule = standardise_within(asked.smiles) if asked.smiles else None
    is_control = np.array([row.role == CONTROL for row in asked.rows], dtype=bool)
    return Own(Profiles(meta, _finite(values), names), is_control, asked.unit, molecule, asked.allow_simulated), (
        asked.engine
    )


def _of_table(frame: pd.DataFrame, unit: str, smiles: str | None, allow_simulated: bool) -> Own:
    names = tuple(str(name) for name in frame.columns if not str(name).startswith(META))
    if not names or not len(frame) or len(set(names)) < len(names):
        raise InvalidRequest("the table has no rows, no features, or two of one name")
    if wrong := [name for name in names if not pd.api.types.is_numeric_dtype(frame[name])]:
        raise InvalidRequest(f"column {wrong[0][:100]!r} is not numbers: call metadata columns {META}...")
    roles = frame[META + "Role"].astype(str) if META + "Role" in frame.columns else pd.Series("compound", frame.index)
    is_control = np.array(roles == CONTROL, dtype=bool)
    values = _finite(frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan))
    meta = pd.DataFrame({META + "Role": roles.tolist()})
    molecule = standardise_within(smiles) if smiles else None
    assert unit in ("raw", CONTROL_MADS)
    return Own(Profiles(meta, values, names), is_control, unit, molecule, allow_simulated)


def _finite(values: np.ndarray) -> np.ndarray:
    """Infinite and absurd numbers are not measurements."""
    return np.where(np.abs(values) < 1e30, values, np.nan)


def _read(body: bytes, media: str) -> pd.DataFrame:
    """A table within bounds. Raises `InvalidRequest` where it is none, `TooLarge`."""
    try:
        if media == PARQUET:
            file = pq.ParquetFile(pa.BufferReader(body))
            _check(file.metadata.num_rows, file.metadata.num_columns)
            return file.read(use_threads=False).to_pandas()
        frame = pd.read_csv(io.BytesIO(body), nrows=MOST_ROWS + 1, low_memory=False)
    except TooLarge:
        raise
    except Exception as error:  # parsers of foreign files fail in any way there is
        raise InvalidRequest(f"the body cannot be read as {media}: {type(error).__name__}") from error
    _check(*frame.shape)
    return frame


def _check(rows: int, columns: int) -> None:
    if rows > MOST_ROWS or rows * columns > MOST_VALUES:
        raise TooLarge(f"the table has {rows} rows and {columns} columns: at most {MOST_ROWS} rows are taken")
