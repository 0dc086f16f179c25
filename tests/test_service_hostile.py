"""Hostile requests at the application itself (no client in between that would tidy them): none harms."""

import asyncio
import hashlib
import json
import resource
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from fastapi import FastAPI

from service.app import make_app
from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import handlers_of
from service.settings import Settings
from tests.hostile_bodies import Attack, attacks

Answer = tuple[int, dict[str, str], bytes]


async def call(
    app: FastAPI, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> Answer:
    """One request, as a server would hand it to the application."""
    named = {"host": "127.0.0.1:8711", **{name.lower(): value for name, value in (headers or {}).items()}}
    raw, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("utf-8", "replace"),
        "query_string": query.encode("utf-8", "replace"),
        "root_path": "",
        "headers": [(name.encode(), value.encode("utf-8", "replace")) for name, value in named.items()],
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8711),
        "state": {},
    }
    pieces = [body[i : i + 4096] for i in range(0, len(body), 4096)] or [b""]
    status, told, sent = 0, {}, []
    over = asyncio.Event()

    async def receive() -> dict:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        nonlocal status, told
        if message["type"] == "http.response.start":
            status = message["status"]
            told = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            sent.append(message.get("body", b""))
            if not message.get("more_body", False):
                over.set()

    await asyncio.wait_for(app(scope, receive, send), 60)
    return status, told, b"".join(sent)


def judged(attack: Attack, answer: Answer) -> None:
    """What every answer must be, whatever was asked."""
    status, headers, body = answer
    assert 200 <= status < 500, (attack, status, body[:500])
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]
    for word in (b"Traceback", b"site-packages", b"root:x:0", b'File "'):
        assert word not in body, attack
    assert "set-cookie" not in headers
    if status >= 400 and attack.method != "HEAD" and status != 416:
        assert headers["content-type"] == "application/problem+json", (attack, status, headers)
        document = json.loads(body)
        assert document["status"] == status
        assert len(body) < 200_000


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def played(data: Path, n: int, seed: int) -> Counter[int]:
    settings = Settings(data=str(data / "in"), engine="fake", model="fake", max_body_bytes=60_000)
    settings_small = {"max_upload_bytes": 60_000, "max_upload_pixels": 100_000}
    settings = Settings(**{**settings.__dict__, **settings_small})
    desk = Desk(data / "in", FakeRoom, limit=10, handlers=handlers_of(settings))
    app = make_app(desk, settings)
    found: Counter[int] = Counter()
    async with app.router.lifespan_context(app):
        while (await call(app, "GET", "/v1/health/ready"))[0] != 200:
            await asyncio.sleep(0.05)
        asked = json.dumps({"smiles": "CCCCO", "draws": 2}).encode()
        kind = {"content-type": "application/json"}
        first = json.loads((await call(app, "POST", "/v1/predictions?wait=60", asked, kind))[2])
        before = tree(desk.folder(first["id"]))
        for i, attack in enumerate(attacks(seed, n, first["id"])):
            answer = await call(app, attack.method, attack.path, attack.body, attack.headers)
            judged(attack, answer)
            found[answer[0]] += 1
            if i == n // 10:
                early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - early
        assert grown < 300_000, f"{grown} KiB more at the end than after a tenth"
        assert tree(desk.folder(first["id"])) == before, "the results of an honest client were changed"
        assert (await call(app, "GET", "/v1/health/ready"))[0] == 200
        again = await call(app, "POST", "/v1/predictions?wait=60", asked, kind | {"Idempotency-Key": "after"})
        while again[0] == 429:  # what was valid among the attacks is worked off first
            await asyncio.sleep(0.2)
            again = await call(app, "POST", "/v1/predictions?wait=60", asked, kind | {"Idempotency-Key": "after"})
        document = json.loads(again[2])
        assert document["molecules"][0]["predictions"] == first["molecules"][0]["predictions"]
    assert [path.name for path in data.iterdir()] == ["in"], "nothing was written beside the data folder"
    return found


def test_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    found = asyncio.run(played(tmp_path, 500, seed=1))
    assert {200, 404, 405, 413, 415, 422} <= set(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    found = asyncio.run(played(tmp_path, 10_000, seed=2))
    assert sum(found.values()) == 10_000
