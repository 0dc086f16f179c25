"""A service around a fake machine room, in a thread, for the browser to talk to."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import bound, handlers_of, server_of, url_of
from service.settings import Settings


def serve(data: Path, **changes: Any) -> tuple[str, Callable[[], None]]:
    """Starts a service around a fake room in a thread; its address, and what stops it."""
    settings = Settings(port=0, data=str(data), engine="fake", model="fake", **changes)
    room = FakeRoom(slow=lambda _: time.sleep(0.03))
    server = server_of(settings, Desk(data, lambda: room, handlers=handlers_of(settings)))
    made = bound(settings)
    thread = Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(30)
        made.close()

    return url_of(settings, made), stop
