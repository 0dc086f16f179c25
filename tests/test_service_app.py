"""The HTTP doors in-process, with a fake machine room behind them."""

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient

from service.app import make_app
from service.errors import MissingModel
from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import work
from service.settings import Settings

KNOWN, STRANGE = "CCCCO", "CC(=O)Oc1ccccc1C(=O)O"
ROOM = FakeRoom()  # its reference library is made once
SETTINGS = Settings(max_waiting_jobs=3, max_body_bytes=100_000)


def client_of(data: Path, room: FakeRoom = ROOM) -> TestClient:
    return TestClient(make_app(Desk(data, lambda: room, work, limit=3), SETTINGS), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(tmp_path_factory.mktemp("service")) as client:
        until_ready(client)
        yield client


@pytest.fixture(scope="module")
def done(client: TestClient) -> dict:
    body = {"smiles": [KNOWN, "not-a-smiles", STRANGE], "draws": 3}
    response = client.post("/v1/predictions?wait=60", json=body)
    assert response.status_code == 200
    return dict(response.json())


def until_ready(client: TestClient) -> None:
    for _ in range(200):
        if client.get("/v1/health/ready").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError("never ready")


def test_post_is_accepted_and_found_at_its_location(client: TestClient) -> None:
    response = client.post("/v1/predictions", json={"smiles": KNOWN, "draws": 2})
    assert response.status_code == 202
    place = response.headers["location"]
    assert place == f"/v1/predictions/{response.json()['id']}"
    answer = client.get(f"{place}?wait=60").json()
    assert answer["status"] == "done"
    assert answer["progress"]["fraction"] == 1.0
    assert answer["evidence"] == "simulation"


def test_outcomes_one_by_one(done: dict) -> None:
    assert [one["outcome"] for one in done["molecules"]] == ["ok", "invalid", "out_of_domain"]
    assert done["molecules"][0]["predictions"]["moa"]["ranking"][0]["label"] == "alpha"
    assert done["molecules"][1]["reason"] == "unparsable"
    assert done["molecules"][2]["predictions"]["moa"]["call"] is None
    assert "allow_simulated" in done["molecules"][2]["predictions"]["withheld"]


@pytest.mark.parametrize(
    ("smiles", "reason", "position"),
    [
        ("not-a-smiles", "unparsable", 3),
        ("", "empty", None),
        ("C" * 2001, "too_long", 2001),
        ("[Na+].[Cl-]", "not_organic", None),
        ("CS(C)=O", "is_control", None),
    ],
)
def test_a_bad_smiles_is_a_problem_document(client: TestClient, smiles: str, reason: str, position: int | None) -> None:
    response = client.post("/v1/predictions", json={"smiles": smiles})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "errors", "request_id"}
    assert problem["status"] == 422
    assert problem["code"] == "invalid_smiles"
    assert problem["detail"].startswith(f"{reason} at #/smiles")
    (entry,) = problem["errors"]
    assert entry["reason"] == reason
    assert entry["pointer"] == "#/smiles"
    assert entry["position"] == position
    assert entry["message"] in problem["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"smiles": KNOWN, "draws": 0}, "#/draws"),
        ({"smiles": KNOWN, "draws": 1001}, "#/draws"),
        ({"smiles": KNOWN, "draws": "4"}, "#/draws"),
        ({"smiles": KNOWN, "seed": -1}, "#/seed"),
        ({"smiles": []}, "#/smiles"),
        ({"smiles": [KNOWN] * 1001}, "#/smiles"),
        ({"smiles": KNOWN, "dose": 10}, "#/dose"),
        ({}, "#/smiles"),
    ],
    ids=["no draws", "many draws", "text", "seed", "empty list", "long list", "unknown key", "nothing"],
)
def test_a_bound_that_is_passed_is_a_problem_document(client: TestClient, body: dict, pointer: str) -> None:
    response = client.post("/v1/predictions", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_request"
    assert any(one["pointer"].startswith(pointer) for one in response.json()["errors"])


@pytest.mark.parametrize(("key", "value"), [("engine", "nobody"), ("model", "nobody"), ("contexts", ["S1", "nobody"])])
def test_an_unknown_name_is_refused(client: TestClient, key: str, value: object) -> None:
    response = client.post("/v1/predictions", json={"smiles": KNOWN, key: value})
    assert response.status_code == 422
    assert response.json()["code"] == "unknown_name"
    assert "nobody" in response.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b"null", b'{"smiles": "\\ud800"}'])
