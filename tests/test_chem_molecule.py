"""chem.molecule: what goes in, what comes out, and what is refused."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from chem.corpus import respell, with_random_stereo
from chem.molecule import InvalidSmiles, Molecule, Reason, block_of, standardise, standardise_block
from chem.parent import COMPANIONS, key, uncharger
from chem.standard_form import is_plain, rounds, standard_form

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
DRUGS = [
    ASPIRIN,
    "CN1CCC[C@H]1c1cccnc1",
    "O=C(O)/C=C/c1ccccc1",
    "Cc1csc(-c2nnc(Nc3ccc(Oc4ncccc4-c4ccnc(N)n4)cc3)c3ccccc23)c1",
    "C[C@]12C[C@H](O)[C@@]3(F)[C@@H](CCC4=CC(=O)C=C[C@@]43C)[C@@H]1C[C@@H](C)[C@]2(O)C(=O)CO",
    "[O-][N+](=O)c1ccc(Cl)cc1",
    "[2H]C([2H])([2H])Oc1ccccc1",
]


BLOCK = Chem.MolToMolBlock(Chem.MolFromSmiles(ASPIRIN))


def test_aspirin_is_itself():
    assert standardise(ASPIRIN) == Molecule(ASPIRIN, "BSYNRYMUTXBXSQ-UHFFFAOYSA-N", ())
    assert standardise(f"  {ASPIRIN}\n").changes == ()
    assert standardise(ASPIRIN).block == block_of("BSYNRYMUTXBXSQ-UHFFFAOYSA-N") == "BSYNRYMUTXBXSQ"


@pytest.mark.parametrize("salt", ["CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", ASPIRIN + ".O", "CC(=O)Oc1ccccc1C(=O)O[Na]"])
def test_a_salt_is_its_parent(salt: str):
    molecule = standardise(salt)
    assert molecule.smiles == ASPIRIN
    assert any("removed" in change for change in molecule.changes)


def test_changes_name_what_was_removed():
    changes = standardise("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]").changes
    assert changes == ("salt or solvent removed: [Na+]", "charges neutralised")


def test_a_mixture_is_reduced_to_its_parent_and_says_so():
    molecule = standardise(f"Cn1cnc2c1c(=O)n(C)c(=O)n2C.{ASPIRIN}")
    assert molecule.smiles == "Cn1c(=O)c2c(ncn2C)n(C)c1=O"  # 14 heavy atoms against 13
    assert molecule.changes == (f"mixture reduced to its largest organic part; removed: {ASPIRIN}",)


def test_a_large_counter_ion_does_not_win():
    molecule = standardise("NCCO.O=C(O)CC(O)(CC(=O)O)C(=O)O")  # citrate has more atoms than the amine
    assert molecule.smiles == "NCCO"
    assert standardise("O=C(O)CC(O)(CC(=O)O)C(=O)O").inchikey == "KRKNYBCHXYNGOX-UHFFFAOYSA-N"  # alone it is a molecule


def test_a_quaternary_charge_stays():
    assert standardise("C[N+](C)(C)CCO.[Cl-]").smiles == "C[N+](C)(C)CCO"


def test_stereo_and_isotopes_stay():
    left, right = standardise("C[C@H](N)C(=O)O"), standardise("C[C@@H](N)C(=O)O")
    assert left.inchikey != right.inchikey
    assert left.block == right.block
    assert "[2H]" in standardise("[2H]C([2H])([2H])O").smiles
    assert standardise("F/C=C/F").inchikey != standardise("F/C=C\\F").inchikey


@pytest.mark.parametrize(
    "stoichiometry", ["{0}.[Na+]", "[K+].{0}", "{0}.CCO.[Na+]", "{0}.[Na+].Cc1ccccc1", "{0}.[Na+].F[P-](F)(F)(F)(F)F"]
)
def test_salts_and_solvents_in_any_order(stoichiometry: str):
    molecule = standardise(stoichiometry.format("CC(=O)Oc1ccccc1C(=O)[O-]"))
    assert molecule.smiles == ASPIRIN
    assert not any("mixture" in change for change in molecule.changes)


def test_bonds_to_metals_are_cut():
    assert standardise("CCOC(=S)S[K]").smiles == standardise("CCOC(=S)S").smiles
    assert standardise("CCS[Na]").changes[0] == "bonds to metal cut"
    assert standardise("CC(=O)O[Na]").smiles == "CC(=O)O"


def test_companions_are_in_the_form_they_are_looked_up_in():
    for text in COMPANIONS:
        assert key(uncharger().uncharge(Chem.MolFromSmiles(text))) == text


def test_the_frozen_library_keeps_its_form(repository: Path):
    """Vectors, pictures and references were made from these SMILES and keys: a change here voids every model."""
    for name in ("drugs.csv", "recombined.csv"):
        table = pd.read_csv(repository / "configs" / "library" / name, keep_default_na=False)
        for row in table.itertuples():
            assert standardise(row.smiles) == Molecule(row.smiles, row.inchikey, ()), row.smiles


ODD = [
    "CS(C)=O", "CS(=O)(=O)c1ccccc1", "O=S1CCCC1", "c1ccs(=O)c1", "C[S@](=O)CC", "CN(C)=O", "C[N+](C)(C)[O-]",
    "CN=[N+]=[N-]", "O=n1ccccc1", "C=[N+]=[N-]", "CP(=O)(O)O", "OC(=O)c1ccccc1[N+](=O)[O-]", "C1=CC=CN1",
    "N#[N+]c1ccccc1", "CC(O)=NC",
    "[2H]OC", "[13CH4]", "C[Si](C)(C)C", "OB(O)c1ccccc1", "C[CH2]", "CC(=O)O[Na]", "C[Mg]Br", "C/C=C/C", "C[C@H](O)CC",
    "O=C1C=CC(=O)C=C1", "CI(=O)=O", "c1ccc2c(c1)[nH]c1ccccc12", "C%11CCCC%11", "Cl", "FC(F)(F)I", "C[n+]1ccccc1",
]  # fmt: skip


@pytest.mark.parametrize("smiles", ODD)
def test_the_short_way_ends_where_the_long_way_does(smiles: str):
    """Rounds that are left out for a plain molecule would have changed nothing."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        with pytest.raises(InvalidSmiles):
            standardise(smiles)
        return
    text, _, _ = standard_form(mol, smiles)
    assert text == rounds(Chem.MolToSmiles(mol), [])
    assert rounds(text, []) == text


