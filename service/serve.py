"""`dopaint serve`: a desk, its app and uvicorn, put together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from service import own_pictures, routes_profiles
from service.app import make_app
from service.doors import bounds_of
from service.engine import find_model, load_room
from service.errors import InvalidRequest
from service.jobs import Desk
from service.keys import Keys
from service.logs import configure
from service.pipeline import predict_in
from service.quota import DAY_S, Rules
from service.request import Request
from service.rooms import Room
from service.settings import Settings
from service.who import is_loopback

STOP_S = 20  # for answers that are being sent when the service stops


def work(room: Room, request: dict[str, Any], folder: Path, report: Callable[[int, int, str], None]) -> None:
    """One job by itself: the result folder of a stored request. The engine room packs many jobs instead."""
    asked = Request(
        smiles=tuple(request["smiles"]),
        draws=int(request["draws"]),
        seed=int(request["seed"]),
        allow_simulated=bool(request["allow_simulated"]),
        contexts=tuple(request.get("contexts", ())),
        abstain=bool(request.get("abstain", False)),
    )
    predict_in(room, asked, folder, report)


def handlers_of(settings: Settings) -> dict[str, Callable[..., None]]:
    """The other kinds of jobs: own pictures."""
    uploads = Path(settings.data).absolute() / "uploads"
    return {routes_profiles.KIND: own_pictures.worker(uploads, bounds_of(settings))}


def rules_of(settings: Settings) -> Rules:
    """How much may wait and how long results stay."""
    return Rules(
        max_waiting_jobs=settings.max_waiting_jobs,
        max_waiting_jobs_per_owner=settings.max_waiting_jobs_per_owner,
        max_disk_bytes=settings.max_disk_bytes,
        max_disk_bytes_per_owner=settings.max_disk_bytes,
        keep_s=settings.keep_days * DAY_S,
    )


def desk_of(settings: Settings) -> Desk:
    """The desk of a service: model and engine are loaded beside the doors."""
    load = partial(load_room, settings.model, settings.engine, settings.engine_workers, settings.engine_timeout_s)
    data = Path(settings.data).absolute()
    return Desk(data, load, rules=rules_of(settings), handlers=handlers_of(settings), url=settings.database or None)


def check_open(settings: Settings) -> None:
    """Refuses to listen beyond this machine while nobody could be told from anybody. Raises `InvalidRequest`."""
    if is_loopback(settings.host):
        return
    file = Path(settings.keys) if settings.keys else Path(settings.data).absolute() / "keys.json"
    if not any(one.revoked is None for one in Keys(file).all()):
        raise InvalidRequest(
            f"host {settings.host} is reached from other machines, so keys are asked for, and there is none: make one "
            "with `dopaint keys add NAME`"
        )


def bound(settings: Settings) -> socket.socket:
    """A socket on the wanted address; port 0 takes a free one. Raises `InvalidRequest` when the address is taken."""
    made = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        raise InvalidRequest(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another --port"
        ) from error
    return made


def url_of(settings: Settings, made: socket.socket) -> str:
    """The address of the page."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{host}:{made.getsockname()[1]}/"


def tls_of(settings: Settings) -> dict[str, Any]:
    """What uvicorn needs for TLS. Raises `InvalidRequest` for files that are not there."""
    if not settings.tls_cert:
        return {}
    for name in ("tls_cert", "tls_key"):
        if not Path(getattr(settings, name)).is_file():
            raise InvalidRequest(f"{name}: {getattr(settings, name)!r} does not exist: give a PEM file")
    return {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}


def server_of(settings: Settings, desk: Desk | None = None) -> uvicorn.Server:
    """The HTTP server, not yet running."""
    app = make_app(desk or desk_of(settings), settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="info" if settings.log_format == "json" else "warning",
        access_log=False,  # `service.access` writes the lines, with ids and without secrets
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        **tls_of(settings),
    )
    return uvicorn.Server(config)


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until interrupted; `say` is told the address. Raises `MissingModel` before anything is started."""
    find_model(settings.model)
    check_open(settings)
    configure(settings.log_format, "INFO" if settings.log_format == "json" else "WARNING")
    server = server_of(settings)
    with bound(settings) as made:
        say(url_of(settings, made))
        server.run(sockets=[made])
