"""Molecules to vectors. A SMILES comes in; out go a standardised `Molecule` or one named refusal, its vector from a T5
encoder (MolT5 or the shipped small one), Morgan fingerprints and neighbours, its place in a model's applicability
domain, seen / unseen splits, the compound library of the simulated world, and an SVG drawing. Nothing here knows of
pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chem.depict import depict
from chem.domain import Applicability, Domain, TrainingCompounds, applicability, training_compounds
from chem.fingerprint import Neighbours, morgan_bits, morgan_counts, nearest, tanimoto
from chem.library import LibraryError, load_library
from chem.molecule import InvalidSmiles, Molecule, Reason, standardise
from chem.split import SplitError, check_split, choose_unseen, scaffold

if TYPE_CHECKING:
    from chem.encoder import ENCODERS, Encoder, EncoderError, load_encoder

__all__ = [
    "ENCODERS",
    "Applicability",
    "Domain",
    "Encoder",
    "EncoderError",
    "InvalidSmiles",
    "LibraryError",
    "Molecule",
    "Neighbours",
    "Reason",
    "SplitError",
    "TrainingCompounds",
    "applicability",
    "check_split",
    "choose_unseen",
    "depict",
    "load_encoder",
    "load_library",
    "morgan_bits",
    "morgan_counts",
    "nearest",
    "scaffold",
    "standardise",
    "tanimoto",
    "training_compounds",
]


def __getattr__(name: str) -> Any:
    """The encoder's names import torch and transformers, which reading a SMILES does not need: only on first use."""
    if name in {"ENCODERS", "Encoder", "EncoderError", "load_encoder"}:
        from chem import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module 'chem' has no attribute {name!r}")
