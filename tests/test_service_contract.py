"""The OpenAPI document against the service it describes: generated requests, and what it must say."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings

from service.app import make_app
from service.fake import FakeRoom
from service.jobs import Desk
from service.problems import PROBLEM
from service.serve import bound, handlers_of, url_of
from service.settings import Settings

# The service runs in this process, and its threads (uuid, tempfile) draw from `random` while cases are generated.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
FAST, WHOLE = 8, 230  # cases of an operation, valid and invalid ones; some have fewer that differ
PATHS = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a running service, and the id of a finished prediction."""
    data = tmp_path_factory.mktemp("contract")
    config = Settings(port=0, data=str(data), engine="fake", model="fake", max_body_bytes=200_000)
    desk = Desk(data, FakeRoom, limit=6, handlers=handlers_of(config))
    server = uvicorn.Server(uvicorn.Config(make_app(desk, config), log_level="error", log_config=None))
    with bound(config) as made:
        thread = threading.Thread(target=lambda: server.run(sockets=[made]))
        thread.start()
        url = url_of(config, made).rstrip("/")
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            for _ in range(600):
                try:
                    if client.get("/v1/health/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
            answer = client.post("/v1/predictions?wait=60", json={"smiles": "CCCCO", "draws": 2}).json()
            yield url, answer["id"]
        server.should_exit = True
        thread.join()


def played(url: str, done: str, cases: int) -> Counter[int]:
    """Generated requests to every operation, valid and invalid ones; half of them at a prediction that exists."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed here")
    from schemathesis import GenerationMode
    from schemathesis.checks import load_all_checks, not_a_server_error
    from schemathesis.specs.openapi import checks as openapi

    @schemathesis.serializer("image/tiff", "application/zip", "text/csv", "application/vnd.apache.parquet")
    def bytes_as_they_are(context: Any, value: Any) -> bytes:
        data = getattr(value, "data", value)
        return data if isinstance(data, bytes) else str(data).encode("utf-8", "replace")

    load_all_checks()
    checks = [
        not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_schema_conformance,
        openapi.response_headers_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{url}/v1/openapi.json")
    found: Counter[int] = Counter()
    failures: list[Exception] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @seed(1)
            @settings(
                max_examples=cases // 2,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                if "wait" in (case.query or {}):
                    case.query["wait"] = 0  # nobody has an hour
                if sum(found.values()) % 2 and "key" in (case.path_parameters or {}) and case.method != "DELETE":
                    case.path_parameters["key"] = done
                    if "index" in case.path_parameters:
                        case.path_parameters["index"] = 0
                response = case.call(timeout=60)
                found[response.status_code] += 1
                case.validate_response(response, checks=checks)
                if case.method == "POST" and response.status_code == 202:  # not to work all day
                    httpx.delete(url + response.headers["location"][0], trust_env=False)

            try:
                one()
            except Exception as error:
                if type(error).__name__ in ("Unsatisfiable", "InvalidArgument", "SkipTest"):
                    continue  # an operation without parameters has no invalid request
                failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} operations", failures)
    return found


def test_generated_requests_get_what_the_document_promises(served: tuple[str, str]) -> None:
    found = played(*served, FAST)
    assert sum(found.values()) >= 200
    assert {200, 404, 422} <= set(found)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_five_thousand_generated_requests_get_what_the_document_promises(served: tuple[str, str]) -> None:
    found = played(*served, WHOLE)
    assert sum(found.values()) >= 5000
    assert set(found) <= {200, 202, 204, 206, 400, 404, 409, 413, 415, 416, 422, 429}


def test_every_operation_documents_its_refusals_and_who_may_ask(served: tuple[str, str]) -> None:
    document = httpx.get(f"{served[0]}/v1/openapi.json", trust_env=False).json()
    assert len(document["paths"]) >= PATHS
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            place = f"{method} {path}"
            assert operation["description"].strip(), place
            assert "security" in operation, place
            for code, answer in operation["responses"].items():
                if str(code) >= "400" and str(code) != "416" and not (path.endswith("ready") and code == "503"):
                    assert PROBLEM in answer["content"], f"{place} {code}"
            assert {"401", "413", "429"} <= set(operation["responses"]), place
    assert "examples" in document["components"]["schemas"]["PredictionRequest"]
