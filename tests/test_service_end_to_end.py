"""The shipped model, the real CellProfiler, the whole way: a SMILES in, the same bytes out, alone and in a list."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from service.engine import predict
from service.library import library
from service.request import OK, OUT_OF_DOMAIN, Outcome

MODEL = Path(__file__).resolve().parent.parent / "models" / "simulation-128"
ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
AMG900 = "Cc1csc(-c2nnc(Nc3ccc(Oc4ncccc4-c4ccnc(N)n4)cc3)c3ccccc23)c1"

pytestmark = [
    pytest.mark.skipif(
        not (MODEL / "reference" / "manifest.json").is_file(), reason="no shipped model in this checkout"
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    out = tmp_path_factory.mktemp("listed")
    return out, predict([AMG900, ASPIRIN], model=MODEL, draws=3, seed=1, out=out)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_known_drug_is_ranked_with_chance_interval_and_evidence(listed: tuple[Path, list[Outcome]]) -> None:
    out, (known, _) = listed
    assert known.outcome == OK, known.sentence
    assert known.answer is not None
    best = known.answer["moa"]["ranking"][0]
    assert best["chance"] is not None
    assert 0 < best["p"] <= 1
    assert best["compounds"]
    assert known.answer["evidence"] == "simulation"
    assert known.answer["domain"]["seen_in_training"]
    labels = {one["label"] for one in known.answer["moa"]["ranking"]}
    assert labels <= set(library()["moa"])
    assert len(labels) >= 16
    profiles = pd.read_parquet(out / known.folder / "profiles.parquet")
    assert (profiles["Metadata_Outcome"] == "ok").any()
    assert profiles.filter(regex="^(Nuclei|Cells|Cytoplasm)_").shape[1] > 500
    with Image.open(out / known.folder / "pictures" / "draw_0000.png") as picture:
        assert picture.size == (128, 128)
    assert json.loads((out / "request.json").read_text())["evidence"] == "simulation"


def test_outside_the_simulated_library_nothing_is_called(listed: tuple[Path, list[Outcome]]) -> None:
    out, (_, aspirin) = listed
    if library()["smiles"].eq(ASPIRIN).any():
        assert aspirin.outcome == OK
        return
    assert aspirin.outcome == OUT_OF_DOMAIN
    assert aspirin.answer is not None
    assert aspirin.answer["moa"]["ranking"] == []
    assert (out / aspirin.folder / "effects.parquet").is_file()


def test_alone_in_another_process_room_the_bytes_are_the_same(
    listed: tuple[Path, list[Outcome]], tmp_path: Path
) -> None:
    out, (_, aspirin) = listed
    (alone,) = predict([ASPIRIN], model=MODEL, draws=3, seed=1, out=tmp_path)
    assert digests(tmp_path / alone.folder) == digests(out / aspirin.folder)
    assert digests(tmp_path / "control") == digests(out / "control")
