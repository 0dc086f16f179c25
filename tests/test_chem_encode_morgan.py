"""chem.encode_morgan: the Morgan sketch through the same door as T5, and the door itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from chem.encode_morgan import MorganEncoder
from chem.encoder import ENCODERS, MORGAN, Encoder, EncoderError, load_encoder
from chem.fingerprint import morgan_sketch
from chem.molecule import standardise

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1"]


def test_it_is_the_sketch_with_the_same_bytes_in_any_list():
    encoder = load_encoder(MORGAN)
    assert MORGAN in ENCODERS
    assert isinstance(encoder, Encoder)
    assert (encoder.dim, encoder.name, len(encoder.hash)) == (256, MORGAN, 64)
    vectors = encoder.encode(SMILES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, morgan_sketch(SMILES), rtol=1e-5, atol=1e-6)  # another order of sums
    alone = np.stack([encoder.encode([standardise(text)], batch_size=4)[0] for text in SMILES[::-1]])
    assert np.array_equal(vectors, alone[::-1])
    assert encoder.encode([]).shape == (0, 256)


def test_a_folder_holds_it_and_other_fingerprints_are_refused(tmp_path: Path):
    encoder = MorganEncoder(64, seed=3)
    again = load_encoder(encoder.save(tmp_path / "encoder"))
    assert again.hash == encoder.hash
    assert np.array_equal(again.encode(SMILES), encoder.encode(SMILES))
    assert len({encoder.hash, MorganEncoder(64).hash, MorganEncoder(32, 3).hash}) == 3
    path = tmp_path / "encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"radius": 3}))
    with pytest.raises(EncoderError, match="another fingerprint than radius 2"):
        load_encoder(path.parent)
    path.write_text("{")
    with pytest.raises(EncoderError, match="not JSON"):
        load_encoder(path.parent)


def test_a_text_that_is_no_molecule_is_named():
    with pytest.raises(ValueError, match="'nonsense'"):
        load_encoder(MORGAN).encode(["CCO", "nonsense"])
