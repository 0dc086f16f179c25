"""Molecules to vectors. A SMILES comes in; out go a standardised `Molecule` or one named refusal, its vector from a T5
encoder (MolT5 or the shipped small one) or from Morgan fingerprints, neighbours, its place in a model's applicability
domain, seen / unseen splits, the compound library of the simulated world, and an SVG drawing. Nothing here knows of
pictures.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chem.depict import depict  # here, because the name is also the file's

if TYPE_CHECKING:
    from chem.bounded import Answer, Standardiser, standardise_within
    from chem.cache import VectorCache, encode_cached
    from chem.domain import Applicability, Domain, DomainModel, TrainingCompounds, applicability, training_compounds
    from chem.domain_fit import fit_domain
    from chem.encoder import ENCODERS, Encoder, EncoderError, load_encoder
    from chem.fingerprint import FingerprintIndex, Neighbours, morgan_bits, morgan_counts, nearest, tanimoto
    from chem.library import LibraryError, load_library
    from chem.molecule import InvalidSmiles, Molecule, Reason, standardise, standardise_block
    from chem.split import SplitError, check_split, choose_unseen, scaffold, split_by_group

# Every name and its file; a file is read on first use, so that a SMILES is read without torch and pandas.
_FILES = {
    "bounded": ("Answer", "Standardiser", "standardise_within"),
    "cache": ("VectorCache", "encode_cached"),
    "domain": ("Applicability", "Domain", "DomainModel", "TrainingCompounds", "applicability", "training_compounds"),
    "domain_fit": ("fit_domain",),
    "encoder": ("ENCODERS", "Encoder", "EncoderError", "load_encoder"),
    "fingerprint": ("FingerprintIndex", "Neighbours", "morgan_bits", "morgan_counts", "nearest", "tanimoto"),
    "library": ("LibraryError", "load_library"),
    "molecule": ("InvalidSmiles", "Molecule", "Reason", "standardise", "standardise_block"),
    "split": ("SplitError", "check_split", "choose_unseen", "scaffold", "split_by_group"),
}

__all__ = [
    "ENCODERS",
    "Answer",
    "Applicability",
    "Domain",
    "DomainModel",
    "Encoder",
    "EncoderError",
    "FingerprintIndex",
    "InvalidSmiles",
    "LibraryError",
    "Molecule",
    "Neighbours",
    "Reason",
    "SplitError",
    "Standardiser",
    "TrainingCompounds",
    "VectorCache",
    "applicability",
    "check_split",
    "choose_unseen",
    "depict",
    "encode_cached",
    "fit_domain",
    "load_encoder",
    "load_library",
    "morgan_bits",
    "morgan_counts",
    "nearest",
    "scaffold",
    "split_by_group",
    "standardise",
    "standardise_block",
    "standardise_within",
    "tanimoto",
    "training_compounds",
]


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"chem.{file}"), name)
    raise AttributeError(f"module 'chem' has no attribute {name!r}")
