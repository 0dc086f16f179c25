"""RDKit molecule -> the one form in which it is written: cleaned, parent fragment only, neutral where chemistry allows.

A round is: explicit hydrogens removed, covalently drawn metals cut off, functional groups drawn in their usual form,
the parent fragment kept, charges neutralised, canonical SMILES. Rounds are repeated until one changes nothing, so
standardising twice changes nothing. Most molecules need none: where no step of a round can apply (`is_plain`) and the
SMILES writes itself back, the text is final already.
"""

from __future__ import annotations

import re
from functools import cache

from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from chem.parent import keep_parent, key, uncharger

ROUNDS = 8
# Text of a neutral closed-shell molecule of common elements: no bracket but those of [nH] and of stereo centres.
_PLAIN_TEXT = re.compile(r"(?:\[nH\]|\[C@@?H?\]|Cl|Br|[CNOFSIcnos]|[-=#:/\\()]|%?\d)+")
_SULFUR = 16


class NoStandardForm(ValueError):
    """RDKit's standardiser failed on the molecule; the message says at what."""


def standard_form(mol: Chem.Mol, written: str) -> tuple[str, Chem.Mol, tuple[str, ...]]:
    """Canonical SMILES in standard form, the molecule read from it, and what changed, in words.

    `written` is the text `mol` was read from; it may save work and decides nothing. Raises `NoStandardForm`.
    """
    changes: list[str] = []
    if _forget_atom_numbers(mol):
        changes.append("atom numbers removed")
    text: str = Chem.MolToSmiles(mol)
    if is_plain(mol, text):
        if text == written:
            return text, mol, tuple(changes)
        again = Chem.MolFromSmiles(text)
        if again is not None and Chem.MolToSmiles(again) == text:
            return text, again, tuple(changes)
    text = rounds(text, changes)
    return text, Chem.MolFromSmiles(text), tuple(dict.fromkeys(changes))


def is_plain(mol: Chem.Mol, text: str) -> bool:
    """Whether no step of a round can change the molecule whose canonical SMILES is `text`: one neutral closed-shell
    fragment of common elements, without explicit hydrogens, isotopes and sulfoxides (the one neutral group that the
    clean-up rules redraw).
    """
    if not _PLAIN_TEXT.fullmatch(text):
        return False
    return "S" not in text or not any(a.GetAtomicNum() == _SULFUR and a.GetDegree() == 3 for a in mol.GetAtoms())


def rounds(text: str, changes: list[str]) -> str:
    """Rounds on a canonical SMILES until nothing changes; what changed is appended to `changes`."""
    try:
        for _ in range(ROUNDS):
            before = text
            text = _one_round(text, changes)
            if text == before:
                break
    except Exception as error:  # sanitisation inside RDKit's standardiser; the cause is chemical, not ours
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NoStandardForm(cause) from None
    return text


def _one_round(text: str, changes: list[str]) -> str:
    mol = Chem.MolFromSmiles(text)
    if mol is None:
        raise NoStandardForm("an intermediate form is not a valid molecule")
    clean = _cleaned(mol)
    fragments, before = len(Chem.GetMolFrags(clean)), len(Chem.GetMolFrags(mol))
    if fragments != before:
        changes.append("bonds to metal cut")
    elif key(clean) != text:
        changes.append("functional groups or charges drawn in their standard form")
    parent = keep_parent(clean, changes)
    neutral = uncharger().uncharge(parent)
    charged = key(parent)
    Chem.AssignStereochemistry(neutral, cleanIt=True, force=True)
    done = key(neutral)
    if done != charged:
        changes.append("charges neutralised")
    return done


@cache
def _tools() -> tuple[rdMolStandardize.MetalDisconnector, rdMolStandardize.Normalizer, rdMolStandardize.Reionizer]:
    return rdMolStandardize.MetalDisconnector(), rdMolStandardize.Normalizer(), rdMolStandardize.Reionizer()


def _cleaned(mol: Chem.Mol) -> Chem.Mol:
    """What `rdMolStandardize.Cleanup` does, with its rule tables read once a process and not once a molecule."""
    disconnector, normalizer, reionizer = _tools()
    separate = disconnector.Disconnect(_thiolates_cut(Chem.RemoveHs(mol)))
    clean = reionizer.reionize(normalizer.normalize(separate))
    Chem.AssignStereochemistry(clean, cleanIt=True, force=True)
    return clean


def _thiolates_cut(mol: Chem.Mol) -> Chem.Mol:
    """Bonds between an alkali metal and sulfur or selenium made ions, which RDKit's disconnector leaves."""
    pairs = mol.GetSubstructMatches(Chem.MolFromSmarts("[Li,Na,K,Rb,Cs;X1;+0]-[#16,#34;+0]"))
    if not pairs:
        return mol
    cut = Chem.RWMol(mol)
    for metal, other in pairs:
        cut.RemoveBond(metal, other)
        cut.GetAtomWithIdx(metal).SetFormalCharge(1)
        cut.GetAtomWithIdx(other).SetFormalCharge(-1)
        cut.GetAtomWithIdx(other).SetNoImplicit(False)
    Chem.SanitizeMol(cut)
    return cut


def _forget_atom_numbers(mol: Chem.Mol) -> bool:
    numbered = [atom for atom in mol.GetAtoms() if atom.GetAtomMapNum()]
    for atom in numbered:
        atom.SetAtomMapNum(0)
    return bool(numbered)