def test_plain_means_no_charge_no_isotope_no_sulfoxide_and_one_fragment():
    def plain(smiles: str) -> bool:
        mol = Chem.MolFromSmiles(smiles)
        return is_plain(mol, Chem.MolToSmiles(mol))

    assert plain(ASPIRIN)
    assert plain("C[C@@H](N)C(=O)O")
    assert plain("CS(=O)(=O)N")
    assert not any(map(plain, ("CS(C)=O", "C[O-]", "[2H]C", "C.C", "C[CH2]", "[Na]OC", "C[Si](C)C")))


def test_hydrogen_on_phosphorus_goes_to_oxygen():
    """As tables of a tautomer enumerator write phosphates; RDKit reads neither form of seven bonds."""
    molecule = standardise("O=C(O)C[PH](=O)(=O)O")
    assert molecule.smiles == standardise("O=C(O)CP(=O)(O)O").smiles
    assert molecule.changes == ("hydrogen moved from phosphorus to oxygen",)
    assert standardise("CO[PH](=O)(=O)O[PH](=O)(=O)O").inchikey == standardise("COP(=O)(O)OP(=O)(O)O").inchikey
    with pytest.raises(InvalidSmiles) as caught:
        standardise("C[PH](C)(C)(C)(C)C")
    assert caught.value.reason is Reason.VALENCE
    assert standardise("C[PH](=O)O").smiles == "C[PH](=O)O"  # a phosphinic acid may keep its hydrogen


def test_extensions_and_atom_numbers_are_left_out_and_named():
    assert standardise("CCO |w:1.0,c:2|") == Molecule(
        "CCO", standardise("CCO").inchikey, ("extension of the SMILES (|...|) left out",)
    )
    assert standardise("[CH3:1][CH2:2][OH:3]") == Molecule(
        "CCO", standardise("CCO").inchikey, ("atom numbers removed",)
    )
    with pytest.raises(InvalidSmiles, match="a space at position 4"):
        standardise("CCO |unfinished")


@pytest.mark.parametrize("smiles", DRUGS)
def test_every_spelling_gives_one_molecule(smiles: str):
    rng = np.random.default_rng(0)
    mol = Chem.MolFromSmiles(smiles)
    kekulised = Chem.Mol(mol)
    Chem.Kekulize(kekulised, clearAromaticFlags=True)
    spellings = {respell(smiles, rng, 0.0) for _ in range(12)}
    spellings |= {Chem.MolToSmiles(kekulised, kekuleSmiles=True), Chem.MolToSmiles(Chem.AddHs(mol))}
    assert len(spellings) > 3
    assert {(m.smiles, m.inchikey) for m in map(standardise, spellings)} == {
        (standardise(smiles).smiles, standardise(smiles).inchikey)
    }


@pytest.mark.parametrize(
    "smiles",
    [
        *DRUGS,
        "CC(=O)[O-].[K+]",
        "C[N+](C)(C)CC(=O)[O-]",
        "CCN(=O)=O",
        "[NH3+]CC([O-])=O",
        "CS(C)(=O)=O",
        "CC(=O)O[Na].Cl",
    ],
)
def test_standardising_twice_changes_nothing(smiles: str):
    once = standardise(smiles)
    assert standardise(once.smiles) == Molecule(once.smiles, once.inchikey, ())


