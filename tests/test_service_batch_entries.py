"""Files of molecules as a batch reads them: every entry answered for by its row, in every format."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from chem.records import RecordsError
from service.batch.ask import BatchRequest, OtherRun
from service.batch.drive import plan
from service.batch.entries import read_entries
from service.batch.plan import Plan, entries_of
from service.batch.room import FAKE, FakeBatchRoom
from service.batch.store import Store

SMILES = ["CCCCO", "c1ccccc1O", "CCN"]


def planned(source: Path, out: Path, **options: object) -> tuple[Plan, Store]:
    store = Store(str(out))
    made, _ = plan(source, BatchRequest(model=FAKE, draws=3, **options), store, room=FakeBatchRoom())
    return made, store


def sdf(smiles: list[str]) -> str:
    from rdkit import Chem

    return "".join(f"{Chem.MolToMolBlock(Chem.MolFromSmiles(one))}$$$$\n" for one in smiles)


def test_every_format_gives_the_same_molecules(tmp_path: Path) -> None:
    table = pd.DataFrame({"name": ["a", "b", "c"], "smiles": SMILES})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.smi").write_text("".join(f"{s} {n}\n" for s, n in zip(SMILES, "abc", strict=True)))
    (tmp_path / "a.sdf").write_text(sdf(SMILES))
    for name in ("a.csv", "a.smi", "a.sdf"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    found = {}
    for path in sorted(tmp_path.glob("a.*")):
        made, store = planned(path, tmp_path / f"out-{path.name}")
        assert made.compounds == 3
        found[path.name] = [one.inchikey for one in entries_of(store, 0)]
    assert len(found) == 8
    assert all(keys == found["a.csv"] for keys in found.values())


def test_broken_entries_are_named_by_row_and_the_rest_is_planned(tmp_path: Path) -> None:
    lines = ["id,smiles", "a,CCCCO", "b,not-a-smiles", "c,OCCCC", "", "d,CC(=O)[O-].[Na+]", f"e,{'C' * 10_000}"]
    lines += ["f,CS(C)=O", 'g,""', "h", "i,CCCN"]
    source = tmp_path / "a.csv"
    source.write_text("\n".join(lines) + "\n")
    made, store = planned(source, tmp_path / "out", part=4)
    assert made.parts == 3
    entries = [one for part in range(3) for one in entries_of(store, part)]
    assert [one.row for one in entries] == list(range(1, 11))
    assert [(one.state, one.reason) for one in entries] == [
        ("ready", ""),
        ("invalid", "unparsable"),
        ("duplicate", "duplicate"),
        ("invalid", "empty"),
        ("ready", ""),
        ("invalid", "too_long"),
        ("invalid", "is_control"),
        ("invalid", "empty"),
        ("invalid", "empty"),
        ("ready", ""),
    ]
    assert entries[2].of_row == 1
    assert "entry 1" in entries[2].sentence
    assert "Na" in entries[4].changes  # the mixture's partner is named
    assert entries[1].position is not None
    assert len(entries[5].input) == 2000
    assert made.document["counts"] == {
        "rows": 10,
        "parts": 3,
        "compounds": 3,
        "ready": [1, 1, 1],
        "duplicates": 1,
        "invalid": {"empty": 3, "is_control": 1, "too_long": 1, "unparsable": 1},
    }


def test_tautomers_that_share_an_inchikey_are_not_duplicates(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("CC(=O)CC(C)=O\nCC(O)=CC(C)=O\nCC(=O)CC(=O)C\n")
    _, store = planned(tmp_path / "a.smi", tmp_path / "out")
    states = [one.state for one in entries_of(store, 0)]
    assert states in (["ready", "ready", "duplicate"], ["ready", "duplicate", "duplicate"])
    keys = {(one.inchikey, one.smiles) for one in entries_of(store, 0)}
    assert len(keys) == states.count("ready")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_wrong_column_is_refused_with_the_columns_there_are(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"id": ["a"], "smiles": ["CCO"]})
    table.to_csv(tmp_path / name, index=False) if name.endswith("csv") else table.to_parquet(tmp_path / name)
    with pytest.raises(RecordsError, match="columns are id, smiles"):
        planned(tmp_path / name, tmp_path / "out", column="SMILES_COLUMN")
    assert not (tmp_path / "out" / "plan.json").exists()


def test_a_missing_or_unknown_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="cannot be read"):
        planned(tmp_path / "none.csv", tmp_path / "out")
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(RecordsError, match="ends with none of"):
        planned(tmp_path / "a.xlsx", tmp_path / "out")
    (tmp_path / "b.parquet").write_text("not parquet")
    with pytest.raises(RecordsError, match="no parquet file"):
        list(read_entries(tmp_path / "b.parquet"))


def test_a_plan_is_kept_and_another_one_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.smi"
    source.write_text("CCO\nCCN\n")
    made, store = planned(source, tmp_path / "out")
    again, _ = planned(source, tmp_path / "out")
    assert again.document == made.document
    with pytest.raises(OtherRun, match=r"request.seed is another one"):
        planned(source, tmp_path / "out", seed=2)
    source.write_text("CCO\nCCN\nCCC\n")
    with pytest.raises(OtherRun, match=r"source.sha256 is another one"):
        planned(source, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "plan.json").read_text())
    document["provenance"]["model"] = "another"
    store.put("plan.json", json.dumps(document).encode())
    source.write_text("CCO\nCCN\n")
    with pytest.raises(OtherRun, match=r"provenance.model is another one"):
        planned(source, tmp_path / "out")


def test_an_empty_file_has_an_empty_plan(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("")
    made, _ = planned(tmp_path / "a.smi", tmp_path / "out")
    assert (made.parts, made.compounds, made.most_pictures) == (0, 0, 0)
