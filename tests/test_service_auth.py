"""Keys in front of the whole service: everybody sees their own jobs only, quotas hold, links read one job."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from service.app import make_app
from service.client import Client, Refused
from service.errors import InvalidRequest
from service.fake import FakeRoom
from service.jobs import Desk
from service.keys import Keys
from service.serve import bound, check_open, tls_of, url_of
from service.settings import InvalidSettings, Settings, from_table

Headers = dict[str, str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Headers, Headers, Keys]]:
    data = tmp_path_factory.mktemp("auth")
    keys = Keys(data / "keys.json")
    _, ann = keys.add("ann", per_minute=0)
    _, bob = keys.add("bob", per_minute=0, pictures_a_day=20)
    settings = Settings(engine="fake", model="fake", auth="required")
    with TestClient(make_app(Desk(data, FakeRoom), settings), raise_server_exceptions=False) as client:
        for _ in range(600):
            if client.get("/v1/health/ready").status_code == 200:
                break
            time.sleep(0.05)
        yield client, {"authorization": f"Bearer {ann}"}, {"authorization": f"Bearer {bob}"}, keys


class Through(httpx.BaseTransport):
    """Takes the requests of our client to the application in this process."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._client.request(
            request.method, str(request.url), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)


def ask(client: TestClient, headers: Headers, **body: object) -> dict:
    answer = client.post("/v1/predictions?wait=60", json={"smiles": "CCCCO", "draws": 2, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_without_a_key_only_the_page_and_the_health_are_open(served: tuple[TestClient, Headers, Headers, Keys]) -> None:
    client = served[0]
    for path in ("/", "/v1/health/live", "/v1/health/ready", "/v1/version", "/v1/openapi.json"):
        assert client.get(path).status_code == 200, path
    assert client.get("/v1/version").json()["auth"] == "required"
    document = client.get("/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            address = path.replace("{key}", "x").replace("{index}", "0").replace("{draw}", "0")
            address = address.replace("{row}", "compound").replace("{path}", ".zattrs")
            status = client.request(method, address).status_code
            assert (status == 401) == (operation["security"] == [{"key": []}]), (method, path, status)


def test_nobody_sees_the_jobs_of_another(served: tuple[TestClient, Headers, Headers, Keys]) -> None:
    client, ann, bob, _ = served
    key = ask(client, ann)["id"]
    root = f"/v1/predictions/{key}"
    paths = ["", "/events", "/files.zip"]
    paths += [f"/molecules/0/{name}" for name in ("pictures", "pictures/0", "grid", "heatmap", "settling", "effects")]
    paths += ["/molecules/0/compound.zarr/.zattrs"]
    for path in paths:
        assert client.get(root + path, headers=ann).status_code == 200, path
        assert client.get(root + path, headers=bob).status_code == 404, path
    for method, path in (("POST", "/cancel"), ("DELETE", ""), ("POST", "/links")):
        body = {"resource": "zip"} if path == "/links" else None
        assert client.request(method, root + path, headers=bob, json=body).status_code == 404, path
    assert key not in client.get("/v1/predictions", headers=bob).text
    assert key in client.get("/v1/predictions", headers=ann).text
    same = {"Idempotency-Key": "shared"}
    first, second = ask(client, {**ann, **same}), ask(client, {**bob, **same})
    assert first["id"] != second["id"], "an idempotency key is its owner's"


def test_a_quota_of_pictures_counts_what_was_queued(served: tuple[TestClient, Headers, Headers, Keys]) -> None:
    client, _, _, keys = served
    _, text = keys.add("carl", per_minute=0, pictures_a_day=10)
    carl = {"authorization": f"Bearer {text}"}
    ask(client, {**carl, "Idempotency-Key": "1"})  # 2 draws of the compound and the control
    ask(client, {**carl, "Idempotency-Key": "1"})  # replayed: nothing new
    ask(client, carl)
    refused = client.post("/v1/predictions", json={"smiles": "CCO", "draws": 2}, headers=carl)
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many"
    assert "2 of 10 a day are left" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) > 0
    ask(client, carl, draws=1)


def test_a_signed_link_reads_one_job_until_its_key_is_revoked(
    served: tuple[TestClient, Headers, Headers, Keys],
) -> None:
    client, ann, _, keys = served
    _, text = keys.add("dora", per_minute=0)
    dora = {"authorization": f"Bearer {text}"}
    mine, other = ask(client, dora)["id"], ask(client, ann)["id"]
    link = client.post(f"/v1/predictions/{mine}/links", json={}, headers=dora).json()
    assert text not in str(link)
    for path in ("molecules/0/pictures/0", "files.zip", "events", "molecules/0/control.zarr/0/.zarray"):
        assert client.get(f"{link['prefix']}/v1/predictions/{mine}/{path}").status_code == 200, path
        assert client.get(f"{link['prefix']}/v1/predictions/{other}/{path}").status_code == 404, path
    assert client.get(f"{link['prefix']}/v1/predictions").status_code == 404
    assert client.post(f"{link['prefix']}/v1/predictions/{mine}/cancel").status_code in (403, 404)
    keys.revoke("dora")
    assert client.get(f"{link['prefix']}/v1/predictions/{mine}/files.zip").status_code == 404


def test_the_client_sends_its_key_and_follows_a_job(served: tuple[TestClient, Headers, Headers, Keys]) -> None:
    client, ann, _, _ = served
    with Client("http://testserver/", transport=Through(client)) as nobody, pytest.raises(Refused) as caught:
        nobody.submit("CCO")
    assert caught.value.status == 401
    key = ann["authorization"].removeprefix("Bearer ")
    with Client("http://testserver/", key=key, transport=Through(client)) as mine:
        job = mine.submit("CCCCN", draws=2, idempotency_key="client", half_width=100.0)
        assert mine.submit("CCCCN", draws=2, idempotency_key="client", half_width=100.0) == job
        happened = list(mine.events(job))
        assert happened[-1].kind == "end"
        assert {one.kind for one in happened} == {"progress", "picture", "molecule", "end"}
        assert job in [one["id"] for one in mine.all(page=1)]
        assert mine.molecule("CCO")["smiles"] == "CCO"
        assert mine.link(job)["prefix"].startswith("/s/files.")
        assert mine.cancel(job)["status"] == "done"
        mine.delete(job)
        with pytest.raises(Refused, match="404"):
            mine.get(job)


# ----------------------------------------------------------------------------------------------------------------------
# Starting.


def test_beyond_loopback_a_key_must_exist_before_anything_listens(tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", data=str(tmp_path))
    with pytest.raises(InvalidRequest, match="dopaint keys add"):
        check_open(settings)
    keys = Keys(tmp_path / "keys.json")
    keys.add("lab")
    check_open(settings)
    keys.revoke("lab")
    with pytest.raises(InvalidRequest, match="there is none"):
        check_open(settings)
    check_open(Settings(data=str(tmp_path)))


def test_keys_cannot_be_switched_off_beyond_loopback(tmp_path: Path) -> None:
    desk = Desk(tmp_path, FakeRoom)
    app = make_app(desk, Settings(host="0.0.0.0", auth="auto"))
    assert app.state.doors.auth
    with pytest.raises(InvalidSettings, match="auth"):
        Settings(auth="off")


def test_tls_needs_both_files_and_changes_the_address(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="belong together"):
        Settings(tls_cert="x")
    (tmp_path / "c").touch()
    with pytest.raises(InvalidRequest, match="tls_key"):
        tls_of(Settings(tls_cert=str(tmp_path / "c"), tls_key=str(tmp_path / "k")))
    (tmp_path / "k").touch()
    settings = Settings(port=0, tls_cert=str(tmp_path / "c"), tls_key=str(tmp_path / "k"))
    assert set(tls_of(settings)) == {"ssl_certfile", "ssl_keyfile"}
    with bound(settings) as made:
        assert url_of(settings, made).startswith("https://127.0.0.1:")


def test_origins_are_origins() -> None:
    assert from_table({"picture_origins": ["https://viewer.example"]}).picture_origins == ("https://viewer.example",)
    for bad in ("*", "viewer.example", "https://viewer.example/path", "null"):
        with pytest.raises(InvalidSettings, match="picture_origins"):
            from_table({"picture_origins": [bad]})
