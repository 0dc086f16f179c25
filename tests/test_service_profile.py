"""`dopaint profile`: options, refusals in one line, exit codes, the last line; small real runs of the engines."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from painted_screen import CHANNELS, FOLDER_PATTERN, PLATES, screen, tables_of, write_folder, write_jump, write_ome_zarr
from quarters import Quarters
from typer.testing import CliRunner

import profiling.engines
from profiling.engines import environment
from profiling.tables import read_profiles
from service.cli import app
from service.errors import InvalidRequest
from service.measure import channels_of, size_of

RUNNER = CliRunner()


class Engine(Quarters):
    """Takes what an engine takes, and starts nothing."""

    def __init__(self, settings: str, workers: int, timeout_s: float) -> None:
        super().__init__()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command with an engine that looks at quarters, and --out below the test's folder."""
    monkeypatch.setitem(profiling.engines.ENGINES, "quarters", Engine)

    def run(source: Path, *options: str, out: str = "p.parquet", engine: str = "quarters") -> Any:
        arguments = ["profile", str(source), "--out", str(tmp_path / out), "--engine", engine, *options]
        return RUNNER.invoke(app, arguments)

    return run


def test_a_device_is_for_the_engine_fast_and_must_be_there(
    profile: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "in")
    options = ("--bits", "16", "--pattern", FOLDER_PATTERN, "--device", "cuda")
    refused = profile(source, *options)
    assert refused.exit_code == 2
    assert "device: quarters runs on cores only" in refused.stderr
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    missing = profile(source, *options, engine="fast")
    assert missing.exit_code == 2
    assert "sees 0 GPUs: use --device cpu" in " ".join(missing.stderr.split())


def last(result: Any) -> str:
    return str(result.stdout).strip().splitlines()[-1]


