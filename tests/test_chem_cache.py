"""chem.cache: vectors survive a killed writer, many writers at once, and tautomers that share an InChIKey."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from chem.cache import VectorCache, encode_cached
from chem.molecule import Molecule, standardise
from chem.vector import EncoderError

WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from chem import cache
from chem.molecule import Molecule

class Slow:
    name, hash, dim = "slow", "h", 2
    def encode(self, molecules, *, batch_size=1):
        time.sleep(0.02)
        return np.array([[len(m.smiles), m.smiles.count("O")] for m in molecules], np.float32)

cache.BLOCK = 4
first, last = int(sys.argv[2]), int(sys.argv[3])
some = [Molecule("C" * n + "O", f"KEY-{n}") for n in range(first, last)]
cache.encode_cached(Slow(), some, cache.VectorCache(Path(sys.argv[1])))
"""


class Counting:
    """An encoder that counts what it is asked."""

    name, hash, dim = "counting", "h", 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, molecules, *, batch_size: int = 1) -> np.ndarray:
        self.asked += [molecule.smiles for molecule in molecules]
        return np.array([[len(m.smiles), m.smiles.count("O")] for m in molecules], np.float32).reshape(-1, 2)


def _writer(path: Path, first: int, last: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first), str(last)])


def test_a_molecule_is_encoded_once(tmp_path: Path):
    cache, encoder = VectorCache(tmp_path / "deep" / "v.sqlite"), Counting()
    some = [standardise(text) for text in ("CCO", "OCC", "CCC", "CC(=O)O[Na]")]
    first = encode_cached(encoder, some, cache)
    assert encoder.asked == ["CCO", "CCC", "CC(=O)O"]
    assert first.tolist() == [[3, 1], [3, 1], [3, 0], [7, 2]]
    assert np.array_equal(encode_cached(encoder, some[::-1], VectorCache(cache.path)), first[::-1])
    assert len(encoder.asked) == len(cache) == 3
    assert encode_cached(encoder, [], cache).shape == (0, 2)


def test_another_encoder_and_a_tautomer_are_other_entries(tmp_path: Path):
    cache, encoder = VectorCache(tmp_path / "v.sqlite"), Counting()
    keto, enol = Molecule("Oc1ccccn1", "SAME"), Molecule("O=c1cccc[nH]1", "SAME")
    assert encode_cached(encoder, [keto, enol], cache).tolist() == [[9, 1], [13, 1]]
    encoder.hash = "other"
    encode_cached(encoder, [keto], cache)
    assert len(encoder.asked) == len(cache) == 3


def test_a_damaged_vector_is_made_again(tmp_path: Path):
    cache, encoder = VectorCache(tmp_path / "v.sqlite"), Counting()
    one = standardise("CCO")
    cache.put("h", [one], np.zeros((1, 7), np.float32))
    assert encode_cached(encoder, [one], cache).tolist() == [[3, 1]]


def test_writers_at_once_and_one_of_them_killed(tmp_path: Path):
    """The killed one leaves whole vectors, and no lock that stops the others."""
    path = tmp_path / "v.sqlite"
    cache = VectorCache(path)
    doomed, *others = [_writer(path, 1, 3000), _writer(path, 1, 60), _writer(path, 30, 90)]
    try:
        while len(cache) < 8:
            time.sleep(0.05)
    finally:
        doomed.kill()
        doomed.wait()
        codes = [process.wait() for process in others]
    assert codes == [0, 0]
    some = [Molecule("C" * n + "O", f"KEY-{n}") for n in range(1, 90)]
    kept = cache.get("h", some, 2)
    assert [kept[molecule].tolist() for molecule in some] == [[n + 1, 1] for n in range(1, 90)]


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path):
    (tmp_path / "v.sqlite").write_text("not a database, but long enough to look at" * 50)
    with pytest.raises(EncoderError, match="delete the file"):
        VectorCache(tmp_path / "v.sqlite")
