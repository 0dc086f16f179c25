"""SMILES -> Molecule: parse, standardise, or refuse with one reason from a closed list.

What standardising does, in this order, until nothing changes (so that doing it twice changes nothing):
explicit hydrogens removed, covalently drawn metals cut off, functional groups drawn in their usual form,
the largest organic fragment kept (salts, solvents and partners of a mixture dropped and named), charges
neutralised where chemistry allows it (a quaternary ammonium keeps its charge). Stereo and isotopes stay.
Tautomers are left as drawn. The identity of a molecule is its standard InChIKey.
"""

from __future__ import annotations

import enum
import re
import threading
from dataclasses import dataclass

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

MAX_CHARACTERS = 2000
MAX_HEAVY_ATOMS = 300
ORGANIC_ELEMENTS = frozenset({"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I"})
# Acids, bases and solvents that come along with a drug: dropped as "salt or solvent", not called a mixture.
COUNTER_ORGANICS = frozenset(
    {
        "CS(=O)(=O)O", "Cc1ccc(S(=O)(=O)O)cc1", "O=S(=O)(O)c1ccccc1", "O=C(O)/C=C/C(=O)O", "O=C(O)/C=C\\C(=O)O",
        "O=C(O)C=CC(=O)O", "O=C(O)C(O)C(O)C(=O)O", "O=C(O)CC(O)(CC(=O)O)C(=O)O", "O=C(O)CCC(=O)O", "O=C(O)C(F)(F)F",
        "O=C(O)C(=O)O", "O=C(O)CC(O)C(=O)O", "CC(O)C(=O)O", "CN(C)C=O", "NC(CO)(CO)CO", "O=C(O)CC(=O)O",
        "O=C(O)[C@H](O)[C@@H](O)C(=O)O", "O=C(O)[C@@H](O)[C@H](O)C(=O)O", "O=S(=O)(O)CCS(=O)(=O)O",
    }
)  # fmt: skip
SALT_HEAVY_ATOMS = 5
_ROUNDS = 8
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
    Raises `InvalidSmiles` and nothing else for any string.
    """
    text = smiles.strip()
    _guard_text(text)
    with _RDKIT_LOG:
        mol, log = _parse(text)
        if mol is None:
            raise _explain_failure(text, log)
        with rdBase.BlockLogs():
            return _standardise_mol(mol)


def block_of(inchikey: str) -> str:
    """First block of an InChIKey, the match key that ignores stereo, isotopes and charge."""
    return inchikey[:14]


# ----------------------------------------------------------------------------------------------------------------------
# Reading.


def _guard_text(text: str) -> None:
    if not text:
        raise InvalidSmiles(Reason.EMPTY, "The SMILES is empty: give one molecule, e.g. CC(=O)Oc1ccccc1C(=O)O.")
    if len(text) > MAX_CHARACTERS:
        raise InvalidSmiles(
            Reason.TOO_LONG,
            f"The SMILES has {len(text)} characters; at most {MAX_CHARACTERS} are accepted.",
            MAX_CHARACTERS + 1,
        )
    for place, letter in enumerate(text, start=1):
        if not "!" <= letter <= "~":
            shown = "a space" if letter == " " else f"the character {letter!a}"
            raise InvalidSmiles(
                Reason.UNPARSABLE,
                f"Not a SMILES: {shown} at position {place} is not allowed; give the SMILES alone, without a name.",
                place,
            )


def _parse(text: str) -> tuple[Chem.Mol | None, str]:
    parameters = Chem.SmilesParserParams()
    parameters.allowCXSMILES = False
    parameters.parseName = False
    with rdBase.CaptureErrorLog() as capture:
        try:
            mol = Chem.MolFromSmiles(text, parameters)
        except Exception as error:  # RDKit raises a handful of C++ types here; all mean "not readable"
            return None, str(error)
    return mol, capture.messages


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
# Standardising.


def _standardise_mol(mol: Chem.Mol) -> Molecule:
    if mol.GetNumHeavyAtoms() > 2 * MAX_HEAVY_ATOMS:
        raise _too_large(mol.GetNumHeavyAtoms())
    if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
        raise InvalidSmiles(
            Reason.WILDCARD, "The SMILES has a wildcard atom (*); give a complete molecule without attachment points."
        )
    changes: list[str] = []
    try:
        current = Chem.MolToSmiles(mol)
        for _ in range(_ROUNDS):
            before = current
            current = _one_round(current, changes)
            if current == before:
                break
        final = Chem.MolFromSmiles(current)
        inchikey = Chem.MolToInchiKey(final)
    except InvalidSmiles:
        raise
    except Exception as error:  # sanitisation inside RDKit's standardiser; the cause is chemical, not ours
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidSmiles(Reason.VALENCE, f"The molecule cannot be put into standard form: {cause}") from None
    _guard_organic(final)
    if not inchikey:
        raise InvalidSmiles(Reason.NO_IDENTIFIER, "No InChIKey can be computed for this molecule.")
    return Molecule(current, inchikey, tuple(dict.fromkeys(changes)))


def _one_round(smiles: str, changes: list[str]) -> str:
    """One pass of clean-up, parent fragment and neutralisation: canonical SMILES in, canonical SMILES out."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError("an intermediate form is not a valid molecule")
    clean = rdMolStandardize.Cleanup(mol)
    if _key(clean) != smiles and len(Chem.GetMolFrags(clean)) == len(Chem.GetMolFrags(mol)):
        changes.append("functional groups or charges drawn in their standard form")
    elif len(Chem.GetMolFrags(clean)) != len(Chem.GetMolFrags(mol)):
        changes.append("bonds to metal cut")
    parent = _keep_parent(clean, changes)
    uncharger = rdMolStandardize.Uncharger(True)
    neutral = uncharger.uncharge(parent)
    if _key(neutral) != _key(parent):
        changes.append("charges neutralised")
    Chem.AssignStereochemistry(neutral, cleanIt=True, force=True)
    return _key(neutral)


