"""chem.split, chem.recombine and the shipped library: no leak, no copy, and facts that agree with the annotation."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from rdkit import Chem

from chem.library import DMSO_INCHIKEY, LibraryError, drugs, load_library
from chem.molecule import standardise
from chem.recombine import Piece, joined, pieces
from chem.split import SplitError, check_split, choose_unseen, scaffold, split_by_group, structure_groups

FOLDER = Path(__file__).resolve().parent.parent / "configs" / "library"


@pytest.fixture(scope="module")
def library() -> pd.DataFrame:
    return load_library(FOLDER)


def test_scaffold_is_bemis_and_murcko():
    assert scaffold("CCc1ccc(CC(C)C(=O)O)cc1") == "c1ccccc1"
    assert scaffold("O=C(c1ccccc1)N1CCOCC1") == "O=C(c1ccccc1)N1CCOCC1"
    assert scaffold("CCO") == ""
    assert scaffold("C[C@H]1CC[C@@H](N)CC1") == scaffold("CC1CCC(N)CC1")


def _toy(count: int = 12) -> tuple[list[str], list[str], list[str]]:
    smiles = [f"{'C' * k}c1ccccc1" for k in range(1, 5)]  # one scaffold, four compounds
    smiles += [f"C1{'C' * k}N1" for k in range(1, count - 3)]  # a ring size, so a scaffold, each
    return [standardise(text).inchikey for text in smiles], smiles, ["a"] * len(smiles)


def test_choose_unseen_holds_out_whole_scaffolds():
    keys, smiles, labels = _toy()
    split = choose_unseen(keys, smiles, labels, seed=3)
    assert Counter(split) == {"seen": 8, "unseen_scaffold": 2, "unseen_random": 2}
    check_split(keys, smiles, split)
    held = {scaffold(text) for text, part in zip(smiles, split, strict=True) if part == "unseen_scaffold"}
    assert "c1ccccc1" not in held  # a group of four does not fit into two


def test_choose_unseen_does_not_depend_on_order_and_keeps_what_it_must():
    keys, smiles, labels = _toy()
    first = dict(zip(keys, choose_unseen(keys, smiles, labels, seed=5), strict=True))
    backwards = choose_unseen(keys[::-1], smiles[::-1], labels, seed=5)
    assert dict(zip(keys[::-1], backwards, strict=True)) == first
    held = [key for key in keys if first[key] != "seen"]
    again = dict(zip(keys, choose_unseen(keys, smiles, labels, seed=5, keep_seen=held), strict=True))
    assert all(again[key] == "seen" for key in held)
    assert choose_unseen(keys, smiles, labels, seed=6) != list(first.values())


def test_choose_unseen_refuses_duplicates_and_small_classes():
    keys, smiles, labels = _toy()
    with pytest.raises(SplitError, match="same compound"):
        choose_unseen([*keys, keys[0]], [*smiles, smiles[0]], [*labels, "a"])
    with pytest.raises(SplitError, match="too small"):
        choose_unseen(keys[:4], smiles[:4], labels[:4])


def test_check_split_finds_leaks():
    with pytest.raises(SplitError, match="two splits"):
        check_split(["ABCDEFGHIJKLMN-X-N"] * 2, ["CCO", "CCO"], ["seen", "unseen_random"])
    with pytest.raises(SplitError, match="same scaffold"):
        check_split(["A" * 14, "B" * 14], ["Cc1ccccc1", "CCc1ccccc1"], ["seen", "unseen_scaffold"])
    with pytest.raises(SplitError, match="unknown split"):
        check_split(["A" * 14], ["CCO"], ["test"])


def test_groups_join_blocks_and_scaffolds_and_parts_never_share_one():
    """Four toluenes share a ring, two of them a block with an acyclic tautomer: all one group."""
    smiles = ["Cc1ccccc1", "CCc1ccccc1", "CCO", "OCC", "C1CCCCC1", "CCC1CCCCC1", "CCN", "c1ccncc1"]
    blocks = ["A", "B", "C", "C", "D", "E", "B", "F"]
    keys = [block * 14 + "-X-N" for block in blocks]
    groups = structure_groups(keys, smiles)
    assert [groups.index(group) for group in groups] == [0, 0, 2, 2, 4, 4, 0, 7]
    for seed in range(5):
        parts = split_by_group(groups, {"train": 0.6, "test": 0.4}, seed=seed)
        assert len({(group, part) for group, part in zip(groups, parts, strict=True)}) == len(set(groups))
        assert set(parts) == {"train", "test"}
    many = split_by_group(range(1000), {"train": 0.8, "valid": 0.1, "test": 0.1})
    assert Counter(many) == {"train": 800, "valid": 100, "test": 100}
    assert many == split_by_group(range(1000), {"train": 0.8, "valid": 0.1, "test": 0.1})
    with pytest.raises(SplitError, match="add up to 1"):
        split_by_group([1, 2], {"train": 0.5, "test": 0.6})


def test_pieces_and_joined():
    """Benzyl amide cut at its amide: the acyl end (1) and the amine end (5) fit, two acyl ends do not."""
    left = pieces("O=C(NCc1ccccc1)C1CCCCC1", "P")
    texts = {piece.smiles for piece in left}
    assert "[5*]NCc1ccccc1" in texts
    assert all(piece.heavy_atoms == Chem.MolFromSmiles(piece.smiles).GetNumAtoms() - 1 for piece in left)
    acyl, amine = Piece("[1*]C(=O)CCC", 5, "P"), Piece("[5*]NCC1CC1", 5, "Q")
    assert set(joined(acyl, amine)) == {"CCCC(=O)NCC1CC1"}
    assert set(joined(acyl, acyl)) == set()


def test_library_counts(library: pd.DataFrame):
    table = drugs(library)
    per_class = table["moa"].value_counts()
    assert len(table) >= 300
    assert 18 <= len(per_class) <= 20
    assert per_class.between(14, 24).all()
    unseen = table[table["split"] != "seen"]
    assert len(unseen) >= 72
    assert (unseen["moa"].value_counts() >= 3).all()
    assert Counter(unseen["split"]) == {"unseen_random": 40, "unseen_scaffold": 40}
    assert table.set_index("name").loc[["AMG900", "paclitaxel"], "split"].eq("seen").all()
    second = table["simulated_second_moa"]
    assert 0.05 < (second != "").mean() < 0.12
    assert (second != table["moa"]).all()
    made = library[library["kind"] == "recombined"]
    assert len(made) >= 1200
    assert made["smiles"].map(lambda text: Chem.MolFromSmiles(text).GetNumHeavyAtoms()).between(15, 60).all()
    assert DMSO_INCHIKEY not in set(library["inchikey"])


def test_library_splits_are_disjoint(library: pd.DataFrame):
    assert not library["inchikey"].str[:14].duplicated().any()
    check_split(*(drugs(library)[column].tolist() for column in ("inchikey", "smiles", "split")))


def test_library_rows_are_in_standard_form(library: pd.DataFrame):
    for row in library.sample(120, random_state=0).itertuples():
        molecule = standardise(row.smiles)
        assert (molecule.smiles, molecule.inchikey, molecule.changes) == (row.smiles, row.inchikey, ())


def test_recombined_class_is_that_of_the_larger_piece(library: pd.DataFrame):
    table = drugs(library).set_index("inchikey")
    made = library[library["kind"] == "recombined"]
    parents = made["parents"].str.split("|")
    assert (parents.str[0].map(table["moa"]) == made["moa"]).all()
    across = (parents.str[1].map(table["moa"]) != made["moa"]).mean()
    assert 0.15 < across < 0.35
    for row in made.sample(15, random_state=0).itertuples():
        first, second = row.parents.split("|")
        sides = [pieces(table.loc[key, "smiles"], key) for key in (first, second)]
        ways = [(a, b) for a in sides[0] for b in sides[1] if b.heavy_atoms < a.heavy_atoms]
        assert any(standardise(text).inchikey == row.inchikey for a, b in ways for text in joined(a, b))


def test_drugs_agree_with_the_annotation_tables(library: pd.DataFrame, real_data: Path):
    """Name, first InChIKey block and mechanism of every drug, against the tables themselves."""
    folder = real_data / "repurposing_hub"
    facts = pd.read_csv(folder / "repurposing_drugs_20200324_cleaned.txt.gz", sep="\t", quoting=3, dtype=str)
    samples = pd.read_csv(folder / "repurposing_samples_20200324_standardized.csv.gz", dtype=str)
    facts = facts.drop_duplicates("pert_iname").set_index("pert_iname")
    blocks: dict[str, set[str]] = {}
    for column in ("InChIKey", "InChIKey_standardized"):
        for name, key in zip(samples["pert_iname"], samples[column].fillna(""), strict=True):
            blocks.setdefault(name, set()).add(key[:14])
    for row in drugs(library).itertuples():
        assert facts.loc[row.name, "moa"] == row.moa
        assert (facts["target"].fillna("")).loc[row.name] == row.targets
        assert row.inchikey[:14] in blocks[row.name], row.name


def test_library_loader_refuses(tmp_path: Path, library: pd.DataFrame):
    with pytest.raises(LibraryError, match="does not exist"):
        load_library(tmp_path)
    for name in ("drugs.csv", "recombined.csv"):
        (tmp_path / name).write_text((FOLDER / name).read_text(encoding="utf-8"), encoding="utf-8")
    lines = (FOLDER / "drugs.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "drugs.csv").write_text("\n".join([*lines, lines[1]]), encoding="utf-8")
    with pytest.raises(LibraryError, match="occurs twice"):
        load_library(tmp_path)
    (tmp_path / "drugs.csv").write_text("\n".join(lines).replace(",seen", ",unseen_random", 3), encoding="utf-8")
    with pytest.raises(LibraryError, match="not a seen drug"):
        load_library(tmp_path)
