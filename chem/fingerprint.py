"""Morgan fingerprints and nearest neighbours: SMILES -> count vectors, bit vectors -> Tanimoto similarities.

Morgan & radius: Rogers and Hahn 2010 (extended-connectivity fingerprints). Radius 2, 2,048 positions, chirality off,
so that a molecule drawn without stereo finds the one drawn with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

RADIUS = 2
SIZE = 2048


class Neighbours(NamedTuple):
    """The k nearest references of each query, nearest first: row numbers and Tanimoto similarities in [0, 1]."""

    rows: Int[np.ndarray, "n k"]
    similarity: Float[np.ndarray, "n k"]


def morgan_counts(smiles: Sequence[str]) -> Float[np.ndarray, "n 2048"]:
    """Count of each hashed circular substructure (radius 2): float32, whole numbers >= 0.

    Raises ValueError naming the first string that is not a molecule.
    """
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=SIZE)
    counts = np.zeros((len(smiles), SIZE), np.float32)
    for row, text in enumerate(smiles):
        counts[row] = generator.GetCountFingerprintAsNumPy(_mol(text))
    return counts


def morgan_bits(smiles: Sequence[str]) -> UInt8[np.ndarray, "n 256"]:
    """The same substructures as presence bits, packed eight to a byte (2,048 bits = 256 bytes a molecule)."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=SIZE)
    bits = np.zeros((len(smiles), SIZE), np.uint8)
    for row, text in enumerate(smiles):
        bits[row] = generator.GetFingerprintAsNumPy(_mol(text))
    return np.packbits(bits, axis=1)


def morgan_sketch(smiles: Sequence[str], size: int = 256, seed: int = 0) -> Float[np.ndarray, "n size"]:
    """Short dense form of the Morgan counts: float32, about unit scale after `size`-wise z-scoring.

    log(1 + count), divided by its sum over the molecule (so a share of environments, whatever the molecule's size),
    times a seeded Gaussian matrix; distances between molecules are kept about (Johnson and Lindenstrauss 1984).
    """
    weights = np.log1p(morgan_counts(smiles))
    shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    projection = np.random.default_rng(seed).normal(size=(SIZE, size)).astype(np.float32)
    return (shares @ projection).astype(np.float32)


def tanimoto(a: UInt8[np.ndarray, "n bytes"], b: UInt8[np.ndarray, "m bytes"]) -> Float[np.ndarray, "n m"]:
    """Tanimoto similarity |A and B| / |A or B| of packed bits, float32 in [0, 1]; two empty sets are 0 alike."""
    size_a = np.bitwise_count(a).sum(axis=1, dtype=np.int32)
    size_b = np.bitwise_count(b).sum(axis=1, dtype=np.int32)
    words_a, words_b = _words(a), _words(b)
    similarity = np.zeros((len(a), len(b)), np.float32)
    for row in range(len(a)):
        both = np.bitwise_count(words_a[row] & words_b).sum(axis=1, dtype=np.int32)
        either = size_a[row] + size_b - both
        np.divide(both, either, out=similarity[row], where=either > 0)
    return similarity


def nearest(queries: UInt8[np.ndarray, "n bytes"], references: UInt8[np.ndarray, "m bytes"], k: int = 10) -> Neighbours:
    """The k most similar references of each query; ties go to the lower row number.

    Raises ValueError unless 1 <= k <= number of references.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k must lie between 1 and the {len(references)} references; got {k}.")
    similarity = tanimoto(queries, references)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return Neighbours(order, np.take_along_axis(similarity, order, axis=1))


def _words(packed: UInt8[np.ndarray, "n bytes"]) -> np.ndarray:
    whole = np.ascontiguousarray(packed)
    return whole.view(np.uint64) if whole.shape[1] % 8 == 0 else whole


def _mol(text: str) -> Chem.Mol:
    mol = Chem.MolFromSmiles(text)
    if mol is None:
        raise ValueError(f"not a molecule: {text!r}; standardise it first (chem.molecule.standardise).")
    return mol