def _keep_parent(mol: Chem.Mol, changes: list[str]) -> Chem.Mol:
    """The largest organic fragment, chosen by (has carbon, heavy atoms, mass, SMILES): no dependence on spelling."""
    fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=True)
    if len(fragments) == 1:
        return mol
    ranked = sorted(((_rank(fragment), _key(fragment), fragment) for fragment in fragments), key=lambda item: item[:2])
    parent = ranked[-1]
    salts, partners, copies = [], [], 0
    for _, text, fragment in ranked[:-1]:
        if text == parent[1]:
            copies += 1
        elif fragment.GetNumHeavyAtoms() <= SALT_HEAVY_ATOMS or _is_counter_organic(fragment):
            salts.append(text)
        else:
            partners.append(text)
    if salts:
        changes.append("salt or solvent removed: " + ", ".join(sorted(set(salts))))
    if partners:
        changes.append("mixture reduced to its largest organic part; removed: " + ", ".join(sorted(set(partners))))
    if copies:
        changes.append("repeated copies of the molecule merged")
    return parent[2]


def _rank(fragment: Chem.Mol) -> tuple[bool, bool, int, float]:
    elements = {atom.GetSymbol() for atom in fragment.GetAtoms()}
    mass = sum(atom.GetMass() for atom in fragment.GetAtoms())
    drug_like = "C" in elements and not _is_counter_organic(fragment)
    return drug_like, "C" in elements, fragment.GetNumHeavyAtoms(), mass


def _is_counter_organic(fragment: Chem.Mol) -> bool:
    return Chem.MolToSmiles(rdMolStandardize.Uncharger(True).uncharge(fragment)) in COUNTER_ORGANICS


def _key(mol: Chem.Mol) -> str:
    """Canonical isomeric SMILES read once more, so that perceived aromaticity and stereo are those of the text."""
    text: str = Chem.MolToSmiles(Chem.RemoveHs(mol))
    again = Chem.MolFromSmiles(text)
    return text if again is None else str(Chem.MolToSmiles(again))


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
