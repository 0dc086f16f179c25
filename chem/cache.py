"""Vectors on disk, one SQLite file: computed once for an encoder and a molecule, shared by processes, safe to kill.

The key is (encoder hash, InChIKey) and, because tautomers share an InChIKey and are encoded differently, the SMILES.
Every write is one transaction: an interrupted process leaves whole vectors or none, and what it had written stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float

from chem.molecule import Molecule
from chem.vector import Encoder, EncoderError

BLOCK = 256  # molecules encoded between two writes: what an interruption costs at most
WAIT_S = 120.0  # for another writer
_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT, inchikey TEXT, smiles TEXT, vector BLOB NOT NULL, "
    "PRIMARY KEY (encoder, inchikey, smiles)) WITHOUT ROWID"
)
_FIND = "SELECT vector FROM vectors WHERE encoder = ? AND inchikey = ? AND smiles = ?"
_KEEP = "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)"


class VectorCache:
    """The file at `path`, made when missing. Any number of processes and threads may use it at once.

    Raises `EncoderError` when the file is no cache of ours or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            connection.execute(_TABLE)

    def get(self, encoder: str, molecules: Sequence[Molecule], dim: int) -> dict[Molecule, Float[np.ndarray, " d"]]:
        """The vectors that are there, of the encoder with this hash; a damaged one counts as missing."""
        found: dict[Molecule, np.ndarray] = {}
        with self._open() as connection:
            for molecule in molecules:
                row = connection.execute(_FIND, (encoder, molecule.inchikey, molecule.smiles)).fetchone()
                if row is not None and len(row[0]) == 4 * dim:
                    found[molecule] = np.frombuffer(row[0], "<f4").astype(np.float32)
        return found

    def put(self, encoder: str, molecules: Sequence[Molecule], vectors: Float[np.ndarray, "n d"]) -> None:
        """Keep vectors, float32, in one transaction; what is there already stays as it is."""
        rows = [
            (encoder, molecule.inchikey, molecule.smiles, np.asarray(vector, "<f4").tobytes())
            for molecule, vector in zip(molecules, vectors, strict=True)
        ]
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_KEEP, rows)
            connection.execute("COMMIT")

    def __len__(self) -> int:
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            yield connection
        except sqlite3.Error as error:
            raise EncoderError(
                f"the vector cache {self.path} cannot be used ({error}); delete the file or name another one."
            ) from error
        finally:
            if connection is not None:
                connection.close()


def encode_cached(
    encoder: Encoder, molecules: Sequence[Molecule], cache: VectorCache, *, batch_size: int = 1
) -> Float[np.ndarray, "n d"]:
    """`encoder.encode` with what the cache knows; what it does not is encoded, each molecule once, and kept.

    With `batch_size` 1 the bytes are those without a cache; larger batches agree within float32 rounding.
    """
    plain = [Molecule(molecule.smiles, molecule.inchikey) for molecule in molecules]
    distinct = list(dict.fromkeys(plain))
    found = cache.get(encoder.hash, distinct, encoder.dim)
    missing = [molecule for molecule in distinct if molecule not in found]
    for start in range(0, len(missing), BLOCK):
        some = missing[start : start + BLOCK]
        vectors = encoder.encode(some, batch_size=batch_size)
        cache.put(encoder.hash, some, vectors)
        found.update(zip(some, vectors, strict=True))
    return np.stack([found[molecule] for molecule in plain]) if plain else np.zeros((0, encoder.dim), np.float32)