def test_a_whole_run_and_again(profile: Callable[..., Any], tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in")
    options = ("--bits", "16", "--pattern", FOLDER_PATTERN, "--level", "cell,field,well", "--workers", "1")
    result = profile(source, *options)
    assert result.exit_code == 0, result.output
    assert last(result) == "8 fields in: 8 ok; 8 measured, 0 not; 32 cells, 4 wells"
    assert len(read_profiles(tmp_path / "p.cell.parquet")) == 32
    first = dict(tables_of(tmp_path))
    again = profile(source, *options)
    assert again.exit_code == 0
    assert "8 fields were finished by an earlier run" in again.stdout
    assert dict(tables_of(tmp_path)) == first


def test_exit_codes_and_the_table_of_outcomes(profile: Callable[..., Any], tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in")
    bad = sorted(source.rglob("*_DNA.tif"))
    bad[0].write_bytes(b"no picture")
    result = profile(source, "--bits", "16", "--pattern", FOLDER_PATTERN)
    assert result.exit_code == 3
    assert last(result) == "8 fields in: 7 ok, 1 unreadable; 7 measured, 1 not; 28 cells, 4 wells"
    told = pd.read_csv(tmp_path / "p.outcomes.csv", keep_default_na=False)
    assert told["Outcome"].tolist() == ["unreadable"] + ["ok"] * 7
    assert bad[0].name in told["Reason"][0]
    for path in bad:
        path.unlink()
    assert profile(source, "--bits", "16", "--pattern", FOLDER_PATTERN).exit_code == 1


def test_jump_and_zarr_are_seen_by_their_look(profile: Callable[..., Any], tmp_path: Path) -> None:
    result = profile(write_jump(tmp_path / "gallery", "phenix", True), "--bits", "16", "--plates", PLATES[0])
    assert result.exit_code == 0, result.output
    assert last(result).startswith("4 fields in: 4 ok;")
    assert profile(write_ome_zarr(tmp_path / "zarr", "0.5"), "--bits", "16", out="z.parquet").exit_code == 0
    ours, zarrs = read_profiles(tmp_path / "p.parquet"), read_profiles(tmp_path / "z.parquet")
    np.testing.assert_array_equal(ours.values, zarrs.values[:2])


REFUSED = {
    "no range": ((), "state it with --bits"),
    "another range": (("--bits", "14"), "expected one of 8, 12, 16, float"),
    "no pattern": (("--bits", "16", "--pattern", "{_a}/{_b}/{plate}/{spot}.tif"), "name its planes"),
    "level": (("--bits", "16", "--level", "plate"), "expected some of cell, field, well"),
    "channels": (("--bits", "16", "--channels", "DNA,ER=2"), "the same form for all channels"),
    "unknown channel": (("--bits", "16", "--channels", "DNA=ch5"), "DNA=ch5 are in no file"),
    "engine": (("--bits", "16", "--engine", "magic"), "expected one of cellprofiler, fast, cp_measure"),
    "weights": (("--bits", "16", "--weights", "w"), "they are for random_conv"),
    "size": (("--bits", "16", "--size", "big"), "as in 1080x1080"),
    "format": (("--bits", "16", "--format", "dicom"), "expected one of folder, ome-tiff"),
    "quality": (("--bits", "16", "--quality", "nowhere.toml"), "neither 'default' nor a TOML file"),
    "illumination": (("--bits", "16", "--illumination", "nowhere"), "neither 'estimate' nor a TOML file"),
    "too few for illumination": (("--bits", "16", "--illumination", "estimate"), "expected at least 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_exit_code_2(case: str, profile: Callable[..., Any], tmp_path: Path) -> None:
    options, told = REFUSED[case]
    source = write_folder(tmp_path / "in", screen()[:1])
    pattern = () if "--pattern" in options else ("--pattern", FOLDER_PATTERN)
    result = profile(source, *pattern, *options)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1
    assert told in lines[0]
    assert not list(tmp_path.glob("*.parquet"))


def test_the_output_is_a_parquet_file(profile: Callable[..., Any], tmp_path: Path) -> None:
    assert "ends in .parquet" in profile(tmp_path, out="p.csv").stderr


def test_options_as_text() -> None:
    assert channels_of(None) is None
    assert channels_of("DNA, ER") == ("DNA", "ER")
    assert channels_of("DNA=ch5,ER=4") == {"DNA": "ch5", "ER": "4"}
    assert size_of("904x1224") == (904, 1224)
    for bad in ("DNA,,ER", "DNA,DNA", "DNA=", "=x,ER=y"):
        with pytest.raises(InvalidRequest, match="channels"):
            channels_of(bad)


# ---------------------------------------------------------------------------------------------------------------------
# illumination and quality control


def shaded(root: Path) -> tuple[Path, np.ndarray]:
    """Twelve fields of one plate and one well, painted ones under a known vignette; the last one is flat."""
    y, x = np.mgrid[:128, :128] / 127.0 - 0.5
    light = (1.0 / (1.0 + 1.6 * (x**2 + y**2))).astype(np.float32)
    place = root / "P1"
    place.mkdir(parents=True)
    for k in range(12):
        shot = screen()[k % 8].counts[:, :: 1 if k < 8 else -1]
        planes = shot * light if k < 11 else np.full_like(shot, shot.mean()) + (shot == shot.max())
        for name, plane in zip(CHANNELS, planes, strict=True):
            tifffile.imwrite(place / f"A01_s{k}_{name}.tif", np.rint(plane).astype(np.uint16))
    return root, light


def test_illumination_is_estimated_by_plate_or_read_from_a_folder(profile: Callable[..., Any], tmp_path: Path) -> None:
    """The gallery's own functions, as .npy files, must give what dividing by them gives."""
    source, light = shaded(tmp_path / "in")
    common = ("--bits", "16", "--pattern", "{plate}/{well}_s{site}_{channel}.tif", "--level", "field")
    functions = tmp_path / "illum" / "P1"
    functions.mkdir(parents=True)
    for name in CHANNELS:
        np.save(functions / f"P1_Illum{name}.npy", light.astype(np.float64) / light.min())
    plain = profile(source, *common, out="plain.parquet")
    read = profile(source, *common, "--illumination", str(tmp_path / "illum"), out="read.parquet")
    estimated = profile(source, *common, "--illumination", "estimate", out="estimated.parquet")
    assert (plain.exit_code, read.exit_code, estimated.exit_code) == (0, 0, 0), read.output + estimated.output
    before, after, ours = (read_profiles(tmp_path / f"{n}.parquet") for n in ("plain", "read", "estimated"))
    k = before.names.index("Nuclei_Mean_0")
    assert not np.allclose(before.values[:, k], after.values[:, k], rtol=0.01)
    assert not np.array_equal(before.values[:, k], ours.values[:, k])
    picture = tifffile.imread(source / "P1" / "A01_s3_DNA.tif") / 65535 / (light.astype(np.float64) / light.min())
    quarters = [picture[y : y + 64, x : x + 64].mean() for y in (0, 64) for x in (0, 64)]
    assert after.values[3, k] == pytest.approx(np.median(quarters), rel=1e-6)  # float32 pixels
    again = profile(source, *common, "--illumination", "estimate", out="estimated.parquet")
    assert "12 fields were finished" in again.stdout
    gallery = tmp_path / "mirror/images/B1/illum"
    gallery.parent.mkdir(parents=True)
    (tmp_path / "illum").rename(gallery)
    (source / "S1/B1").mkdir(parents=True)
    (source / "P1").rename(source / "S1/B1/P1")
    named = "{source}/{batch}/{plate}/{well}_s{site}_{channel}.tif"
    mirror = ("--bits", "16", "--pattern", named, "--level", "field", "--illumination", str(tmp_path / "mirror"))
    assert profile(source, *mirror, out="mirror.parquet").exit_code == 0
    np.testing.assert_array_equal(read_profiles(tmp_path / "mirror.parquet").values, after.values)
    bare = profile(source, *common[:2], "--pattern", named, "--illumination", str(tmp_path), out="x.parquet")
    assert bare.exit_code == 2
    assert "neither P1.npz nor P1_Illum<channel>.npy" in bare.stderr


def test_quality_control_flags_excludes_and_counts_and_measures_nothing_anew(
    profile: Callable[..., Any], tmp_path: Path
) -> None:
    source, _ = shaded(tmp_path / "in")
    common = ("--bits", "16", "--pattern", "{plate}/{well}_s{site}_{channel}.tif")
    assert profile(source, *common).exit_code == 0
    free = read_profiles(tmp_path / "p.parquet")
    result = profile(source, *common, "--quality", "default")
    assert result.exit_code == 0, result.output
    assert "12 fields were finished" in result.stdout
    fields, wells = read_profiles(tmp_path / "p.field.parquet"), read_profiles(tmp_path / "p.parquet")
    assert "saturated:DNA" in fields.column("Flags")[11]  # all of a flat picture stands at its own maximum
    excluded = int(12 - wells.column("Rows_Used")[0])
    assert excluded >= 1
    assert f"12 measured, {excluded} of them flagged and left out of their wells, 0 not" in last(result)
    assert not np.array_equal(free.values, wells.values)
    counts = pd.read_csv(tmp_path / "p.quality.csv", keep_default_na=False).set_index("flag")
    assert int(counts.loc["excluded", "pictures"]) == excluded
    (tmp_path / "own.toml").write_text('max_percent_maximal = "off"\nexclude = []\n')
    loose = profile(source, *common, "--quality", str(tmp_path / "own.toml"))
    assert "left out" not in last(loose)
    np.testing.assert_array_equal(read_profiles(tmp_path / "p.parquet").values, free.values)


# ---------------------------------------------------------------------------------------------------------------------
# the real engines


def test_random_conv_by_command(profile: Callable[..., Any], tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", screen()[:3])
    result = profile(source, "--bits", "16", "--pattern", FOLDER_PATTERN, engine="random_conv")
    assert result.exit_code == 0, result.output
    assert last(result) == "3 fields in: 3 ok; 3 measured, 0 not; 0 cells, 2 wells"
    assert read_profiles(tmp_path / "p.parquet").names[2] == "Field_random_conv_000"


@pytest.mark.parametrize("engine", ["cellprofiler", "fast"])
def test_painted_fields_by_the_real_engines(engine: str, profile: Callable[..., Any], tmp_path: Path) -> None:
    """Two formats, one engine: the same bytes; cells, nuclei and cytoplasm stand in one row."""
    if engine == "cellprofiler" and not environment.default_venv().is_dir():
        pytest.skip("needs `dopaint setup cellprofiler`")
    options = ("--bits", "16", "--settings", "sim128", "--workers", "1", "--level", "cell,field,well")
    names = ("--pattern", FOLDER_PATTERN.replace("{source}/{batch}", "{_source}/{_batch}"))
    for place, source, more in (
        ("folder", write_folder(tmp_path / "in"), names),
        ("zarr", write_ome_zarr(tmp_path / "zarr-in", "0.4"), ()),
    ):
        (tmp_path / place).mkdir()
        result = profile(source, *options, *more, out=f"{place}/p.parquet", engine=engine)
        assert result.exit_code == 0, result.output + (tmp_path / place / "p.outcomes.csv").read_text()
    assert dict(tables_of(tmp_path / "folder")) == dict(tables_of(tmp_path / "zarr"))
    cells = read_profiles(tmp_path / "folder/p.cell.parquet")
    column = {name: cells.values[:, k] for k, name in enumerate(cells.names)}
    assert len(cells) > 20
    assert np.all(column["Nuclei_AreaShape_Area"] <= column["Cells_AreaShape_Area"])
    distance = np.hypot(
        column["Nuclei_Location_Center_X"] - column["Cells_Location_Center_X"],
        column["Nuclei_Location_Center_Y"] - column["Cells_Location_Center_Y"],
    )
    assert distance.max() < 15  # a cell stands about its own nucleus
    fields = read_profiles(tmp_path / "folder/p.field.parquet")
    assert fields.values[:, 0].sum() == len(cells)


def test_real_fields_by_the_fast_engine(profile: Callable[..., Any], tmp_path: Path, real_data: Path) -> None:
    """A JUMP pilot field as it lies in the wild: 16-bit LZW TIFF, channels by number; 1080 x 1080 pixels."""
    folder = real_data / "cell_painting_fields/cpjump1_BR00117010_A01_f01"
    tokens = "DNA=5,ER=4,RNA=3,AGP=2,Mito=1"
    pattern = "r{row}c{column}f{site}p01-ch{channel}sk1fk1fl1.tiff"
    options = ("--bits", "16", "--pattern", pattern, "--channels", tokens, "--settings", "jump", "--workers", "1")
    result = profile(folder, *options, "--level", "cell,field,well", engine="fast")
    assert result.exit_code == 0, result.output
    cells = read_profiles(tmp_path / "p.cell.parquet")
    assert len(cells) > 50
    assert os.path.getsize(tmp_path / "p.parquet") > 0
