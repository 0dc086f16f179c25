"""Following a job over HTTP: events as they happen and again, cancel, delete, list, idempotency, precision."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import make_app
from service.fake import FakeRoom
from service.jobs import Desk
from service.settings import Settings
from service.views import page_link

BODY = {"smiles": ["CCCCO", "CCCCN", "not-a-smiles"], "draws": 3}


def client_of(data: Path, slow: float = 0.0) -> TestClient:
    room = FakeRoom(slow=(lambda _: time.sleep(slow)) if slow else None)
    settings = Settings(engine="fake", model="fake")
    return TestClient(make_app(Desk(data, lambda: room), settings), raise_server_exceptions=False)


def until_ready(client: TestClient) -> TestClient:
    for _ in range(600):
        if client.get("/v1/health/ready").status_code == 200:
            return client
        time.sleep(0.05)
    raise AssertionError("never ready")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(tmp_path_factory.mktemp("follow")) as client:
        yield until_ready(client)


def events(client: TestClient, key: str, after: int = 0) -> list[tuple[int | None, str, dict]]:
    text = client.get(f"/v1/predictions/{key}/events", headers={"last-event-id": str(after)}).text
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])))
    return found


def test_the_stream_tells_every_picture_and_molecule_once_and_ends(client: TestClient) -> None:
    key = client.post("/v1/predictions", json=BODY).json()["id"]
    told = events(client, key)
    pictures = [(data["row"], data["molecule"], data["draw"]) for _, kind, data in told if kind == "picture"]
    expected = {("compound", i, d) for i in (0, 1) for d in range(3)} | {("control", 0, d) for d in range(3)}
    assert sorted(pictures) == sorted(expected)
    assert all(client.get(data["picture"]).status_code == 200 for _, kind, data in told if kind == "picture")
    answered = {data["index"]: data["outcome"] for _, kind, data in told if kind == "molecule"}
    assert answered == {0: "ok", 1: "ok"}
    assert sum(kind == "molecule" for _, kind, _ in told) == 2
    assert told[-1][1:] == ("end", {"status": "done"})
    fractions = [data["progress"]["fraction"] for _, kind, data in told if kind == "progress"]
    assert fractions == sorted(fractions)
    numbers = [number for number, _, _ in told if number is not None]
    assert numbers == sorted(set(numbers))
    # A reader that lost its connection goes on where it was; one that had everything is told the end again.
    middle = numbers[len(numbers) // 2]
    assert [one for one in events(client, key, middle) if one[0]] == [one for one in told if (one[0] or 0) > middle]
    assert events(client, key, numbers[-1])[-1][1:] == ("end", {"status": "done"})


def test_molecules_are_listed_from_the_start_and_pictures_appear_while_it_runs(tmp_path: Path) -> None:
    with client_of(tmp_path, slow=0.05) as client:
        until_ready(client)
        key = client.post("/v1/predictions", json={**BODY, "draws": 40}).json()["id"]
        first = client.get(f"/v1/predictions/{key}").json()
        assert [one["index"] for one in first["molecules"]] == [0, 1, 2]
        seen: set[int] = set()
        for _ in range(400):
            status = client.get(f"/v1/predictions/{key}").json()
            answer = client.get(f"/v1/predictions/{key}/molecules/0/pictures")
            if answer.status_code == 200 and status["status"] == "running":
                ready = [one for one in answer.json()["draws"] if one["compound_ready"]]
                seen.add(len(ready))
                if ready and len(ready) < 40:
                    assert client.get(ready[0]["compound"]).status_code == 200
                    assert client.get(f"/v1/predictions/{key}/molecules/0/effects").status_code == 409
                    assert len(answer.json()["draws"]) == 40
                    break
            time.sleep(0.02)
        assert any(0 < n < 40 for n in seen)
        gone = client.post(f"/v1/predictions/{key}/cancel").json()
        assert gone["status"] == "cancelled"
        assert client.post(f"/v1/predictions/{key}/cancel").json()["status"] == "cancelled"
        assert events(client, key)[-1][1:] == ("end", {"status": "cancelled"})
        assert client.get(f"/v1/predictions/{key}/molecules/1/effects").status_code == 404
        assert client.delete(f"/v1/predictions/{key}").status_code == 204
        for path in ("", "/events", "/files.zip", "/molecules/0/pictures"):
            assert client.get(f"/v1/predictions/{key}{path}").status_code == 404
        assert client.delete(f"/v1/predictions/{key}").status_code == 404


def test_the_list_has_pages_newest_first_and_by_status(tmp_path: Path) -> None:
    with client_of(tmp_path) as client:
        until_ready(client)
        keys = [
            client.post("/v1/predictions?wait=60", json={"smiles": "CCO", "draws": 1, "seed": i}).json()["id"]
            for i in range(5)
        ]
        found, after = [], ""
        while True:
            page = client.get(f"/v1/predictions?limit=2{after}").json()
            found += [one["id"] for one in page["items"]]
            if page["next"] is None:
                break
            assert len(page["items"]) == 2
            after = f"&after={page['next']}"
        assert found == keys[::-1]
        assert client.get("/v1/predictions?status=failed").json()["items"] == []
        assert len(client.get("/v1/predictions?status=done").json()["items"]) == 5
        assert client.get("/v1/predictions?after=nonsense").status_code in (404, 422)
        assert client.get("/v1/predictions?limit=0").status_code == 422


def test_the_same_key_and_request_make_one_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "walk-1"}
    body = {"smiles": "CCCCO", "draws": 2}
    first = client.post("/v1/predictions?wait=60", json=body, headers=headers)
    again = client.post("/v1/predictions?wait=60", json=body, headers=headers)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = client.post("/v1/predictions", json={**body, "seed": 2}, headers=headers)
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_conflict"
    for bad in ("", "a b", "ü", "x" * 201):
        answer = client.post("/v1/predictions", json=body, headers={"Idempotency-Key": bad.encode()})
        assert answer.status_code == 422, bad


def test_a_wanted_precision_is_answered_with_what_was_reached(client: TestClient) -> None:
    body = {"smiles": "CCCCO", "draws": 60, "precision": {"half_width": 50.0}}
    answer = client.post("/v1/predictions?wait=60", json=body).json()
    reached = answer["molecules"][0]["predictions"]["precision"]
    assert reached["reached"] is True
    assert reached["draws"] < 60
    root = f"/v1/predictions/{answer['id']}/molecules/0"
    assert client.get(f"{root}/settling").json()["draws"][-1] == reached["draws"]
    assert client.get(f"{root}/profile").json()["rows"] == reached["draws"]
    for bad in (0, -1, 1000, "x", None):
        wrong = {**body, "precision": {"half_width": bad}}
        assert client.post("/v1/predictions", json=wrong).status_code == 422


def test_the_link_of_the_page_holds_the_request_and_nothing_else(client: TestClient) -> None:
    import base64

    answer = client.post("/v1/predictions?wait=60", json={"smiles": "CCO", "draws": 2, "seed": 9}).json()
    text = answer["links"]["page"].removeprefix("/#request=")
    asked = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert asked == {"smiles": ["CCO"], "draws": 2, "seed": 9, "control": "DMSO"}
    again = client.post("/v1/predictions?wait=60", json=asked).json()
    assert again["molecules"] == [
        {**one, "links": {k: v.replace(answer["id"], again["id"]) for k, v in one["links"].items()}}
        for one in answer["molecules"]
    ]
    assert page_link({"smiles": ["C"], "draws": 1, "seed": 1, "authorization": "secret"}) == page_link(
        {"smiles": ["C"], "draws": 1, "seed": 1}
    )


def test_only_a_list_without_any_usable_molecule_is_refused_and_that_in_bounded_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = client.post("/v1/predictions", json={"smiles": ["not-a-smiles", "CS(C)=O"], "draws": 1})
    assert bad.status_code == 422
    assert [one["reason"] for one in bad.json()["errors"]] == ["unparsable", "is_control"]
    assert [one["pointer"] for one in bad.json()["errors"]] == ["#/smiles/0", "#/smiles/1"]
    monkeypatch.setattr("service.routes_predictions.LOOK_S", -1.0)  # as if each of them had taken its full time
    late = client.post("/v1/predictions?wait=60", json={"smiles": ["not-a-smiles", "C1CC"], "draws": 1}).json()
    assert late["status"] == "done"
    assert [one["outcome"] for one in late["molecules"]] == ["invalid", "invalid"]
