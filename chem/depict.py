"""Molecule -> SVG drawing, without a display and without fonts from the machine."""

from __future__ import annotations

from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D

from chem.molecule import Molecule


def depict(molecule: Molecule | str, *, width: int = 320, height: int = 220) -> str:
    """An SVG document (`width` x `height` CSS pixels, transparent ground) of a standardised molecule or its SMILES.

    Raises ValueError for a text that is no molecule or a size below 20 pixels.
    """
    smiles = molecule.smiles if isinstance(molecule, Molecule) else molecule
    if min(width, height) < 20:
        raise ValueError(f"a drawing is at least 20 pixels wide and high; got {width} x {height}.")
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise ValueError(f"not a molecule: {smiles!r}; standardise it first (chem.molecule.standardise).")
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.addStereoAnnotation = True
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    return text.replace("<?xml version='1.0' encoding='iso-8859-1'?>\n", "", 1)
