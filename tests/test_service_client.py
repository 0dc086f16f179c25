"""The typed client against a real server on the loopback, with a fake machine room behind it; and the facade."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

import dopaint
from service.app import make_app
from service.client import Client, Refused
from service.fake import FakeRoom
from service.jobs import Desk
from service.serve import bound, url_of, work
from service.settings import Settings

ROOM = FakeRoom()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    settings = Settings(port=0)
    desk = Desk(tmp_path_factory.mktemp("data"), lambda: ROOM, work)
    server = uvicorn.Server(uvicorn.Config(make_app(desk, settings), log_level="error"))
    with bound(settings) as made:
        thread = threading.Thread(target=lambda: server.run(sockets=[made]))
        thread.start()
        with Client(url_of(settings, made)) as client:
            client.wait_until_ready()
            yield client
        server.should_exit = True
        thread.join()


def test_predict_and_look_at_the_pictures(client: Client) -> None:
    answer = client.predict(["CCCCO"], draws=2)
    assert answer["molecules"][0]["predictions"]["moa"]["ranking"][0]["label"] == "alpha"
    assert client.picture(answer["id"], 0, 0, row="control", channel="DNA").startswith(b"\x89PNG")
    assert client.effects(answer["id"], 0)["rows"] == 40
    assert client.version()["evidence"] == "simulation"
    assert client.ready()


def test_a_refusal_comes_back_in_parts(client: Client) -> None:
    with pytest.raises(Refused, match="unparsable") as caught:
        client.submit("not-a-smiles")
    assert caught.value.status == 422
    assert caught.value.code == "invalid_smiles"
    assert caught.value.errors[0]["position"] == 3


def test_no_service_no_answer() -> None:
    with Client("http://127.0.0.1:9/") as client:
        assert not client.ready()
        with pytest.raises(Refused, match="no answer"):
            client.wait_until_ready(0.2)


def test_the_facade_predicts_like_the_service(client: Client, tmp_path: Path) -> None:
    (outcome,) = dopaint.predict("CCCCO", model=ROOM, design=dopaint.Design(draws=2), out=tmp_path)
    assert outcome.answer == client.predict("CCCCO", draws=2)["molecules"][0]["predictions"]
    assert (tmp_path / outcome.folder / "pictures" / "draw_0001.png").is_file()


def test_a_design_is_a_table_of_pictures() -> None:
    table = dopaint.Design(draws=3, seed=7).table(["A", "B"], ROOM)
    assert table["compound"].tolist() == ["A", "B"] * 3
    assert table.groupby("draw")["seed"].nunique().tolist() == [1, 1, 1]


def test_what_is_public() -> None:
    assert dopaint.__all__ == ["Client", "Design", "Refused", "__version__", "load", "predict"]
