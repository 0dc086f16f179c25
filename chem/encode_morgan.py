"""Molecules -> vectors without a network: the Morgan sketch as a conditioning vector.

The vector is `chem.fingerprint.morgan_sketch` of one molecule, so it ignores stereo. Its hash names the parameters, the
projection and the counts of three probe molecules: another way of hashing substructures is another encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from chem.fingerprint import RADIUS, SIZE, morgan_counts, morgan_sketch, projection
from chem.molecule import Molecule

MODEL_TYPE = "morgan-sketch"
PROBES = ("CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1", "O=S(=O)(N1CCOCC1)c1ccc(Cl)s1")


@dataclass(frozen=True)
class MorganEncoder:
    """Morgan counts -> `dim` numbers by the projection of `seed`."""

    dim: int = 256
    seed: int = 0
    name: str = MODEL_TYPE

    def encode(self, molecules: Sequence[Molecule] | Sequence[str], *, batch_size: int = 1) -> Float[np.ndarray, "n d"]:
        """The sketch of each molecule, float32; its bytes do not depend on the list or on `batch_size`.

        Raises ValueError naming the first string that is not a molecule.
        """
        vectors = np.zeros((len(molecules), self.dim), np.float32)
        texts = [molecule.smiles if isinstance(molecule, Molecule) else molecule for molecule in molecules]
        for row, text in enumerate(texts):
            vectors[row] = morgan_sketch([text], self.dim, self.seed)[0]
        return vectors

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all that decides a vector."""
        digest = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        digest.update(morgan_counts(PROBES).astype(np.int64).tobytes())
        digest.update(projection(self.dim, self.seed).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path | str) -> Path:
        """Write the folder that `chem.encoder.load_encoder` reads: one config.json."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(self._facts(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def from_config(facts: dict[str, Any], name: str) -> MorganEncoder:
        """From the content of config.json. Raises ValueError when it was made with other fingerprints than ours."""
        found = MorganEncoder(int(facts.get("dim", 0)), int(facts.get("seed", -1)), name)
        if facts != found._facts() or found.dim < 1 or found.seed < 0:
            raise ValueError(
                f"{name}: config.json describes another fingerprint than radius {RADIUS} and {SIZE} counts; write it "
                "again with MorganEncoder.save."
            )
        return found

    def _facts(self) -> dict[str, Any]:
        own = asdict(self)
        own.pop("name")
        return {"model_type": MODEL_TYPE, "radius": RADIUS, "counts": SIZE, **own}
