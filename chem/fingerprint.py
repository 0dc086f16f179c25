"""Morgan fingerprints and nearest neighbours: SMILES -> count vectors, bit vectors -> Tanimoto similarities.

Morgan & radius: Rogers and Hahn 2010 (extended-connectivity fingerprints). Radius 2, 2,048 positions, chirality off,
so that a molecule drawn without stereo finds the one drawn with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, UInt8, UInt64
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from chem import popcount

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
    return (shares @ projection(size, seed)).astype(np.float32)


@lru_cache(maxsize=4)
def projection(size: int, seed: int) -> Float[np.ndarray, "2048 size"]:
    """The seeded Gaussian matrix of `morgan_sketch`, float32; read only."""
    matrix = np.random.default_rng(seed).normal(size=(SIZE, size)).astype(np.float32)
    matrix.setflags(write=False)
    return matrix


@dataclass(frozen=True, eq=False)
class FingerprintIndex:
    """Packed bits made ready for many searches: rows as 64-bit words, and the ones in each."""

    words: UInt64[np.ndarray, "m w"]
    ones: Int32[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.words)


def fingerprint_index(bits: UInt8[np.ndarray, "m bytes"]) -> FingerprintIndex:
    """Index packed bits; rows are padded with zeros to whole words."""
    spare = -bits.shape[1] % 8
    padded = np.pad(bits, ((0, 0), (0, spare))) if spare else bits
    words = np.ascontiguousarray(padded).view(np.uint64)
    return FingerprintIndex(words, popcount.sizes(words))


def tanimoto(a: UInt8[np.ndarray, "n bytes"], b: UInt8[np.ndarray, "m bytes"]) -> Float[np.ndarray, "n m"]:
    """Tanimoto similarity |A and B| / |A or B| of packed bits, float32 in [0, 1]; two empty sets are 0 alike."""
    queries, references = fingerprint_index(a), fingerprint_index(b)
    similarity = np.zeros((len(queries), len(references)), np.float32)
    for row in range(len(queries)):
        _similarities(queries, row, references, similarity[row])
    return similarity


def nearest(
    queries: UInt8[np.ndarray, "n bytes"], references: UInt8[np.ndarray, "m bytes"] | FingerprintIndex, k: int = 10
) -> Neighbours:
    """The k most similar references of each query; ties go to the lower row number.

    Memory does not grow with the number of queries times references. Raises ValueError unless 1 <= k <= number of
    references.
    """
    if not 1 <= k <= len(references):
        raise ValueError(f"k must lie between 1 and the {len(references)} references; got {k}.")
    index = references if isinstance(references, FingerprintIndex) else fingerprint_index(references)
    asked = fingerprint_index(queries)
    if asked.words.shape[1] != index.words.shape[1]:
        raise ValueError("queries and references have fingerprints of different lengths; make both the same way.")
    rows = np.zeros((len(asked), k), np.int64)
    found = np.zeros((len(asked), k), np.float32)
    similarity = np.zeros(len(index), np.float32)
    for query in range(len(asked)):
        _similarities(asked, query, index, similarity)
        rows[query] = _largest(similarity, k)
        found[query] = similarity[rows[query]]
    return Neighbours(rows, found)


def _similarities(queries: FingerprintIndex, row: int, references: FingerprintIndex, out: np.ndarray) -> None:
    popcount.similarities(queries.words[row], int(queries.ones[row]), references.words, references.ones, out)


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest values, largest first, equal ones by place."""
    least = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: k - len(above)]
    chosen = np.concatenate([above, equal])
    return chosen[np.lexsort((chosen, -values[chosen]))]


def _mol(text: str) -> Chem.Mol:
    mol = Chem.MolFromSmiles(text)
    if mol is None:
        raise ValueError(f"not a molecule: {text!r}; standardise it first (chem.molecule.standardise).")
    return mol
