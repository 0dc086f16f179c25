"""Results over HTTP: pictures as they appear, tables of an answered molecule, OME-Zarr by URL, the folder as a zip."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

import anyio
import numpy as np
import pandas as pd
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from profiling.images import CAMERA_MAXIMUM, read_ome_tiff
from profiling.tables import read_profiles
from service import do_grid, views
from service.difference import difference_png
from service.doors import Asker, Doors, Draw, Index, JobId, ranged
from service.errors import InvalidRequest, NotFound
from service.found import control_of, folder_of, molecule_of, picture_file, picture_or_none, result_file
from service.heatmap import heatmap
from service.own_pictures import pixel_size_of
from service.pictures import COMPOSITE, WHITE, png
from service.pixels import MEDIA_TYPE, raw
from service.problems import documented
from service.settling import settling
from service.zarr_view import Shown, entry
from service.zip_stream import zipped

JOB = "/v1/predictions/{key}"
ROOT = JOB + "/molecules/{index}"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv; charset=utf-8"
Row = Literal["compound", "control"]
Format = Annotated[Literal["json", "csv", "parquet"], Query()]
Feature = Annotated[list[Annotated[str, Query(max_length=300)]], Query(alias="feature", max_length=20)]
ZarrPath = Annotated[str, Path(max_length=200, description="a name below the image, such as .zattrs or 0/0/0/0/0")]
ONE_COUNT = 1 / CAMERA_MAXIMUM  # the smallest difference that a picture can show
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}


def kinds(*media: str) -> dict[int | str, dict[str, Any]]:
    """Describes an answer that may be of several media types."""
    return {200: {"content": {one: {} for one in media}, "description": "the result"}}


def router(doors: Doors) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["results"], responses=documented(404, 409, 410, 422))
    _pictures(routes, doors)
    _tables(routes, doors)
    _stores(routes, doors)
    return routes


def _pictures(routes: APIRouter, doors: Doors) -> None:
    desk = doors.desk

    @routes.get(ROOT + "/pictures")
    def pictures(key: JobId, index: Index, who: Asker) -> dict[str, Any]:
        """The draws of a molecule with their contexts, and where their pictures are; also while the job runs."""
        return do_grid.draws(desk, key, index, who.owner)

    @routes.get(ROOT + "/grid")
    def grid(
        key: JobId,
        index: Index,
        who: Asker,
        by: Annotated[
            Literal["source", "batch", "plate", "well"], Query(description="what the columns are")
        ] = "source",
        limit: Annotated[int, Query(ge=1, le=48, description="columns")] = 12,
    ) -> dict[str, Any]:
        """The do-grid: columns are laboratories, batches or wells, rows the compound and DMSO under the same noise."""
        return do_grid.grid(desk, key, index, who.owner, by, limit)

    @routes.get(
        ROOT + "/pictures/{draw}",
        response_class=Response,
        responses=kinds("image/png", "image/tiff", MEDIA_TYPE),
    )
    async def picture(
        key: JobId,
        index: Index,
        draw: Draw,
        who: Asker,
        request: Request,
        row: Annotated[Literal["compound", "control", "difference"], Query()] = "compound",
        channel: Annotated[str, Query(max_length=40, description="composite or a channel's name")] = COMPOSITE,
        channels: Annotated[str | None, Query(max_length=400, description="of the composite, with commas")] = None,
        format: Annotated[Literal["png", "ome-tiff", "raw"], Query()] = "png",
        low: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="shown black")] = 0.0,
        high: Annotated[float, Query(gt=0, le=1, allow_inf_nan=False, description="shown white")] = WHITE,
        size: Annotated[int | None, Query(ge=1, le=10_000, description="raw: longest side, in pixels")] = None,
    ) -> Response:
        """One picture: PNG of a channel, a composite or the difference to the control; the OME-TIFF with all channels;
        or its counts (raw: 16-bit little-endian, planes in the order of X-Dopaint-Channels)."""
        if high - low < ONE_COUNT:
            raise InvalidRequest(
                f"high is {high}, low is {low}: expected high above low by one count, 1/65535, or more"
            )

        def made() -> Response:
            if row == "difference":
                if format != "png":
                    raise InvalidRequest(f"format is {format!r}: a difference is shown as png only")
                files = [picture_file(desk, key, index, draw, one, who.owner) for one in ("compound", "control")]
                (a, names), (b, _) = (_chosen(file, channels) for file in files)
                return Response(difference_png(a, b, names, channel, high - low), 200, KEPT, "image/png")
            file = picture_file(desk, key, index, draw, row, who.owner)
            if format == "ome-tiff":
                return FileResponse(file, media_type="image/tiff", headers=KEPT)
            if format == "raw":
                counts = raw(file, size)
                return ranged(request, counts.data, MEDIA_TYPE, {**KEPT, **counts.headers})
            pixels, names = _chosen(file, channels)
            return Response(png(pixels, names, channel, low, high), 200, KEPT, "image/png")

        return await anyio.to_thread.run_sync(made)


def _chosen(file: FilePath, channels: str | None) -> tuple[Any, tuple[str, ...]]:
    read = read_ome_tiff(file)
    if not channels:
        return read.pixels, read.channels
    wanted = tuple(dict.fromkeys(channels.split(",")))
    for name in wanted:
        if name not in read.channels:
            raise NotFound(f"channel {name[:40]!r} is not in the pictures: they have {', '.join(read.channels)}")
    return read.pixels[[read.channels.index(name) for name in wanted]], wanted


def _tables(routes: APIRouter, doors: Doors) -> None:
    desk = doors.desk

    @routes.get(ROOT + "/profile", response_class=Response, responses=kinds("application/json", "text/csv", PARQUET))
    def profile(key: JobId, index: Index, who: Asker, format: Format = "json") -> Response:
        """Raw profiles: one row a draw, the median over its cells of every feature."""
        return table(result_file(desk, key, index, "profiles.parquet", who.owner), format)

    @routes.get(ROOT + "/effects", response_class=Response, responses=kinds("application/json", "text/csv", PARQUET))
    def effects(key: JobId, index: Index, who: Asker, format: Format = "json") -> Response:
        """The compound's effect on every feature, in control MADs, with its interval over draws."""
        return table(result_file(desk, key, index, "effects.parquet", who.owner), format)

    @routes.get(ROOT + "/predictions", response_class=Response, responses=kinds("application/json", "text/csv"))
    def predictions(
        key: JobId, index: Index, who: Asker, format: Annotated[Literal["json", "csv"], Query()] = "json"
    ) -> Response:
        """Mechanisms and targets of one molecule."""
        kind = CSV if format == "csv" else "application/json"
        return FileResponse(result_file(desk, key, index, f"predictions.{format}", who.owner), media_type=kind)

    @routes.get(ROOT + "/heatmap")
    def heat(key: JobId, index: Index, who: Asker) -> dict[str, Any]:
        """The effects by compartment, channel and family of features."""
        file = result_file(desk, key, index, "effects.parquet", who.owner)
        return heatmap(pd.read_parquet(file), desk.room().card.channels)

    @routes.get(ROOT + "/settling")
    def settle(key: JobId, index: Index, who: Asker, feature: Feature = []) -> dict[str, Any]:  # noqa: B006
        """How scores and effects settle: estimate and interval after the first 2, 3, ... draws."""
        _, state = molecule_of(desk, key, index, who.owner)
        folder = folder_of(desk, key, index, who.owner)
        compound = read_profiles(folder / "profiles.parquet")
        control = read_profiles(control_of(desk, key) / "profiles.parquet")
        control = control.rows(np.isin(control.column("draw"), compound.column("draw")))  # it may have more draws
        return settling(compound, control, desk.room().reference(), state.inchikey, feature)


