"""Applicability domain: is a molecule like those that a model was trained on? In, edge or out, with the evidence.

First version, by structure alone: the class follows from the largest Tanimoto similarity (Morgan bits, radius 2) to a
training compound, by two stated thresholds. They are fixed by convention, not learned from errors of a model, and every
answer says so (`basis`).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from chem.fingerprint import morgan_bits, nearest
from chem.molecule import Molecule, block_of

IN_FROM = 0.50  # nearest training compound at least this similar: an analogue
EDGE_FROM = 0.30  # below this, Morgan neighbours are hardly better than chance pairs
BASIS = (
    f"Tanimoto to the nearest training compound: in from {IN_FROM:.2f}, edge from {EDGE_FROM:.2f}; fixed, not learned"
)


class Domain(enum.StrEnum):
    """How far a molecule lies from the training compounds."""

    IN = "in"
    EDGE = "edge"
    OUT = "out"


@dataclass(frozen=True)
class Applicability:
    """Verdict for one molecule: `seen` (first InChIKey block in training), and the nearest training compounds."""

    domain: Domain
    seen: bool
    nearest_inchikeys: tuple[str, ...]
    nearest_tanimoto: tuple[float, ...]
    basis: str = BASIS

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "domain": self.domain.value,
            "seen_in_training": self.seen,
            "nearest": [
                {"inchikey": key, "tanimoto": round(value, 4)}
                for key, value in zip(self.nearest_inchikeys, self.nearest_tanimoto, strict=True)
            ],
            "basis": self.basis,
        }


@dataclass(frozen=True)
class TrainingCompounds:
    """The compounds a model was trained on: InChIKeys, their first blocks, packed Morgan bits [m 256]."""

    inchikeys: tuple[str, ...]
    blocks: frozenset[str]
    bits: UInt8[np.ndarray, "m 256"]


def training_compounds(inchikeys: Sequence[str], smiles: Sequence[str]) -> TrainingCompounds:
    """Index the training compounds of a model. Raises ValueError when there are none or the lengths differ."""
    if not inchikeys or len(inchikeys) != len(smiles):
        raise ValueError(
            f"{len(inchikeys)} InChIKeys and {len(smiles)} SMILES of training compounds; expected as many, at least 1."
        )
    return TrainingCompounds(tuple(inchikeys), frozenset(map(block_of, inchikeys)), morgan_bits(list(smiles)))


def applicability(molecule: Molecule, training: TrainingCompounds, k: int = 3) -> Applicability:
    """Place one standardised molecule; a compound of the training set is always `in`."""
    found = nearest(morgan_bits([molecule.smiles]), training.bits, min(k, len(training.inchikeys)))
    similarity = tuple(float(value) for value in found.similarity[0])
    seen = molecule.block in training.blocks
    if seen or similarity[0] >= IN_FROM:
        domain = Domain.IN
    else:
        domain = Domain.EDGE if similarity[0] >= EDGE_FROM else Domain.OUT
    keys = tuple(training.inchikeys[int(row)] for row in found.rows[0])
    return Applicability(domain, seen, keys, similarity)
