"""chem.records: one entry in, one record out, whatever the file."""

import gzip
from pathlib import Path

import pytest
from rdkit import Chem

from chem.records import Record, RecordsError, opened, records


def read(path: Path, **columns: str) -> list[Record]:
    with opened(path) as (_, text):
        return list(records(path, text, **columns))


def test_csv_columns_quotes_and_short_rows(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffID,Canonical_SMILES\r\n1,CCO\r\n"2,b","C\nC"\r\n3\r\n\r\n4,é\r\n'.encode())
    assert read(path) == [
        Record(1, "1", "CCO", "smiles"),
        Record(2, "2,b", "C\nC", "smiles"),
        Record(3, "3", "", "smiles"),
        Record(4, "4", "é", "smiles"),
    ]
    assert [one.text for one in read(path, column="ID")] == ["1", "2,b", "3", "4"]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RecordsError, match="columns are a, b"):
        read(path)
    with pytest.raises(RecordsError, match="no column 'c'"):
        read(path, column="a", name_column="c")


def test_a_field_of_a_megabyte_is_a_record(tmp_path: Path):
    path = tmp_path / "a.tsv"
    path.write_text("smiles\tname\n" + "C" * 1_000_000 + "\tx\nCC\ty\n")
    assert [(len(one.text), one.name) for one in read(path)] == [(1_000_000, "x"), (2, "y")]


def test_smiles_lists_and_their_extensions(tmp_path: Path):
    path = tmp_path / "a.smi.gz"
    path.write_bytes(gzip.compress(b"CCO ethanol\n\nCC |w:1.0| two words\nC\tm\nCCl\xff\n"))
    assert read(path) == [
        Record(1, "ethanol", "CCO", "smiles"),
        Record(2, "", "", "smiles"),
        Record(3, "two words", "CC |w:1.0|", "smiles"),
        Record(4, "m", "C", "smiles"),
        Record(5, "", "CCl\ufffd", "smiles"),
    ]
    with pytest.raises(RecordsError, match="no columns"):
        read(path, column="smiles")


def test_sdf_entries_broken_ones_too(tmp_path: Path):
    blocks = []
    for name, smiles in (("ethanol", "CCO"), ("aspirin", "CC(=O)Oc1ccccc1C(=O)O")):
        mol = Chem.MolFromSmiles(smiles)
        mol.SetProp("_Name", name)
        blocks.append(Chem.MolToMolBlock(mol) + "> <x>\n1\n\n")
    path = tmp_path / "a.sdf"
    path.write_text("$$$$\n".join([blocks[0], "garbage\n", "", blocks[1]]).replace("\n", "\r\n"))
    found = read(path)
    assert [(one.row, one.name, one.kind) for one in found] == [
        (1, "ethanol", "block"), (2, "garbage", "block"), (3, "", "block"), (4, "aspirin", "block"),
    ]  # fmt: skip
    assert Chem.MolToSmiles(Chem.MolFromMolBlock(found[3].text)) == "CC(=O)Oc1ccccc1C(=O)O"
    path.write_text("x\n" * 300_000 + "$$$$\n" + blocks[0])
    assert [len(one.text) <= 200_010 for one in read(path)] == [True, True]


def test_what_is_no_list_of_molecules_is_refused(tmp_path: Path):
    with pytest.raises(RecordsError, match="does not exist"):
        read(tmp_path / "none.csv")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(RecordsError, match="rename it"):
        read(tmp_path / "a.xlsx")
    whole = gzip.compress(b"smiles\n" + b"CCO\n" * 5000)
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordsError, match="no whole gzip"):
        read(tmp_path / "a.csv.gz")
    (tmp_path / "b.csv.gz").write_bytes(b"smiles\nCCO\n")
    with pytest.raises(RecordsError, match="no whole gzip"):
        read(tmp_path / "b.csv.gz")