def test_nonsense_is_refused_without_a_traceback(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/predictions", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in response.text


def test_a_long_body_is_refused(client: TestClient) -> None:
    response = client.post("/v1/predictions", json={"smiles": "C" * 200_000})
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/predictions/nobody", 404),
        ("/v1/predictions/..%2f..%2fetc", 404),
        ("/v1/nothing", 404),
        ("/v1/predictions/{id}/molecules/7/profile", 404),
        ("/v1/predictions/{id}/molecules/1/profile", 404),
        ("/v1/predictions/{id}/molecules/0/pictures/3", 404),
        ("/v1/predictions/{id}/molecules/0/pictures/0?channel=nobody", 404),
        ("/v1/predictions/{id}/molecules/0/pictures/0?low=0.5&high=0.4", 422),
        ("/v1/predictions/{id}/molecules/0/pictures/0?high=5e-324", 422),
        ("/v1/predictions/{id}/molecules/0/pictures/0?row=other", 422),
        ("/v1/predictions/{id}/molecules/-1/profile", 422),
        ("/v1/predictions/{id}/molecules/0/profile?format=pickle", 422),
    ],
)
def test_what_is_not_there_is_a_problem_document(client: TestClient, done: dict, path: str, status: int) -> None:
    response = client.get(path.replace("{id}", done["id"]))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


def test_pictures_as_png_and_ome_tiff(client: TestClient, done: dict) -> None:
    root = f"/v1/predictions/{done['id']}/molecules/0/pictures"
    listed = client.get(root).json()
    assert listed["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito"]
    assert [one["draw"] for one in listed["draws"]] == [0, 1, 2]
    assert {one["source"] for one in listed["draws"]} <= {"S1", "S2"}
    views = {}
    for row in ("compound", "control"):
        for channel in ("composite", "DNA"):
            response = client.get(f"{root}/0?row={row}&channel={channel}")
            assert response.headers["content-type"] == "image/png"
            views[row, channel] = np.asarray(Image.open(io.BytesIO(response.content)))
    assert views["compound", "composite"].shape == (16, 16, 3)
    assert views["compound", "DNA"].shape == (16, 16)
    assert (views["compound", "DNA"] != views["control", "DNA"]).any()
    assert client.get(listed["draws"][1]["control"]).status_code == 200
    tiff = client.get(f"{root}/0?format=ome-tiff")
    assert tiff.headers["content-type"] == "image/tiff"
    assert b"simulation" in tiff.content


def test_profiles_and_effects_in_three_formats(client: TestClient, done: dict) -> None:
    root = f"/v1/predictions/{done['id']}/molecules/0"
    for name, rows in (("profile", 3), ("effects", 40)):
        answer = client.get(f"{root}/{name}").json()
        assert answer["rows"] == rows
        csv = pd.read_csv(io.StringIO(client.get(f"{root}/{name}?format=csv").text))
        parquet = pd.read_parquet(io.BytesIO(client.get(f"{root}/{name}?format=parquet").content))
        assert list(csv.columns) == list(parquet.columns) == answer["columns"]
        evidence = "Metadata_Evidence" if name == "profile" else "evidence"
        assert set(csv[evidence]) == {"simulation"}
    assert client.get(f"{root}/predictions?format=csv").text.startswith("evidence,")
    assert client.get(f"{root}/predictions").json() == done["molecules"][0]["predictions"]


def test_a_molecule_is_standardised_drawn_and_placed(client: TestClient) -> None:
    answer = client.post("/v1/molecules", json={"smiles": "OCCCC.Cl"}).json()
    assert answer["smiles"] == KNOWN
    assert "<svg" in answer["svg"]
    assert answer["changes"]
    assert answer["standing"]["in_library"] is True
    assert client.post("/v1/molecules", json={"smiles": "C1CC"}).status_code == 422


def test_facts(client: TestClient) -> None:
    assert client.get("/v1/health/live").json() == {"status": "live"}
    version = client.get("/v1/version").json()
    assert version["evidence"] == "simulation"
    assert set(version["provenance"]) == {"model", "encoder", "engine", "settings"}
    assert client.get("/v1/contexts").json()["sources"] == ["S1", "S2"]
    document = client.get("/v1/openapi.json").json()
    assert "/v1/predictions" in document["paths"]
    assert client.get("/v1/health/live").headers["x-content-type-options"] == "nosniff"


