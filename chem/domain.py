"""Applicability domain: is a molecule like those that a model was trained on? In, edge or out, with the evidence.

Evidence: in training or not (first InChIKey block), the nearest training compounds (Tanimoto, Morgan bits of radius 2),
whether its ring scaffold was trained on, and how dense the training compounds lie around it in the encoder's space. The
class follows from a score of similarity and density by two thresholds, learned from the errors that a model makes on
held-out compounds (`chem.domain_fit`) and stored beside the model. Without them the class follows from the similarity
alone, by convention, and every answer says so (`basis`).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from chem.fingerprint import FingerprintIndex, fingerprint_index, morgan_bits, nearest
from chem.molecule import Molecule, block_of
from chem.split import scaffold

IN_FROM = 0.50  # nearest training compound at least this similar: an analogue
EDGE_FROM = 0.30  # below this, Morgan neighbours are hardly better than chance pairs
NEAREST = 5  # training vectors whose mean distance is the density
DOMAIN_FILE = "domain.json"
VECTORS_FILE = "domain.safetensors"


class DomainError(ValueError):
    """A domain that cannot be learned, read or used as asked."""


class Domain(enum.StrEnum):
    """How far a molecule lies from the training compounds."""

    IN = "in"
    EDGE = "edge"
    OUT = "out"


@dataclass(frozen=True)
class DomainModel:
    """How the class follows from the evidence, and what was found when that was learned.

    score = (1 - weight) * similarity + weight * density, both in [0, 1]; in from `in_from`, edge from `edge_from`.
    `errors` holds mean error, its 95 % interval and the number of held-out compounds of each class, cross-fitted.
    """

    weight: float = 0.0
    in_from: float = IN_FROM
    edge_from: float = EDGE_FROM
    learned: bool = False
    basis: str = (
        f"Tanimoto to the nearest training compound: in from {IN_FROM:.2f}, edge from {EDGE_FROM:.2f}; fixed, not "
        "learned"
    )
    error: str = ""
    compounds: int = 0
    p: float = 1.0
    errors: dict[str, dict[str, float]] = field(default_factory=dict)

    def score(self, similarity: float, density: float) -> float:
        """The score of one molecule. Raises `DomainError` when a density is needed and there is none."""
        if self.weight and not np.isfinite(density):
            raise DomainError("this domain was learned with the density in encoder space; give the molecule's vector.")
        return (1.0 - self.weight) * similarity + (self.weight * density if self.weight else 0.0)

    def classify(self, similarity: float, density: float) -> Domain:
        """In, edge or out."""
        score = self.score(similarity, density)
        return Domain.IN if score >= self.in_from else Domain.EDGE if score >= self.edge_from else Domain.OUT

    def write(self, folder: Path) -> Path:
        """Write domain.json into a model's folder."""
        path = folder / DOMAIN_FILE
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return path

    @staticmethod
    def read(folder: Path) -> DomainModel:
        """From a model's folder; the fixed thresholds when it has no domain.json. Raises `DomainError`."""
        path = folder / DOMAIN_FILE
        if not path.is_file():
            return DomainModel()
        try:
            return DomainModel(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise DomainError(f"{path} is no domain of ours ({error}); learn it again.") from error


@dataclass(frozen=True, eq=False)
class EncoderSpace:
    """The training compounds in the encoder's space: z-scored vectors [m d], and each one's distance to its nearest."""

    mean: Float[np.ndarray, " d"]
    deviation: Float[np.ndarray, " d"]
    vectors: Float[np.ndarray, "m d"]
    distances: Float[np.ndarray, " m"]

    def density(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Share of training compounds that lie lonelier than each molecule, in [0, 1]: 0 is further out than any.

        Lonely: by the mean distance to the 5 nearest training vectors (a compound itself does not count).
        """
        scaled = ((vectors - self.mean) / self.deviation).astype(np.float32)
        lonely = _mean_distance(scaled, self.vectors)
        order = np.sort(self.distances)
        return 1.0 - np.searchsorted(order, lonely, side="left") / len(order)


def encoder_space(vectors: Float[np.ndarray, "m d"]) -> EncoderSpace:
    """Of the training compounds' vectors. Raises `DomainError` for fewer than 6."""
    if len(vectors) <= NEAREST:
        raise DomainError(f"{len(vectors)} training vectors; expected more than {NEAREST}.")
    mean, deviation = vectors.mean(0), vectors.std(0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)
    scaled = ((vectors - mean) / deviation).astype(np.float32)
    return EncoderSpace(mean.astype(np.float32), deviation, scaled, _mean_distance(scaled, scaled))


def _mean_distance(queries: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Mean Euclidean distance to the nearest training rows, without rows at distance 0 (the compound itself)."""
    squares = (training**2).sum(1)
    found = np.empty(len(queries), np.float64)
    for row, query in enumerate(queries):
        squared = np.maximum(squares - 2.0 * (training @ query) + (query**2).sum(), 0.0)
        least = np.sort(squared)[: NEAREST + 1]
        own = least[0] <= 1e-4 * max(1.0, float((query**2).sum()))
        found[row] = np.sqrt(least[1:] if own else least[:NEAREST]).mean()
    return found


@dataclass(frozen=True)
class Applicability:
    """Verdict for one molecule: `seen` (first InChIKey block in training), the evidence, and what it rests on.

    `density` is NaN where the model has no encoder space; `expected_error` is the held-out error of the class, NaN
    where none was learned.
    """

    domain: Domain
    seen: bool
    nearest_inchikeys: tuple[str, ...]
    nearest_tanimoto: tuple[float, ...]
    scaffold_seen: bool
    density: float
    score: float
    expected_error: float
    basis: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; null where there is no number."""
        return {
            "domain": self.domain.value,
            "seen_in_training": self.seen,
            "nearest": [
                {"inchikey": key, "tanimoto": round(value, 4)}
                for key, value in zip(self.nearest_inchikeys, self.nearest_tanimoto, strict=True)
            ],
            "scaffold_in_training": self.scaffold_seen,
            "density": _rounded(self.density),
            "score": _rounded(self.score),
            "expected_error": _rounded(self.expected_error),
            "basis": self.basis,
        }


@dataclass(frozen=True, eq=False)
class TrainingCompounds:
    """The compounds a model was trained on: InChIKeys, their first blocks, ring scaffolds, fingerprints."""

    inchikeys: tuple[str, ...]
    blocks: frozenset[str]
    scaffolds: frozenset[str]
    index: FingerprintIndex


def training_compounds(inchikeys: Sequence[str], smiles: Sequence[str]) -> TrainingCompounds:
    """Index the training compounds of a model. Raises ValueError when there are none or the lengths differ."""
    if not inchikeys or len(inchikeys) != len(smiles):
        raise DomainError(
            f"{len(inchikeys)} InChIKeys and {len(smiles)} SMILES of training compounds; expected as many, at least 1."
        )
    bits = morgan_bits(list(smiles))
    frames = frozenset(scaffold(text) for text in smiles) - {""}
    return TrainingCompounds(tuple(inchikeys), frozenset(map(block_of, inchikeys)), frames, fingerprint_index(bits))


def applicability(
    molecule: Molecule,
    training: TrainingCompounds,
    k: int = 3,
    model: DomainModel | None = None,
    density: float = float("nan"),
) -> Applicability:
    """Place one standardised molecule; a compound of the training set is always `in`.

    `density` is `EncoderSpace.density` of its vector; a model that was learned with it needs it. An acyclic molecule
    has no scaffold of its own, so none that is new.
    """
    model = model or DomainModel()
    found = nearest(morgan_bits([molecule.smiles]), training.index, min(k, len(training.inchikeys)))
    similarity = tuple(float(value) for value in found.similarity[0])
    seen = molecule.block in training.blocks
    domain = Domain.IN if seen else model.classify(similarity[0], density)
    frame = scaffold(molecule.smiles)
    return Applicability(
        domain=domain,
        seen=seen,
        nearest_inchikeys=tuple(training.inchikeys[int(row)] for row in found.rows[0]),
        nearest_tanimoto=similarity,
        scaffold_seen=frame in training.scaffolds or not frame,
        density=density,
        score=model.score(similarity[0], density) if not model.weight or np.isfinite(density) else float("nan"),
        expected_error=float(model.errors.get(domain.value, {}).get("mean", float("nan")))
        if not seen
        else float("nan"),
        basis=model.basis,
    )


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
