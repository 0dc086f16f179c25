"""`dopaint serve`: a desk, its app and uvicorn, put together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from service.app import make_app
from service.engine import find_model, load_room
from service.errors import InvalidRequest
from service.jobs import Desk
from service.pipeline import predict_in
from service.request import Request
from service.rooms import Room
from service.settings import Settings


def work(room: Room, request: dict[str, Any], folder: Path, report: Callable[[int, int, str], None]) -> None:
    """One job: the result folder of a stored request."""
    asked = Request(
        smiles=tuple(request["smiles"]),
        draws=int(request["draws"]),
        seed=int(request["seed"]),
        allow_simulated=bool(request["allow_simulated"]),
        contexts=tuple(request.get("contexts", ())),
        abstain=bool(request.get("abstain", False)),
    )
    predict_in(room, asked, folder, report)


def desk_of(settings: Settings) -> Desk:
    """The desk of a service: model and engine are loaded in its worker's thread."""
    load = partial(load_room, settings.model, settings.engine, settings.engine_workers, settings.engine_timeout_s)
    return Desk(Path(settings.data).absolute(), load, work, limit=settings.max_waiting_jobs)


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
    return f"http://{host}:{made.getsockname()[1]}/"


def server_of(settings: Settings) -> uvicorn.Server:
    """The HTTP server, not yet running."""
    app = make_app(desk_of(settings), settings)
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", server_header=False))


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until interrupted; `say` is told the address. Raises `MissingModel` before anything is started."""
    find_model(settings.model)
    server = server_of(settings)
    with bound(settings) as made:
        say(url_of(settings, made))
        server.run(sockets=[made])
