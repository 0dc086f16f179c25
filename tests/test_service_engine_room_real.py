"""The shipped model and CellProfiler in the engine room: packed with strangers, the bytes of a request alone."""

import hashlib
import time
from pathlib import Path

import pytest

from service.engine import load_room, predict
from service.jobs import Desk
from service.quota import Rules

MODEL = Path(__file__).resolve().parent.parent / "models" / "simulation-128"
ASPIRIN, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MODEL / "reference" / "manifest.json").is_file(), reason="no shipped model in this checkout"
    ),
    pytest.mark.timeout(1800),
]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_packed_with_others_the_bytes_are_those_of_a_request_alone(tmp_path: Path) -> None:
    asked = {"ann": (ASPIRIN, 3, 1), "bob": (CAFFEINE, 2, 7)}
    keys = {}
    with Desk(tmp_path / "data", lambda: load_room(MODEL), rules=Rules(min_free_bytes=1)) as desk:
        for owner, (smiles, draws, seed) in asked.items():
            keys[owner] = desk.submit({"smiles": [smiles], "draws": draws, "seed": seed}, owner=owner).job.id
        end = time.monotonic() + 1500
        while not all(desk.get(key).ended for key in keys.values()):
            assert time.monotonic() < end
            time.sleep(0.2)
        fill = desk.counters()["batch_fill"]
        for owner, (smiles, draws, seed) in asked.items():
            predict([smiles], model=MODEL, draws=draws, seed=seed, out=tmp_path / owner)
            assert digests(desk.folder(keys[owner])) == digests(tmp_path / owner)
    assert fill >= 10 / 16  # 10 pictures in two batches of 8; alone they would take four