@pytest.mark.parametrize(
    ("text", "reason", "position"),
    [
        ("", Reason.EMPTY, None),
        (" \t\n", Reason.EMPTY, None),
        ("C" * 2001, Reason.TOO_LONG, 2001),
        ("not-a-smiles", Reason.UNPARSABLE, 3),
        ("CC(C", Reason.UNPARSABLE, 3),
        ("C1CC", Reason.UNPARSABLE, None),
        ("CC(=O)Oc1ccccc1C(=O)O aspirin", Reason.UNPARSABLE, 22),
        ("C\x00C", Reason.UNPARSABLE, 2),
        ("CCé", Reason.UNPARSABLE, 3),
        ("CC>>CO", Reason.UNPARSABLE, 3),
        ("CC(C)(C)(C)C", Reason.VALENCE, None),
        ("c1cccc1", Reason.AROMATICITY, None),
        ("CC*", Reason.WILDCARD, None),
        ("[Na+].[Cl-]", Reason.NOT_ORGANIC, None),
        ("O", Reason.NOT_ORGANIC, None),
        ("C[Hg]C", Reason.NOT_ORGANIC, None),
        ("C" * 301, Reason.TOO_LARGE, None),
    ],
)
def test_refusals(text: str, reason: Reason, position: int | None, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(InvalidSmiles) as caught:
        standardise(text)
    assert (caught.value.reason, caught.value.position) == (reason, position)
    assert caught.value.message == str(caught.value)
    assert caught.value.message.endswith((".", "]."))
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_the_largest_accepted_sizes():
    assert standardise("C" * 300).smiles == "C" * 300
    assert len("C(" * 666 + "C" + ")" * 666 + "C") == 2000  # long enough to pass the first guard, then too large
    with pytest.raises(InvalidSmiles, match="heavy atoms"):
        standardise("C(" * 666 + "C" + ")" * 666 + "C")


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("CNOcno()[]=#123+-@/\\.%*HBrl", max_size=40)))
def test_any_text_gives_a_molecule_or_a_reason(text: str):
    try:
        molecule = standardise(text)
    except InvalidSmiles:
        return  # any other exception fails the test
    again = standardise(molecule.smiles)
    assert (again.smiles, again.inchikey, again.changes) == (molecule.smiles, molecule.inchikey, ())


ANY_TEXT = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(max_codepoint=0x1F), max_size=20),
    st.text("CNOPSFcnosp()[]=#123+-@/\\.%*HBrl:&|$~ \t\x00", max_size=60),
    st.builds(lambda a, cut, b: a[:cut] + b + a[cut:], st.sampled_from(DRUGS), st.integers(0, 40), st.text(max_size=3)),
    st.builds(lambda a, n: a * n, st.sampled_from(["C", "c1", "(", "[", "C(", "%99", "\U0001f600", ".", "[PH]"]),
              st.integers(1, 10**6)),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(ANY_TEXT)
def test_ten_thousand_texts_give_a_molecule_or_a_reason(text: str):
    try:
        molecule = standardise(text)
    except InvalidSmiles:
        return  # any other exception fails the test
    assert standardise(molecule.smiles) == Molecule(molecule.smiles, molecule.inchikey, ())


@settings(max_examples=150, deadline=None)
@given(ANY_TEXT)
def test_any_mol_block_gives_a_molecule_or_a_reason(text: str):
    for block in (text, "\n\n\n" + text, BLOCK[:70] + text + BLOCK[70:]):
        with suppress(InvalidSmiles):  # any other exception fails the test
            standardise_block(block)


def test_a_megabyte_is_refused_at_once():
    with pytest.raises(InvalidSmiles, match="1000000 characters"):
        standardise("C" * 1_000_000)


def test_random_stereo_fills_what_is_open_and_nothing_else():
    mol = Chem.MolFromSmiles("CC(N)C(=O)NC/C=C/C=CC")
    drawn = Chem.MolToSmiles(with_random_stereo(mol, np.random.default_rng(1)))
    assert "?" not in drawn
    again = Chem.MolFromSmiles(drawn)
    assert all(site.specified == Chem.StereoSpecified.Specified for site in Chem.FindPotentialStereo(again))
    assert len(Chem.FindPotentialStereo(again)) == 3  # one centre, two double bonds
    assert Chem.MolToSmiles(again, isomericSmiles=False) == Chem.MolToSmiles(mol, isomericSmiles=False)


def test_jump_smiles_standardise(real_data: Path):
    table = pd.read_csv(real_data / "jump_metadata" / "compound_smiles.csv.gz")
    sample = table["Metadata_SMILES"].sample(200, random_state=1)
    molecules = [standardise(text) for text in sample]
    assert sum(bool(molecule.changes) for molecule in molecules) <= 4  # the table is standardised already
