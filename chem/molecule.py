"""SMILES or mol block -> Molecule: parse, standardise, or refuse with one reason from a closed list.

What standardising does (`chem.standard_form`), until nothing changes: explicit hydrogens and atom numbers removed,
covalently drawn metals cut off, functional groups drawn in their usual form, the largest organic fragment kept (salts,
solvents and partners of a mixture dropped and named), charges neutralised where chemistry allows it (a quaternary
ammonium keeps its charge). Stereo and isotopes stay. Tautomers are left as drawn: enumerating them is not bounded in
time, and the identity of a molecule, its standard InChIKey, ignores most of them anyway.
"""

from __future__ import annotations

import enum
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rdkit import Chem, rdBase

from chem.standard_form import NoStandardForm, standard_form

MAX_CHARACTERS = 2000
MAX_BLOCK_CHARACTERS = 200_000
MAX_HEAVY_ATOMS = 300
ORGANIC_ELEMENTS = frozenset({"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"})
_RDKIT_LOG = threading.Lock()  # RDKit has one error log for the whole process


class Reason(enum.StrEnum):
    """Why a string was refused. The list is closed: nothing else is ever raised for a bad SMILES."""

    EMPTY = "empty"
    TOO_LONG = "too_long"
    UNPARSABLE = "unparsable"
    VALENCE = "valence"
    AROMATICITY = "aromaticity"
    WILDCARD = "wildcard"
    NOT_ORGANIC = "not_organic"
    TOO_LARGE = "too_large"
    NO_IDENTIFIER = "no_identifier"
    TIMEOUT = "timeout"


class InvalidSmiles(ValueError):
    """A SMILES that cannot be used.

    Attributes: ``reason`` (a `Reason`), ``message`` (one sentence), ``position`` (1-based character of the stripped
    input at which reading stopped, or None when the fault has no single place).
    """

    def __init__(self, reason: Reason, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.position = position


@dataclass(frozen=True)
class Molecule:
    """One standardised molecule: canonical isomeric SMILES, standard InChIKey, and what standardising changed."""

    smiles: str
    inchikey: str
    changes: tuple[str, ...] = ()

    @property
    def block(self) -> str:
        """First block of the InChIKey (14 letters): the skeleton without stereo, isotopes and charge."""
        return self.inchikey[:14]


def standardise(smiles: str) -> Molecule:
    """Read one SMILES and return its `Molecule`.

    Idempotent: ``standardise(m.smiles)`` has the same SMILES and InChIKey as ``m`` and no changes.
    Raises `InvalidSmiles` and nothing else for any string. Not bounded in time: `chem.bounded.standardise_within` is.
    """
    text, changes = _without_extension(smiles.strip())
    _guard_text(text)
    with _RDKIT_LOG:
        mol, log = _parse(text)
        if mol is None and "[PH]" in text:
            mol = _phosphorus_repaired(text)
            changes = (*changes, "hydrogen moved from phosphorus to oxygen")
        if mol is None:
            raise _explain_failure(text, log)
        with rdBase.BlockLogs():
            return _standardised(mol, text, changes)


def standardise_block(block: str) -> Molecule:
    """The same for a mol block (an entry of an SDF, V2000 or V3000); stereo is taken from its drawing.

    Raises `InvalidSmiles` and nothing else for any string.
    """
    if not block.strip():
        raise InvalidSmiles(Reason.EMPTY, "The mol block is empty: give one molecule.")
    if len(block) > MAX_BLOCK_CHARACTERS:
        raise InvalidSmiles(
            Reason.TOO_LONG,
            f"The mol block has {len(block)} characters; at most {MAX_BLOCK_CHARACTERS} are accepted.",
        )
    with _RDKIT_LOG:
        mol, log = _captured(lambda: Chem.MolFromMolBlock(block))
        if mol is None:
            known = _explain_failure(" ", log)
            if known.reason is Reason.UNPARSABLE:
                raise InvalidSmiles(Reason.UNPARSABLE, "Not a readable mol block: give V2000 or V3000.")
            raise known
        if not mol.GetNumAtoms():
            raise InvalidSmiles(Reason.EMPTY, "The mol block has no atoms: give one molecule.")
        with rdBase.BlockLogs():
            return _standardised(mol, "", ())


def block_of(inchikey: str) -> str:
    """First block of an InChIKey, the match key that ignores stereo, isotopes and charge."""
    return inchikey[:14]


# ----------------------------------------------------------------------------------------------------------------------
# Reading.


def _without_extension(text: str) -> tuple[str, tuple[str, ...]]:
    """Cut off what drawing programs append to a SMILES: ` |...|` (CXSMILES: coordinates, labels, groups of stereo)."""
    found = re.fullmatch(r"([!-~]+)\s+\|[ -~]*\|", text) if text.endswith("|") else None
    return (found[1], ("extension of the SMILES (|...|) left out",)) if found else (text, ())


def _guard_text(text: str) -> None:
    if not text:
        raise InvalidSmiles(Reason.EMPTY, "The SMILES is empty: give one molecule, e.g. CC(=O)Oc1ccccc1C(=O)O.")
    if len(text) > MAX_CHARACTERS:
        raise InvalidSmiles(
            Reason.TOO_LONG,
            f"The SMILES has {len(text)} characters; at most {MAX_CHARACTERS} are accepted.",
            MAX_CHARACTERS + 1,
        )
    strange = re.search(r"[^!-~]", text)
    if strange:
        place, letter = strange.start() + 1, strange[0]
        shown = "a space" if letter == " " else f"the character {letter!a}"
        raise InvalidSmiles(
            Reason.UNPARSABLE,
            f"Not a SMILES: {shown} at position {place} is not allowed; give the SMILES alone, without a name.",
            place,
        )


def _captured(read: Callable[[], Chem.Mol | None]) -> tuple[Chem.Mol | None, str]:
    """What `read` gives, None when it fails, and what RDKit wrote about it."""
    with rdBase.CaptureErrorLog() as capture:
        try:
            mol = read()
        except Exception as error:  # RDKit raises a handful of C++ types here; all mean "not readable"
            return None, str(error)
    return mol, capture.messages


def _parse(text: str) -> tuple[Chem.Mol | None, str]:
    parameters = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    return _captured(lambda: Chem.MolFromSmiles(text, parameters))


def _phosphorus_repaired(text: str) -> Chem.Mol | None:
    """Phosphates drawn with their hydrogen on phosphorus, O=[PH](=O)(O)R: seven bonds, unreadable, and common in tables
    made by a tautomer enumerator. The hydrogen goes to one of the doubly bound oxygens; which one makes no difference.
    """
    parameters = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    parameters.sanitize = False
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(text, parameters)
        if mol is None:
            return None
        for atom in mol.GetAtoms():
            double = [bond for bond in atom.GetBonds() if bond.GetBondType() == Chem.BondType.DOUBLE]
            ends = [bond for bond in double if bond.GetOtherAtom(atom).GetAtomicNum() == 8]
            if atom.GetAtomicNum() == 15 and atom.GetNumExplicitHs() == 1 and len(ends) > 1:
                atom.SetNumExplicitHs(0)
                ends[0].SetBondType(Chem.BondType.SINGLE)
        if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
            return None
        return Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveHs(mol)))


