"""Files in, Biosimilarities out; and the real tables: published numbers, BBBC021, the JUMP pilot."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiling.library import read_folder, score_file
from profiling.profiles import InvalidProfiles, Profiles, aggregate, concatenate
from profiling.retrieval import Pairing, average_precisions, mean_average_precision, nearest_matches
from profiling.subprofile import biosimilarity, build
from profiling.tables import read_profiles, split_table, write_profiles


def made(tmp_path, convention="paper"):
    rng = np.random.default_rng(0)
    names = [f"Cells_f{i}" for i in range(30)]
    values = rng.normal(size=(20, 30)) + np.repeat(2 * rng.normal(size=(2, 30)), 10, axis=0)
    sub = build(values, ["a"] * 10 + ["b"] * 10, names, convention)
    sub.write(tmp_path / "subprofiles.parquet")
    meta = pd.DataFrame({"Metadata_Well": [f"A{i:02d}" for i in range(20)]})
    return Profiles(meta, values, tuple(names)), sub


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv.gz"])
def test_files_in_and_out(tmp_path, ending):
    profiles, sub = made(tmp_path)
    path = tmp_path / f"profiles.{ending}"
    if ending == "parquet":
        write_profiles(profiles, path)
    else:
        flat = pd.concat([profiles.meta, pd.DataFrame(profiles.values, columns=list(profiles.names))], axis=1)
        flat.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
    table = score_file(path, tmp_path, out=tmp_path / f"out.{ending}")
    np.testing.assert_allclose(table[["a", "b"]], biosimilarity(profiles.values, sub), atol=1e-12)
    back = read_profiles(tmp_path / f"out.{ending}", features=["a", "b"])
    np.testing.assert_allclose(back.values, table[["a", "b"]], atol=1e-12)
    assert back.column("Well").tolist() == profiles.column("Well").tolist()


def test_the_convention_may_be_changed_for_the_similarity(tmp_path):
    profiles, _ = made(tmp_path)
    write_profiles(profiles, tmp_path / "p.parquet")
    paper, reference = (score_file(tmp_path / "p.parquet", tmp_path, c) for c in ("paper", "reference"))
    np.testing.assert_allclose(reference[["a", "b"]], 100 * np.maximum(paper[["a", "b"]], 0), atol=1e-9)
    with pytest.raises(InvalidProfiles, match="convention must be"):
        score_file(tmp_path / "p.parquet", tmp_path, "mine")


def test_refusals(tmp_path):
    with pytest.raises(InvalidProfiles, match="has neither"):
        read_folder(tmp_path)
    (tmp_path / "med_prof_X.tsv").write_text("f1\tf2\n1.0\t2.0\n")
    with pytest.raises(InvalidProfiles, match="expected one file parms_X"):
        read_folder(tmp_path)
    (tmp_path / "parms_X_0.85.txt").write_text("f1\nf3\n")
    with pytest.raises(InvalidProfiles, match="lacks 1 features"):
        read_folder(tmp_path)


def test_published_tables_to_the_digit(real_data: Path, tmp_path):
    folder = real_data / "subprofile_reference"
    table = score_file(folder / "dcm_profiles_run1.tsv.gz", folder, "reference", tmp_path / "out.csv")
    labels = list(read_folder(folder).labels)
    published = table[[f"Metadata_Cluster_{label}" for label in labels]].to_numpy(dtype=np.float64)
    worst = np.abs(np.round(table[labels].to_numpy(), 1) - published).max(axis=0)
    assert len(labels) == 13
    assert [label for label, d in zip(labels, worst, strict=True) if d > 1e-9] == ["Pyrimidine_Synth"]


def test_bbbc021_nearest_neighbour_is_94_of_103(real_data: Path):
    """Median per treatment of the published feature-selected table, cosine, not the same compound."""
    table = pd.read_csv(real_data / "bbbc021" / "BBBC021_feature_selected_mad_robustize.csv.gz")
    moa = next(c for c in table.columns if c.lower().endswith("moa"))
    compound = next(c for c in table.columns if c.lower().endswith("compound"))
    dose = next(c for c in table.columns if c.lower().endswith("concentration"))
    named = [c for c in table.columns if c.startswith(("Cells_", "Nuclei_", "Cytoplasm_"))]
    wells = split_table(table.dropna(subset=[moa]), named)
    plain = {
        f"Metadata_{c}".replace("Metadata_Metadata_", "Metadata_"): n for c, n in ((moa, "moa"), (compound, "compound"))
    }
    meta = wells.meta.rename(columns={old: f"Metadata_{new}" for old, new in plain.items()})
    wells = Profiles(meta, wells.values, wells.names)
    treated = wells.rows(wells.column("moa") != "DMSO")
    dose = dose if dose.startswith("Metadata_") else f"Metadata_{dose}"
    treatments = aggregate(treated, ["compound", dose, "moa"], "median")
    right = nearest_matches(treatments, "moa", ["compound"])
    assert (int(right.sum()), len(right)) == (94, 103)


def test_jump_pilot_replicates_agree_and_mechanisms_a_little(real_data: Path):
    """CPJUMP1, four plates: numbers measured once with this code, and with copairs for the replicates."""
    tables = [read_profiles(f) for f in sorted((real_data / "cpjump1_profiles").glob("BR*.csv.gz"))]
    wells = concatenate([t.features(tables[0].names) for t in tables])
    treated = wells.rows(wells.column("pert_type") == "trt")
    pairing = Pairing(("broad_sample",), ("Plate",), (), ("broad_sample",))
    table = average_precisions(treated, pairing)
    scores = mean_average_precision(table, ["broad_sample"], np.random.default_rng(0), 1000)
    assert scores["map"].mean() == pytest.approx(0.2925, abs=0.0005)
    assert scores["chance"].mean() == pytest.approx(0.0092, abs=0.0005)
    assert 0.6 < (scores["q"] < 0.05).mean() < 0.75
    compounds = aggregate(treated, ["broad_sample"])
    path = real_data / "jump_target" / "JUMP-Target-1_compound_metadata_additional_annotations.tsv"
    moa = pd.read_csv(path, sep="\t").set_index("broad_sample")["moa_list"]
    meta = compounds.meta.assign(Metadata_moa=compounds.meta["Metadata_broad_sample"].map(moa))
    named = Profiles(meta, compounds.values, compounds.names)
    found = average_precisions(named, Pairing(("moa",), ("broad_sample",), (), ("moa",), several=("moa",)))
    assert found["normalised"].mean() == pytest.approx(0.0595, abs=0.001)
