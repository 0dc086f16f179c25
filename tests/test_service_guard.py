"""The layers before the routes, around an application that answers everything: size, nesting, who asks, log lines."""

import io
import json
import logging
import random
import time
from pathlib import Path

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access import Access
from service.guard import Guard, too_deep
from service.keys import Keys
from service.limits import Buckets
from service.logs import LOGGERS, JsonLines, blotted, configure
from service.metrics import Metrics
from service.signed import Signer
from service.who import Gate, is_loopback


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    who = scope.get("dopaint.who")
    answer = {"length": len(body), "path": scope["path"], "owner": who.owner if who else None}
    await JSONResponse(answer)(scope, receive, send)


def depth(value: object) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max((depth(part) for part in parts), default=0)


def random_json(rng: random.Random, levels: int) -> object:
    if levels == 0 or rng.random() < 0.2:
        return rng.choice([1, "a[b{", 'q"]}', "\\", None, "[[[[[[[[[["])
    if rng.random() < 0.5:
        return [random_json(rng, levels - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(["a", "}]", '"']) + str(i): random_json(rng, levels - 1) for i in range(rng.randint(0, 3))}


def test_nesting_is_what_a_walk_through_the_parsed_value_finds() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        value = random_json(rng, 9)
        text = json.dumps(value).encode()
        for most in (1, 3, 6, 9):
            if text.count(b"[") + text.count(b"{") > most:
                assert too_deep(text, most) == (depth(value) > most), text


@pytest.mark.parametrize("body", [b"[" * 3_000_000, b'{"a":' * 100_000, b"[{" * 50_000, b"[" * 40 + b"]" * 40])
def test_deep_bodies_are_refused_before_any_parser(body: bytes) -> None:
    assert too_deep(body, 32)
    client = TestClient(Guard(echo, lambda path, is_json: 10_000_000, 32))
    answer = client.post("/x", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


def test_judging_takes_time_linear_in_the_length() -> None:
    for piece in (b'\\"', b'"', b"\\", b'[]"', b'["', b"{[]}"):
        body = b"[" * 40 + b'"' + piece * 500_000
        started = time.perf_counter()
        too_deep(body, 32)
        assert time.perf_counter() - started < 5.0, piece  # quadratic would take hours


def test_brackets_in_texts_and_wide_lists_are_not_deep() -> None:
    assert not too_deep(json.dumps({"smiles": ["C" + "[" * 500, '"' + "{" * 500]}).encode(), 4)
    assert not too_deep(b"[" + b"[]," * 100_000 + b"[]]", 4)


@pytest.mark.parametrize("kind", ["application/json", "image/tiff"])
def test_a_body_is_counted_whatever_its_header_says(kind: str) -> None:
    client = TestClient(Guard(echo, lambda path, is_json: 100 if is_json else 1000, 32))
    limit = 100 if kind == "application/json" else 1000

    def pieces(n: int):  # type: ignore[no-untyped-def]
        for _ in range(n):
            yield b" " * 10

    assert client.post("/x", content=pieces(limit // 10), headers={"content-type": kind}).json()["length"] == limit
    refused = client.post("/x", content=pieces(limit // 10 + 1), headers={"content-type": kind})
    assert refused.status_code == 413
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-content-type-options"] == "nosniff"


# ----------------------------------------------------------------------------------------------------------------------
# Who asks.


def gate(tmp_path: Path, required: bool, app: ASGIApp = echo) -> tuple[TestClient, Keys, Signer]:
    keys = Keys(tmp_path / "keys.json")
    signer = Signer(b"s" * 32, keys.active)
    return TestClient(Gate(app, keys, signer, Buckets(), required), base_url="http://127.0.0.1:8711"), keys, signer


def test_without_keys_only_this_machine_under_its_own_name_is_answered(tmp_path: Path) -> None:
    client, _, _ = gate(tmp_path, required=False)
    assert client.get("/v1/predictions").json()["owner"] == "local"
    for host in ("127.0.0.1:8711", "localhost:8711", "[::1]:8711", "testserver"):
        assert client.get("/v1/predictions", headers={"host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8711", "127.0.0.1.evil.example", "10.0.0.7", "[", ""):
        expected = 200 if host == "" else 403
        assert client.get("/v1/predictions", headers={"host": host}).status_code == expected, host


def test_a_page_of_another_site_changes_nothing(tmp_path: Path) -> None:
    client, _, _ = gate(tmp_path, required=False)
    own, other = "http://127.0.0.1:8711", ("https://evil.example", "null", "http://127.0.0.1:9000", "http://[")
    assert client.post("/v1/predictions", headers={"origin": own}).status_code == 200
    for origin in other:
        assert client.post("/v1/predictions/x/cancel", headers={"origin": origin}).status_code == 403, origin
    assert client.delete("/v1/predictions/x", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/v1/predictions", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_with_keys_every_call_needs_one_in_its_header(tmp_path: Path) -> None:
    client, keys, _ = gate(tmp_path, required=True)
    made, text = keys.add("lab", per_minute=5)
    for path in ("/", "/app.js", "/v1/health/live", "/v1/version"):
        assert client.get(path).status_code == 200
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"Basic {text}"}, {"authorization": text}):
        refused = client.get("/v1/predictions", headers=headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
    assert client.get(f"/v1/predictions?key={text}").status_code == 401, "never in a query"
    assert client.get("/metrics").status_code == 401
    good = {"authorization": f"Bearer {text}"}
    assert client.get("/v1/predictions", headers=good).json()["owner"] == made.id
    for _ in range(4):
        client.get("/v1/predictions", headers=good)
    limited = client.get("/v1/predictions", headers=good)
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) > 0
    keys.revoke("lab")
    assert client.get("/v1/predictions", headers=good).status_code == 401


def test_guessing_keys_is_slowed_down(tmp_path: Path) -> None:
    client, _, _ = gate(tmp_path, required=True)
    wrong = {"authorization": "Bearer dopaint_000000000000_" + "a" * 43}
    answers = [client.get("/v1/predictions", headers=wrong).status_code for _ in range(62)]
    assert set(answers[:60]) == {401}
    assert answers[-1] == 429


def test_a_signed_link_reads_as_its_owner_and_changes_nothing(tmp_path: Path) -> None:
    client, keys, signer = gate(tmp_path, required=True)
    made, _ = keys.add("lab")
    prefix, _ = signer.link("abc", "files", made.id, 600)
    answer = client.get(f"{prefix}/v1/predictions/abc/files.zip").json()
    assert answer == {"length": 0, "path": "/v1/predictions/abc/files.zip", "owner": made.id}
    assert client.post(f"{prefix}/v1/predictions/abc/files.zip").status_code == 403
    assert client.delete(f"{prefix}/v1/predictions/abc/events").status_code == 403
    assert client.get(f"{prefix}/v1/predictions/abd/files.zip").status_code == 404
    nobody, _ = signer.link("abc", "files", "", 600)
    assert client.get(f"{nobody}/v1/predictions/abc/files.zip").status_code == 404, "made while keys were off"


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


# ----------------------------------------------------------------------------------------------------------------------
# Log lines and numbers.


def test_every_request_has_an_id_a_log_line_without_secrets_and_a_place_in_the_numbers(tmp_path: Path) -> None:
    metrics = Metrics()
    client, keys, signer = gate(tmp_path, True)
    made, text = keys.add("lab")
    client = TestClient(Access(Gate(echo, keys, signer, Buckets(), True), metrics))
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("dopaint.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        given = client.get("/v1/x", headers={"x-request-id": "abc-1", "authorization": f"Bearer {text}"})
        made_up = client.get("/v1/x", headers={"x-request-id": 'bad"id'})
        prefix, _ = signer.link("abc", "zip", made.id, 600)
        client.get(f"{prefix}/v1/predictions/abc/files.zip")
    finally:
        logger.removeHandler(handler)
    assert given.headers["x-request-id"] == "abc-1"
    assert len(made_up.headers["x-request-id"]) == 32
    assert made_up.json()["request_id"] == made_up.headers["x-request-id"]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["status"] for line in lines] == [200, 401, 200]
    assert lines[0]["request"] == "abc-1"
    assert prefix.rsplit(".", 1)[1] not in stream.getvalue()
    assert text.rsplit("_", 1)[1] not in stream.getvalue()
    exposition = metrics.text({"rows_painted": 3.0}, {"version": "1"})
    assert 'dopaint_http_requests_total{method="GET",path="other",status="401"} 1' in exposition
    assert 'dopaint_http_request_seconds_bucket{method="GET",path="other",le="+Inf"} 3' in exposition
    assert "dopaint_rows_painted 3\n" in exposition


def test_secrets_are_blotted_out() -> None:
    key = "dopaint_0123456789ab_" + "S" * 43
    words = blotted(f"GET /s/zip.-.ff.{'0' * 64}/v1/x Authorization: Bearer {key} {key}")
    assert "SSS" not in words
    assert "0000" not in words
    assert words.startswith("GET /s/.../v1/x")


def test_an_error_inside_becomes_a_problem_document_with_the_id() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret inside")

    answer = TestClient(Access(broken, Metrics())).get("/v1/x", headers={"x-request-id": "abc"})
    assert answer.status_code == 500
    assert answer.json()["request_id"] == "abc"
    assert "secret" not in answer.text


def test_the_lines_of_the_server_are_json_too_and_keep_a_traceback() -> None:
    stream = io.StringIO()
    before = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in LOGGERS}
    try:
        configure("json", "INFO", stream)
        logging.getLogger("uvicorn.error").info("Started %s", "x")
        try:
            raise ValueError("inside")
        except ValueError:
            logging.getLogger("dopaint.jobs").exception("failed")
        configure("plain", "WARNING", stream)
        logging.getLogger("dopaint.http").info("silent")
        logging.getLogger("dopaint.http").warning("Bearer secret")
    finally:
        for name, (handlers, propagate) in before.items():
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate
            logging.getLogger(name).setLevel(logging.NOTSET)
    *lines, plain = stream.getvalue().splitlines()
    first, second = (json.loads(line) for line in lines)
    assert (first["message"], first["level"], first["logger"]) == ("Started x", "info", "uvicorn.error")
    assert "ValueError: inside" in second["trace"]
    assert plain == "WARNING dopaint.http: Bearer ..."