def _explain_failure(text: str, log: str) -> InvalidSmiles:
    """Turn RDKit's log of a failed parse into one reason, one sentence and, where known, a position."""
    valence = re.search(r"Explicit valence for atom # (\d+) ([A-Za-z]+), (\d+), is greater than permitted", log)
    if valence:
        atom, element, bonds = int(valence[1]) + 1, valence[2], valence[3]
        return InvalidSmiles(
            Reason.VALENCE, f"Atom {atom} ({element}) has {bonds} bonds, more than {element} can have.", None
        )
    if "kekulize" in log or "aromatic" in log:
        return InvalidSmiles(
            Reason.AROMATICITY,
            "The aromatic (lower-case) atoms cannot be given alternating double bonds; a ring hydrogen such as [nH] "
            "may be missing.",
        )
    place = re.search(r"around position (\d+)", log)
    position = min(int(place[1]), len(text)) if place else None
    cause = re.search(r"SMILES Parse Error: (.+?) (?:while parsing|for input)", log)
    why = cause[1] if cause else "the text is not a SMILES"
    if position is None:
        return InvalidSmiles(Reason.UNPARSABLE, f"Not a readable SMILES: {why}.")
    return InvalidSmiles(
        Reason.UNPARSABLE,
        f"Not a readable SMILES: {why} at position {position} ({text[position - 1]!r}).",
        position,
    )


# ----------------------------------------------------------------------------------------------------------------------
# Judging the standard form.


def _standardised(mol: Chem.Mol, written: str, changes: tuple[str, ...]) -> Molecule:
    if mol.GetNumHeavyAtoms() > 2 * MAX_HEAVY_ATOMS:
        raise _too_large(mol.GetNumHeavyAtoms())
    if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
        raise InvalidSmiles(
            Reason.WILDCARD, "The SMILES has a wildcard atom (*); give a complete molecule without attachment points."
        )
    try:
        smiles, final, more = standard_form(mol, written)
        inchikey = Chem.MolToInchiKey(final)
    except NoStandardForm as error:
        raise InvalidSmiles(Reason.VALENCE, f"The molecule cannot be put into standard form: {error}") from None
    _guard_organic(final)
    if not inchikey:
        raise InvalidSmiles(Reason.NO_IDENTIFIER, "No InChIKey can be computed for this molecule.")
    return Molecule(smiles, inchikey, (*changes, *more))


def _guard_organic(mol: Chem.Mol) -> None:
    elements = {atom.GetSymbol() for atom in mol.GetAtoms()}
    strange = sorted(elements - ORGANIC_ELEMENTS)
    if "C" not in elements:
        raise InvalidSmiles(Reason.NOT_ORGANIC, "No organic molecule: nothing in this SMILES contains carbon.")
    if strange:
        raise InvalidSmiles(
            Reason.NOT_ORGANIC,
            f"Not an organic molecule: it contains {', '.join(strange)}; accepted are {_listed(ORGANIC_ELEMENTS)}.",
        )
    if mol.GetNumHeavyAtoms() > MAX_HEAVY_ATOMS:
        raise _too_large(mol.GetNumHeavyAtoms())


def _too_large(heavy_atoms: int) -> InvalidSmiles:
    return InvalidSmiles(
        Reason.TOO_LARGE, f"The molecule has {heavy_atoms} heavy atoms; at most {MAX_HEAVY_ATOMS} are accepted."
    )


def _listed(elements: frozenset[str]) -> str:
    return ", ".join(sorted(elements))