def test_the_page_is_served_with_strict_headers_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "simulat" in page.text.lower()
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-cache"
    names = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert names
    for name in names:
        assert not name.startswith(("http:", "https:", "//")), name
        assert client.get(f"/{name.removeprefix('/')}").status_code == 200, name
    for path in ("/..%2fapp.py", "/%2e%2e/app.py", "/..\\app.py", "//etc/passwd", "/.%00./x"):
        assert client.get(path).status_code == 404, path


def test_the_same_request_gives_the_same_answer_over_http_and_in_process(done: dict, tmp_path: Path) -> None:
    work(
        ROOM,
        {"smiles": [KNOWN], "draws": 3, "seed": 1, "allow_simulated": False, "contexts": []},
        tmp_path,
        lambda *_: None,
    )
    written = json.loads((tmp_path / done["molecules"][0]["folder"] / "predictions.json").read_text())
    assert written == done["molecules"][0]["predictions"]


# ----------------------------------------------------------------------------------------------------------------------
# Restart, limits, failures.


def test_a_restart_keeps_what_is_finished_and_goes_on_with_the_rest(tmp_path: Path) -> None:
    with client_of(tmp_path) as first:
        finished = first.post("/v1/predictions?wait=60", json={"smiles": KNOWN, "draws": 2}).json()
        stuck = FakeRoom(slow=lambda _: time.sleep(0.2))
        stuck.reference = ROOM.reference  # type: ignore[method-assign]
    with client_of(tmp_path, stuck) as second:
        until_ready(second)
        unfinished = second.post("/v1/predictions", json={"smiles": "CCCCN", "draws": 50}).json()
        waiting = second.post("/v1/predictions", json={"smiles": "CCCCCN", "draws": 2}).json()
        for _ in range(100):
            if second.get(f"/v1/predictions/{unfinished['id']}").json()["status"] == "running":
                break
            time.sleep(0.05)
    with client_of(tmp_path) as third:
        assert third.get(f"/v1/predictions/{finished['id']}").json()["molecules"] == finished["molecules"]
        for job in (unfinished, waiting):
            answer = third.get(f"/v1/predictions/{job['id']}?wait=60").json()
            assert answer["status"] == "done"
            assert answer["molecules"][0]["outcome"] == "ok"
        assert not list((tmp_path / "results").rglob(".partial*"))


def test_too_many_waiting_jobs_are_refused_with_retry_after(tmp_path: Path) -> None:
    slow = FakeRoom(slow=lambda _: time.sleep(0.05))
    slow.reference = ROOM.reference  # type: ignore[method-assign]
    with client_of(tmp_path, slow) as client:
        until_ready(client)
        answers = [client.post("/v1/predictions", json={"smiles": KNOWN, "draws": 200}) for _ in range(5)]
        assert answers[-1].status_code == 429
        assert int(answers[-1].headers["retry-after"]) > 0


def test_results_are_not_there_before_the_job_is_done(tmp_path: Path) -> None:
    slow = FakeRoom(slow=lambda _: time.sleep(0.05))
    slow.reference = ROOM.reference  # type: ignore[method-assign]
    with client_of(tmp_path, slow) as client:
        key = client.post("/v1/predictions", json={"smiles": KNOWN, "draws": 100}).json()["id"]
        response = client.get(f"/v1/predictions/{key}/molecules/0/profile")
        assert response.status_code == 409
        assert response.json()["code"] == "not_ready"


def test_a_missing_model_makes_the_service_not_ready_and_says_why(tmp_path: Path) -> None:
    def missing() -> FakeRoom:
        raise MissingModel("model 'nobody' does not exist: give a model folder")

    app = make_app(Desk(tmp_path, missing, work), SETTINGS)
    with TestClient(app, raise_server_exceptions=False) as client:
        for _ in range(100):
            answer = client.get("/v1/health/ready")
            if "loading" not in answer.text:
                break
            time.sleep(0.02)
        assert answer.status_code == 503
        assert "nobody" in answer.json()["reason"]
        response = client.post("/v1/predictions", json={"smiles": KNOWN})
        assert response.status_code == 503
        assert response.json()["code"] == "missing_model"


def test_one_process_owns_the_data_folder(tmp_path: Path) -> None:
    with client_of(tmp_path), pytest.raises(ValueError, match="in use by another dopaint service"):
        client_of(tmp_path)
