"""Which fragment of a mixture is the molecule: salts, solvents and partners are told from the parent and named.

The choice depends on the fragments alone, never on their order or spelling: (organic and no known companion, has
carbon, heavy atoms, mass, canonical SMILES), the largest wins.
"""

from __future__ import annotations

from functools import cache

from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

# Acids, bases and solvents that come along with a drug: dropped as "salt or solvent", not called a mixture.
COMPANIONS = frozenset(
    {
        # acids
        "CS(=O)(=O)O", "CCS(=O)(=O)O", "Cc1ccc(S(=O)(=O)O)cc1", "O=S(=O)(O)c1ccccc1", "O=C(O)/C=C/C(=O)O",
        "O=C(O)/C=C\\C(=O)O", "O=C(O)C=CC(=O)O", "O=C(O)C(O)C(O)C(=O)O", "O=C(O)CC(O)(CC(=O)O)C(=O)O", "O=C(O)CCC(=O)O",
        "O=C(O)C(F)(F)F", "O=C(O)C(=O)O", "O=C(O)CC(O)C(=O)O", "CC(O)C(=O)O", "O=C(O)CC(=O)O",
        "O=C(O)[C@H](O)[C@@H](O)C(=O)O", "O=C(O)[C@@H](O)[C@H](O)C(=O)O", "O=S(=O)(O)CCS(=O)(=O)O", "O=C(O)c1ccccc1",
        "O=S(=O)(O)CCO", "O=S(=O)(O)C(F)(F)F", "O=S(=O)(O)c1cccc2c(S(=O)(=O)O)cccc12", "O=S(=O)(O)c1ccc2ccccc2c1",
        # bases
        "NC(CO)(CO)CO", "CN[C@@H](CO)[C@H](O)[C@@H](O)[C@@H](O)CO", "CCNCC", "CCN(CC)CC", "C1CNCCN1", "OCCNCCO",
        "C1CCC(NC2CCCCC2)CC1", "NC1CCCCC1", "CC(C)(C)N",
        # solvents
        "CN(C)C=O", "CC(=O)N(C)C", "CCOC(C)=O", "CC(=O)OC(C)C", "C1CCOC1", "C1COCCO1", "CCOCC", "COC(C)(C)C", "CCCCCC",
        "C1CCCCC1", "CCCCC", "CCCCCCC", "c1ccccc1", "Cc1ccccc1", "Cc1ccccc1C", "Cc1ccc(C)cc1", "Cc1cccc(C)c1",
        "c1ccncc1", "CN1CCCC1=O", "CCC(C)=O", "CC(C)CO", "CCCCO",
    }
)  # fmt: skip
SALT_HEAVY_ATOMS = 5


@cache
def uncharger() -> rdMolStandardize.Uncharger:
    """RDKit's neutraliser, in canonical order, so that the spelling does not decide which atom keeps a charge."""
    return rdMolStandardize.Uncharger(True)


def key(mol: Chem.Mol) -> str:
    """Canonical isomeric SMILES read once more, so that perceived aromaticity and stereo are those of the text."""
    text: str = Chem.MolToSmiles(Chem.RemoveHs(mol))
    again = Chem.MolFromSmiles(text)
    return text if again is None else str(Chem.MolToSmiles(again))


def keep_parent(mol: Chem.Mol, changes: list[str]) -> Chem.Mol:
    """The parent of a molecule of one or more fragments; what was dropped is appended to `changes`, in words."""
    fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=True)
    if len(fragments) == 1:
        return mol
    ranked = sorted(((_rank(fragment), key(fragment), fragment) for fragment in fragments), key=lambda item: item[:2])
    parent = ranked[-1]
    salts, partners, copies = [], [], 0
    for (_, organic, atoms, _), text, fragment in ranked[:-1]:
        if text == parent[1]:
            copies += 1
        elif not organic or atoms <= SALT_HEAVY_ATOMS or _is_companion(fragment):
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
    drug_like = "C" in elements and not _is_companion(fragment)
    return drug_like, "C" in elements, fragment.GetNumHeavyAtoms(), mass


def _is_companion(fragment: Chem.Mol) -> bool:
    return Chem.MolToSmiles(uncharger().uncharge(fragment)) in COMPANIONS
