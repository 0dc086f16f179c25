"""New molecules from the fragments of known ones: one retrosynthetic cut (BRICS), two pieces joined.

BRICS: Degen, Wegscheid-Gerlach, Zaliani and Rarey 2008; its rules say which ends may be joined. A piece is what one
cut leaves of a drug, so most of a drug's skeleton survives in its larger pieces. Everything here is a pure function of
its arguments; the random choice of pairs belongs to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rdkit import Chem, rdBase
from rdkit.Chem import BRICS

MIN_PIECE_ATOMS = 4


@dataclass(frozen=True)
class Piece:
    """One side of a BRICS cut: SMILES with one labelled end ([n*]), its heavy atoms, and the parent's InChIKey."""

    smiles: str
    heavy_atoms: int
    parent: str


def pieces(smiles: str, parent: str) -> list[Piece]:
    """All pieces of one molecule that a single BRICS cut makes, at least 4 heavy atoms each, sorted by SMILES."""
    mol = Chem.MolFromSmiles(smiles)
    found: dict[str, int] = {}
    for (begin, end), (label_a, label_b) in BRICS.FindBRICSBonds(mol):
        bond = mol.GetBondBetweenAtoms(begin, end)
        labels = (int(label_a), int(label_b))
        if bond.GetBeginAtomIdx() != begin:
            labels = labels[::-1]
        # the end left on the begin atom carries the begin atom's environment, as BreakBRICSBonds writes it
        cut = Chem.FragmentOnBonds(mol, [bond.GetIdx()], dummyLabels=[(labels[1], labels[0])])
        parts = Chem.GetMolFrags(cut, asMols=True, sanitizeFrags=True)
        if len(parts) == 2:
            for part in parts:
                text = Chem.MolToSmiles(part)
                heavy = sum(atom.GetAtomicNum() > 1 for atom in part.GetAtoms())
                if heavy >= MIN_PIECE_ATOMS:
                    found[text] = heavy
    return [Piece(text, found[text], parent) for text in sorted(found)]


def joined(a: Piece, b: Piece) -> Iterator[str]:
    """SMILES of the molecules made by joining two pieces at their ends, where a BRICS rule allows it."""
    mol_a, mol_b = Chem.MolFromSmiles(a.smiles), Chem.MolFromSmiles(b.smiles)
    made: set[str] = set()
    with rdBase.BlockLogs():
        for rule in BRICS.reverseReactions:
            for first, second in ((mol_a, mol_b), (mol_b, mol_a)):
                if first.HasSubstructMatch(rule._matchers[0]) and second.HasSubstructMatch(rule._matchers[1]):
                    for (product,) in rule.RunReactants((first, second)):
                        if Chem.SanitizeMol(product, catchErrors=True) == Chem.SanitizeFlags.SANITIZE_NONE:
                            made.add(Chem.MolToSmiles(product))
    yield from sorted(text for text in made if "*" not in text)
