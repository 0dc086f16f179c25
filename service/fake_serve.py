"""The service around a room that paints blobs: `python -m service.fake_serve --port 8799 --slow 0.1`.

For trying the doors and the page without weights or an engine; its answers mean nothing, and its pictures say so.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import bound, handlers_of, server_of, url_of
from service.settings import Settings


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8799)
    parser.add_argument("--slow", type=float, default=0.0, help="seconds a picture")
    parser.add_argument("--data", default="", help="folder of jobs and results; default: a temporary one")
    parser.add_argument("--auth", default="auto", choices=("auto", "required"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        settings = Settings(port=asked.port, data=asked.data or temporary, engine="fake", model="fake", auth=asked.auth)
        slow = (lambda _: time.sleep(asked.slow)) if asked.slow else None
        desk = Desk(Path(settings.data), lambda: FakeRoom(slow=slow), handlers=handlers_of(settings))
        server = server_of(settings, desk)
        with bound(settings) as made:
            print(f"fake service on {url_of(settings, made)}", flush=True)  # noqa: T201
            server.run(sockets=[made])


if __name__ == "__main__":
    main()
