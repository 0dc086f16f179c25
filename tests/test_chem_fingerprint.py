"""chem.fingerprint, chem.depict: against RDKit's own functions and hand-made cases."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from chem.depict import depict
from chem.fingerprint import fingerprint_index, morgan_bits, morgan_counts, morgan_sketch, nearest, tanimoto
from chem.molecule import standardise

SMILES = ["CCO", "CCCO", "CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O", "CN1CCC[C@H]1c1cccnc1", "C1CCCCC1"]


def test_tanimoto_is_rdkits():
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    oracle = [generator.GetFingerprint(Chem.MolFromSmiles(text)) for text in SMILES]
    ours = tanimoto(morgan_bits(SMILES), morgan_bits(SMILES))
    theirs = np.array([DataStructs.BulkTanimotoSimilarity(a, oracle) for a in oracle])
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_tanimoto_by_hand_and_of_nothing():
    a = np.array([[0b11110000], [0]], np.uint8)
    b = np.array([[0b00111100], [0]], np.uint8)
    assert tanimoto(a, b) == pytest.approx(np.array([[2 / 6, 0.0], [0.0, 0.0]]))


def test_counts_add_up_and_ignore_stereo():
    counts = morgan_counts(["CCO", "CCCCCCCCO", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"])
    assert counts.dtype == np.float32
    assert counts[0].sum() == 6  # 3 atoms: 3 environments of radius 0, 2 distinct of radius 1 kept per atom rule: 3
    assert counts[1].max() > 3
    assert np.array_equal(counts[2], counts[3])


def test_sketch_keeps_neighbours():
    sketch = morgan_sketch(SMILES, 64)
    assert sketch.shape == (6, 64)
    assert np.array_equal(sketch, morgan_sketch(SMILES, 64))
    assert not np.array_equal(sketch, morgan_sketch(SMILES, 64, seed=1))
    distance = np.linalg.norm(sketch - sketch[2], axis=1)
    assert np.argsort(distance)[1] == 3  # salicylic acid is the nearest to aspirin


def test_nearest_orders_and_breaks_ties_by_row():
    bits = morgan_bits([*SMILES, "CCO"])
    found = nearest(bits[:1], bits, 3)
    assert found.rows[0].tolist() == [0, 6, 1]
    assert found.similarity[0, :2].tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="k must lie between 1 and the 7"):
        nearest(bits[:1], bits, 8)


def test_nearest_is_a_full_sort_and_an_index_is_the_same():
    """Against a stable sort of similarities checked above, ties by row, for many k; also rows of no whole words."""
    rng = np.random.default_rng(0)
    for width in (256, 13):
        bits = np.packbits(rng.random((300, 8 * width)) < 0.05, axis=1)
        bits[7] = bits[250] = bits[3]
        bits[9] = 0
        all_pairs = tanimoto(bits[:12], bits)
        index = fingerprint_index(bits)
        assert len(index) == 300
        for k in (1, 2, 10, 300):
            order = np.argsort(-all_pairs, axis=1, kind="stable")[:, :k]
            for references in (bits, index):
                found = nearest(bits[:12], references, k)
                assert np.array_equal(found.rows, order)
                assert np.array_equal(found.similarity, np.take_along_axis(all_pairs, order, axis=1))
    with pytest.raises(ValueError, match="different lengths"):
        nearest(bits[:1], fingerprint_index(morgan_bits(SMILES)), 1)


def test_a_text_that_is_no_molecule_is_named():
    with pytest.raises(ValueError, match="'nonsense'"):
        morgan_counts(["CCO", "nonsense"])


def test_depict_is_an_svg_of_the_asked_size():
    text = depict(standardise("CC(=O)Oc1ccccc1C(=O)O"), width=300, height=200)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("width"), root.get("height")) == ("300px", "200px")
    assert text.count("bond-") >= 13
    assert depict("C[C@H](N)C(=O)O") != depict("C[C@@H](N)C(=O)O")
    with pytest.raises(ValueError, match="nonsense"):
        depict("nonsense")
    with pytest.raises(ValueError, match="20 pixels"):
        depict("CCO", width=5)