def table(file: FilePath, kind: str) -> Response:
    """A parquet file as it is, or as CSV or JSON. Raises `NotFound`."""
    if not file.is_file():
        raise NotFound("this table is not among the results")
    if kind == "parquet":
        return FileResponse(file, media_type=PARQUET)
    if kind == "csv":
        return Response(views.table_csv(file), media_type=CSV)
    return JSONResponse(views.table_json(file))


def _stores(routes: APIRouter, doors: Doors) -> None:
    desk = doors.desk

    @routes.get(JOB + "/files.zip", response_class=StreamingResponse, responses=kinds("application/zip"))
    def files(key: JobId, who: Asker) -> Response:
        """The whole result folder as a zip, made while it is sent; of a running job what is finished."""
        molecule_of(desk, key, 0, who.owner)
        folder = desk.folder(key)
        if not folder.is_dir():
            raise NotFound(f"prediction {key} has no files yet")
        headers = {"Content-Disposition": f'attachment; filename="dopaint-{key}.zip"'}
        return StreamingResponse(zipped(folder, f"dopaint-{key}"), 200, headers, "application/zip")

    def zarr(key: JobId, index: Index, row: Row, path: ZarrPath, who: Asker, request: Request) -> Response:
        """A name below the OME-Zarr image of a molecule or its control: napari and Viv open the address before it."""
        shown = _shown(doors, key, index, row, who.owner)
        found = entry(shown, path.strip("/"))
        if found is None:
            raise NotFound("there is nothing of this name in the image; a draw that is not painted yet has no chunk")
        content, media = found
        origin = request.headers.get("origin", "")
        open_to = "*" if request.scope.get("dopaint.signed") else origin
        cors = {}
        if open_to and (open_to == "*" or origin in doors.settings.picture_origins):
            exposed = "Content-Range, Content-Length, Accept-Ranges"
            cors = {"Access-Control-Allow-Origin": open_to, "Access-Control-Expose-Headers": exposed}
            cors |= {"Vary": "Origin", "Cross-Origin-Resource-Policy": "cross-origin"}
        return ranged(request, content, media, {"Cache-Control": "private, max-age=60", **cors})

    place = ROOT + "/{row}.zarr/{path:path}"
    described = {
        **kinds("application/json", "application/octet-stream"),
        206: {"content": {"application/octet-stream": {}, "application/json": {}}, "description": "the range"},
        416: {"description": "the range lies outside"},
    }
    routes.add_api_route(place, zarr, methods=["GET"], response_class=Response, responses=described)
    routes.add_api_route(place, zarr, methods=["HEAD"], response_class=Response, include_in_schema=False)

    @routes.options(place, include_in_schema=False)
    def preflight(key: JobId, index: Index, row: Row, path: ZarrPath, request: Request) -> Response:
        """Tells a viewer of another origin that it may read ranges, where it may."""
        origin = request.headers.get("origin", "")
        signed = request.scope.get("dopaint.signed")
        if not signed and origin not in doors.settings.picture_origins:
            raise NotFound("no page of another origin may read this; ask for a signed link")
        headers = {
            "Access-Control-Allow-Origin": "*" if signed else origin,
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Range",
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        }
        return Response(status_code=204, headers=headers)


def _shown(doors: Doors, key: str, index: int, row: str, owner: str) -> Shown:
    desk = doors.desk
    job, state = molecule_of(desk, key, index, owner)
    if not state.folder:
        raise NotFound(f"molecule {index} has no pictures: its outcome is {state.outcome!r}")
    card = desk.room().card
    facts = views.evidence(desk)
    return Shown(
        name=f"{state.inchikey} {row}",
        draws=int(job.request["draws"]),
        channels=card.channels,
        size=card.picture_size,
        file=lambda draw: picture_or_none(desk, key, index, draw, row, owner),
        white=WHITE,
        facts={name: str(value) for name, value in facts.items()} | {"conditions": card.conditions},
        pixel_size_um=pixel_size_of(card),
    )
