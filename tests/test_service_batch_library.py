"""Screening and hit expansion from effects computed before: against plain loops, in a library of known classes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from profiling.profiles import Profiles
from profiling.tables import write_profiles
from service.batch.ask import BatchRequest
from service.batch.drive import run
from service.batch.inline import InlineExecutor
from service.batch.room import FAKE, FakeBatchRoom
from service.batch.store import Store
from service.errors import InvalidRequest, ReferenceMismatch, UnknownName
from service.expand import expand
from service.fake import class_of
from service.library_effects import LibraryEffects, open_library
from service.screen import nearest_labels, nearest_to_label

MOLECULES = ["CCCCO", "CCCCCCCCO", "CCN", "CCCCCCCCN", "Cc1ccccc1", "CCCCCCCCc1ccccc1", "CCCCCCCCCO"]
ROOM = FakeBatchRoom()
REFERENCE = ROOM.reference()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("library")
    (out / "a.smi").write_text("".join(f"{one}\n" for one in MOLECULES))
    request = BatchRequest(model=FAKE, draws=6, part=3, allow_simulated=True)
    with InlineExecutor(ROOM) as executor:
        run(out / "a.smi", request, Store(str(out / "run")), executor, room=ROOM)
    return out / "run"


@pytest.fixture(scope="module")
def library(folder: Path) -> LibraryEffects:
    return open_library(str(folder))


def effects(folder: Path) -> pd.DataFrame:
    parts = [pd.read_parquet(path) for path in sorted((folder / "effects").iterdir())]
    return pd.concat(parts).set_index("Metadata_SMILES")[list(REFERENCE.profiles.names)]


def tanimoto_of(a: str, b: str) -> float:
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return float(DataStructs.TanimotoSimilarity(*(make.GetFingerprint(Chem.MolFromSmiles(one)) for one in (a, b))))


def test_biology_is_the_correlation_of_effects(folder: Path, library: LibraryEffects) -> None:
    found = expand("CCCCO", library, REFERENCE, "biology")
    table = effects(folder)
    wanted = {smiles: np.corrcoef(table.loc["CCCCO"], table.loc[smiles])[0, 1] for smiles in MOLECULES[1:]}
    assert found["rank"].tolist() == list(range(1, 7))
    assert found["smiles"].tolist() == sorted(wanted, key=lambda one: -wanted[one])
    np.testing.assert_allclose(found["score"], sorted(wanted.values(), reverse=True), rtol=1e-9)
    assert [class_of(one) for one in found["smiles"][:2]] == ["alpha", "alpha"]  # its own class comes first
    np.testing.assert_allclose(found["chance"], np.median(list(wanted.values())))
    assert set(found["evidence"]) == {"simulation"}


def test_structure_is_tanimoto_and_needs_no_effect_of_the_query(library: LibraryEffects) -> None:
    query = "CCCCCCCCCCCCN"
    found = expand(query, library, REFERENCE, "structure").set_index("smiles")
    for smiles in MOLECULES:
        assert found.loc[smiles, "score"] == pytest.approx(tanimoto_of(query, smiles), abs=1e-6)
    with pytest.raises(InvalidRequest, match="has no effect in the library"):
        expand(query, library, REFERENCE, "biology")


def test_both_fuses_the_ranks(library: LibraryEffects) -> None:
    both = expand("CCCCO", library, REFERENCE, "both").set_index("smiles")
    one, other = (expand("CCCCO", library, REFERENCE, way).set_index("smiles") for way in ("biology", "structure"))
    for smiles in both.index:
        ranks = [(way["score"] > way.loc[smiles, "score"]).sum() + 1 for way in (one, other)]
        assert both.loc[smiles, "score"] == pytest.approx(sum(1 / (60 + rank) for rank in ranks))


def test_a_label_is_a_query_too(library: LibraryEffects) -> None:
    found = expand("moa:beta", library, REFERENCE, "biology", top=1)
    assert found["smiles"].tolist() == ["CCCCCCCCN"]  # CCN is a reference of beta: the query itself
    by_key = expand("LRHPLDYGYMQRHN-UHFFFAOYSA-N", library, REFERENCE, "biology")
    by_smiles = expand("OCCCC", library, REFERENCE, "biology")
    pd.testing.assert_frame_equal(by_key, by_smiles)
    assert "CCCCO" in set(expand("OCCCC", library, REFERENCE, "biology", keep_own=True)["smiles"])
    unknown = (("moa:nobody", UnknownName), ("AAAAAAAAAAAAAA-UHFFFAOYSA-N", UnknownName), ("no!", InvalidRequest))
    for text, kind in unknown:
        with pytest.raises(kind, match="query"):
            expand(text, library, REFERENCE)
    with pytest.raises(UnknownName, match="by: got 'luck'"):
        expand("CCO", library, REFERENCE, "luck")


def test_screening_says_what_predictions_say(folder: Path, library: LibraryEffects) -> None:
    found = nearest_labels(library, REFERENCE).set_index("smiles")
    told = pd.read_parquet(folder / "predictions")
    told = told[(told["kind"] == "moa") & (told["rank"] == 1)].set_index("smiles")
    for smiles in ("CCCCCCCCO", "CCCCCCCCN", "CCCCCCCCCO"):  # no references themselves: nothing is left out for them
        assert found.loc[smiles, "label"] == told.loc[smiles, "label"] == class_of(smiles)
        assert found.loc[smiles, "score"] == pytest.approx(told.loc[smiles, "score"], rel=1e-5)
        assert found.loc[smiles, "chance"] == pytest.approx(told.loc[smiles, "chance"], rel=1e-5)
        assert found.loc[smiles, "p"] == pytest.approx(told.loc[smiles, "p"], rel=1e-5)
        assert not found.loc[smiles, "is_reference"]
    assert found.loc["CCCCO", "is_reference"]
    nearest = nearest_to_label(library, REFERENCE, "gamma", top=3)
    assert {class_of(one) for one in nearest["smiles"][:2]} == {"gamma"}
    assert nearest["score"].is_monotonic_decreasing
    with pytest.raises(UnknownName, match="no sub-profile"):
        nearest_to_label(library, REFERENCE, "nobody")
    with pytest.raises(UnknownName, match="kind"):
        nearest_labels(library, REFERENCE, "colour")


def test_a_table_of_effects_serves_as_well(folder: Path, tmp_path: Path, library: LibraryEffects) -> None:
    pieces = list(library.pieces())
    meta = pd.concat([one.meta for one in pieces], ignore_index=True)
    values = np.concatenate([one.values for one in pieces])
    write_profiles(Profiles(meta, values, pieces[0].names), tmp_path / "effects.parquet")
    table = open_library(str(tmp_path / "effects.parquet"))
    pd.testing.assert_frame_equal(expand("CCCCO", table, REFERENCE), expand("CCCCO", library, REFERENCE))
    write_profiles(
        Profiles(meta.drop(columns="Metadata_SMILES"), values, pieces[0].names), tmp_path / "without.parquet"
    )
    with pytest.raises(InvalidRequest, match="no column Metadata_SMILES"):
        open_library(str(tmp_path / "without.parquet"))
    with pytest.raises(InvalidRequest, match="neither a file of effects nor a finished batch"):
        open_library(str(tmp_path))


def test_a_library_of_another_model_is_refused(library: LibraryEffects) -> None:
    other = {**library.manifest, "provenance": {**library.manifest["provenance"], "model": "x"}}
    with pytest.raises(ReferenceMismatch, match="another model"):
        expand("CCCCO", LibraryEffects("x", library.pieces, other), REFERENCE)
