"""The pipeline with a fake machine room: what a molecule's answer depends on, and what it does not."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from service.errors import InvalidRequest, ReferenceMismatch, UnknownName
from service.fake import FakeRoom
from service.pipeline import predict_in
from service.request import FAILED, INVALID, OK, OUT_OF_DOMAIN, Request

KNOWN, UNSEEN, STRANGE = "CCCCO", "CCCCCCCCO", "CC(=O)Oc1ccccc1C(=O)O"
KEY = "LRHPLDYGYMQRHN-UHFFFAOYSA-N"


@pytest.fixture(scope="module")
def room() -> FakeRoom:
    return FakeRoom()


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_molecule_has_the_same_bytes_alone_in_a_list_and_again(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 5), tmp_path / "alone")
    predict_in(room, Request(("CCN", "not-a-smiles", "OCCCC", STRANGE), 5), tmp_path / "list")
    predict_in(FakeRoom(), Request((KNOWN,), 5), tmp_path / "again")
    alone = digests(tmp_path / "alone" / KEY)
    assert len(alone) == 5 + 2 * 5  # manifest, two profiles, two predictions; a picture and its preview for each draw
    assert alone == digests(tmp_path / "list" / KEY) == digests(tmp_path / "again" / KEY)
    assert digests(tmp_path / "alone" / "control") == digests(tmp_path / "list" / "control")
    # ... and again into the same folder, without a trace of the first time
    before = digests(tmp_path / "alone")
    predict_in(room, Request((KNOWN,), 5), tmp_path / "alone")
    assert digests(tmp_path / "alone") == before
    assert not list((tmp_path / "alone").glob(".*"))


def test_another_seed_gives_other_pictures(room: FakeRoom, tmp_path: Path) -> None:
    for seed in (1, 2):
        predict_in(room, Request((KNOWN,), 3, seed), tmp_path / str(seed))
    first, second = (digests(tmp_path / str(seed) / KEY / "pictures") for seed in (1, 2))
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())


def test_the_first_draws_do_not_depend_on_how_many_follow(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 4), tmp_path / "few")
    predict_in(room, Request((KNOWN,), 40), tmp_path / "many")  # more than one chunk
    few, many = (digests(tmp_path / name / KEY / "pictures") for name in ("few", "many"))
    assert few.items() <= many.items()
    assert len(many) == 80


def test_compound_and_control_share_contexts_and_seeds(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 6), tmp_path)
    compound = pd.read_parquet(tmp_path / KEY / "profiles.parquet")
    control = pd.read_parquet(tmp_path / "control" / "profiles.parquet")
    shared = [f"Metadata_{name}" for name in ("draw", "source", "batch", "plate", "row", "column", "seed")]
    pd.testing.assert_frame_equal(compound[shared], control[shared])
    assert compound["Metadata_seed"].nunique() == 6
    assert set(compound["Metadata_compound"]) == {KEY}


def test_the_effect_is_the_paired_mean_difference_in_control_mads(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 6), tmp_path)
    compound = pd.read_parquet(tmp_path / KEY / "profiles.parquet")
    control = pd.read_parquet(tmp_path / "control" / "profiles.parquet")
    effects = pd.read_parquet(tmp_path / KEY / "effects.parquet").set_index("feature")
    scale = room.reference().normalisation.to_table().set_index("feature")["scale"]
    name = "Cells_Intensity_Fake_7"
    differences = (compound[name] - control[name]) / scale[name]
    assert effects.loc[name, "value"] == pytest.approx(differences.mean(), rel=1e-12)
    assert effects.loc[name, "se"] == pytest.approx(differences.std(ddof=1) / np.sqrt(6), rel=1e-9)
    assert effects["covers"].unique().tolist() == ["draws"]


def test_outcomes_and_one_bad_molecule_spoils_nothing(room: FakeRoom) -> None:
    broken = FakeRoom(broken=("CCN",))
    asked = Request((KNOWN, "not-a-smiles", "CCN", STRANGE, "CS(C)=O", "CCCCO.Cl", UNSEEN), 4)
    outcomes = predict_in(broken, asked)
    assert [one.outcome for one in outcomes] == [OK, INVALID, FAILED, OUT_OF_DOMAIN, INVALID, OK, OK]
    assert [one.index for one in outcomes] == list(range(7))
    assert [one.input for one in outcomes] == list(asked.smiles)
    assert outcomes[1].reason == "unparsable"
    assert outcomes[1].position == 3
    assert outcomes[4].reason == "is_control"
    assert outcomes[5].changes
    assert outcomes[0].answer == outcomes[5].answer == predict_in(room, Request((KNOWN,), 4))[0].answer


def test_draws_without_cells_are_counted_and_never_replaced(room: FakeRoom) -> None:
    sparse = FakeRoom(sparse=(KNOWN,), dead=("CCN",), torn=("CCCN",))
    some, none, torn = predict_in(sparse, Request((KNOWN, "CCN", "CCCN"), 8))
    assert some.answer is not None
    assert some.answer["draws"]["compound_without_cells"] == 4
    assert some.answer["draws"]["requested"] == 8
    assert some.answer["draws"]["effect_on_share_with_cells"] == -0.5
    assert some.answer["moa"]["n_draws_with_cells"] == 4
    assert some.answer["moa"]["ranking"][0]["label"] == "alpha"
    assert none.answer is not None
    assert none.outcome == OK
    assert none.answer["moa"]["call"] is None
    assert "no draw has cells" in none.answer["withheld"]
    assert none.answer["draws"]["effect_on_share_with_cells"] == -1.0
    assert torn.outcome == FAILED
    assert torn.reason == "engine_failure"
    assert "none of 8 pictures could be measured" in torn.sentence


def test_no_call_outside_the_simulated_library_unless_asked_for(room: FakeRoom) -> None:
    answer = predict_in(room, Request((STRANGE,), 4))[0].answer
    assert answer is not None
    assert answer["moa"]["ranking"] == answer["target"]["ranking"] == []
    assert answer["moa"]["call"] is None
    assert "allow_simulated" in answer["withheld"]
    allowed = predict_in(room, Request((STRANGE,), 4, allow_simulated=True))[0]
    assert allowed.outcome == OK
    assert allowed.answer is not None
    assert allowed.answer["withheld"] == ""
    assert len(allowed.answer["moa"]["ranking"]) == 3
    assert allowed.answer["evidence"] == "simulation"


def test_abstaining_withholds_the_call_outside_the_domain_and_nothing_else(room: FakeRoom) -> None:
    outside = predict_in(room, Request((STRANGE,), 4, allow_simulated=True, abstain=True))[0]
    assert outside.answer is not None
    assert outside.answer["domain"]["zone"] == "out"
    assert outside.answer["moa"]["ranking"] == []
    assert "asked to abstain" in outside.answer["withheld"]
    assert outside.answer["request"]["abstain"]
    inside = predict_in(room, Request(("CCCCN",), 4, abstain=True))[0].answer
    assert inside is not None
    assert inside["withheld"] == ""
    assert len(inside["moa"]["ranking"]) == 3


def test_the_right_class_is_first_with_its_evidence(room: FakeRoom) -> None:
    for smiles, label in ((UNSEEN, "alpha"), ("CCCCN", "beta"), ("CCCc1ccccc1", "gamma")):
        answer = predict_in(room, Request((smiles,), 8))[0].answer
        assert answer is not None
        best = answer["moa"]["ranking"][0]
        assert best["label"] == label
        assert -1 <= best["low"] < best["high"] <= 1
        assert best["chance"] < best["score"]
        assert [one["name"].split()[0] for one in best["compounds"]] == [label] * 3
        assert [one["label"] for one in answer["target"]["ranking"]][:2].count(f"T_{label}") == 1
        assert answer["interval"] == {"level": 0.95, "covers": "draws", "sentence": "draws only, not model error"}


def test_a_reference_compound_is_not_its_own_evidence(room: FakeRoom) -> None:
    answer = predict_in(room, Request((KNOWN,), 8))[0].answer
    assert answer is not None
    alpha = next(one for one in answer["moa"]["ranking"] if one["label"] == "alpha")
    assert alpha["n_references"] == 5  # of six
    assert KEY not in {one["inchikey"] for one in (*alpha["compounds"], *answer["moa"]["nearest"])}
    assert alpha["structure"] < 1


def test_cell_count_alone_stands_beside_and_drivers_are_grouped(room: FakeRoom) -> None:
    answer = predict_in(room, Request((KNOWN,), 8))[0].answer
    assert answer is not None
    library = room.reference().without(KEY[:14])
    counts = library.profiles.column("Cell_Count")
    own = answer["cell_count"]
    assert own is not None
    for one in answer["moa"]["ranking"]:
        at = [one["label"] in labels for labels in library.labels("moa")]
        assert one["cell_count"] == pytest.approx(-np.abs(counts[at] - own["effect"]).min(), rel=1e-4)
    groups = answer["moa"]["driver_groups"]
    assert {(g["compartment"], g["family"]) for g in groups} == {("Cells", "Intensity")}
    total = sum(g["contribution"] for g in groups)
    assert total == pytest.approx(answer["moa"]["ranking"][0]["score"], abs=1e-4)


def test_evidence_is_in_every_file(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN, STRANGE), 2), tmp_path)
    for name in ("predictions.json", "manifest.json"):
        assert json.loads((tmp_path / KEY / name).read_text())["evidence"] == "simulation"
    for name in ("profiles.parquet", "effects.parquet"):
        table = pd.read_parquet(tmp_path / KEY / name)
        column = "Metadata_Evidence" if name == "profiles.parquet" else "evidence"
        assert set(table[column]) == {"simulation"}
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table.columns[0] == "evidence"
    assert set(table["evidence"]) == {"simulation"}
    assert table["withheld"].notna().sum() == 1
    with tifffile.TiffFile(tmp_path / KEY / "pictures" / "draw_0000.ome.tiff") as file:
        assert file.is_ome
        assert file.ome_metadata is not None
        assert "simulation" in file.ome_metadata
        assert file.series[0].axes == "CYX"
        assert file.asarray().shape == (5, 16, 16)
    assert json.loads((tmp_path / "request.json").read_text())["evidence"] == "simulation"


def test_results_know_neither_clock_nor_path(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 2), tmp_path / "unmistakable")
    for path in (tmp_path / "unmistakable").rglob("*"):
        if path.is_file():
            assert b"unmistakable" not in path.read_bytes(), path.name


def test_a_library_made_otherwise_is_refused() -> None:
    room = FakeRoom(engine="one")
    room.reference()
    other = FakeRoom(engine="other")
    other.reference = room.reference  # type: ignore[method-assign]
    with pytest.raises(ReferenceMismatch, match="engine"):
        predict_in(other, Request((KNOWN,), 2))


@pytest.mark.parametrize(
    "wrong", [{"smiles": ()}, {"draws": 0}, {"draws": 1001}, {"seed": -1}, {"smiles": ("C",) * 1001}], ids=str
)
def test_bounds(wrong: dict) -> None:
    with pytest.raises(InvalidRequest, match="expected"):
        Request(**{"smiles": ("C",), **wrong})


def test_contexts_can_be_named(room: FakeRoom, tmp_path: Path) -> None:
    predict_in(room, Request((KNOWN,), 30, contexts=("S1B2", "S2")), tmp_path)
    table = pd.read_parquet(tmp_path / KEY / "profiles.parquet")
    assert set(table["Metadata_batch"]) == {"S1B2", "S2B1", "S2B2", "S2B3"}
    assert set(table.loc[table["Metadata_source"] == "S1", "Metadata_plate_format"]) == {1536}
    with pytest.raises(UnknownName, match="context 'S9' is not known"):
        predict_in(room, Request((KNOWN,), 2, contexts=("S9",)))


def test_progress_counts_every_picture_twice(room: FakeRoom) -> None:
    seen: list[tuple[int, int]] = []
    predict_in(FakeRoom(broken=("CCN",)), Request((KNOWN, "CCN", KNOWN), 4), None, lambda d, t, _: seen.append((d, t)))
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_tautomers_that_share_an_inchikey_have_folders_of_their_own(room: FakeRoom, tmp_path: Path) -> None:
    keto, enol = "O=c1cccc[nH]1", "Oc1ccccn1"  # one standard InChIKey, two molecules as drawn
    outcomes = predict_in(room, Request((keto, enol), 2), tmp_path)
    assert outcomes[0].inchikey == outcomes[1].inchikey
    assert outcomes[0].folder != outcomes[1].folder
    assert (tmp_path / outcomes[1].folder / "predictions.json").is_file()
