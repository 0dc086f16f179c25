"""The CellProfiler engine: determinism, bad pictures, given masks, dead workers, and the two traps of its process."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.measure import label

from profiling.engines import (
    ENGINES,
    CellProfilerEngine,
    CellProfilerMissing,
    FieldMeasurement,
    InvalidPictures,
    InvalidSettings,
    environment,
    settings,
)
from profiling.engines.cellprofiler_worker import processor
from profiling.engines.worker_process import WorkerProcess

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
SIDE = 128


def blobs(seed: int, n: int = 8, side: int = SIDE) -> np.ndarray:
    """Five channels of round cells with nuclei and texture, float32 [5, side, side] in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(float)
    grid = [(r, c) for r in range(22, side - 20, 28) for c in range(22, side - 20, 28)]
    cell, nucleus = np.zeros((side, side)), np.zeros((side, side))
    for k in rng.permutation(len(grid))[:n]:
        cy, cx = np.array(grid[k]) + rng.uniform(-3, 3, 2)
        r = np.hypot((y - cy) * rng.uniform(0.9, 1.1), x - cx)
        cell = np.maximum(cell, rng.uniform(0.7, 1.0) / (1 + np.exp((r - 12) * 1.2)))
        nucleus = np.maximum(nucleus, rng.uniform(0.7, 1.0) / (1 + np.exp((r - 6.5) * 1.5)))
    planes = [nucleus, cell, cell + 0.3 * nucleus, cell * (1 - 0.3 * nucleus), cell * (1 - 0.6 * nucleus)]
    noise = rng.normal(1.0, 0.12, (5, side, side))
    return np.clip(0.02 + 0.25 * np.stack(planes) * noise + rng.normal(0, 0.003, (5, side, side)), 0, 1).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([blobs(1), blobs(2, 12), blobs(3, 5), np.full((5, SIDE, SIDE), 0.1, np.float32)])


@pytest.fixture(scope="module")
def engine():
    with CellProfilerEngine(workers=1, masks=True) as running:
        yield running


@pytest.fixture(scope="module")
def measured(engine: CellProfilerEngine, pictures: np.ndarray) -> list[FieldMeasurement]:
    return engine.measure(pictures, CHANNELS)


def same_bytes(a: FieldMeasurement, b: FieldMeasurement) -> bool:
    tables = all(
        a.objects[k].names == b.objects[k].names and a.objects[k].values.tobytes() == b.objects[k].values.tobytes()
        for k in a.objects
    )
    return (
        (a.outcome, a.reason, list(a.objects)) == (b.outcome, b.reason, list(b.objects))
        and tables
        and (np.array(list(a.image.values())).tobytes() == np.array(list(b.image.values())).tobytes())
    )


def test_counts_and_finds_whole_cells(measured: list[FieldMeasurement]) -> None:
    assert [len(field.objects["Cells"].values) for field in measured[:3]] == [8, 12, 5]
    for field in measured[:3]:
        assert field.outcome == "ok"
        area = field.objects["Nuclei"].values[:, field.objects["Nuclei"].names.index("AreaShape_Area")]
        assert ((area > 90) & (area < 200)).all()  # a disk of radius 6.5 has 133 pixels
        cells = field.masks["Cells"]
        assert len(np.unique(cells)) - 1 == len(area)
        assert not np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]]).any()
        assert field.image["Count_Cells"] == len(area)


def test_modules_families_are_all_there(measured: list[FieldMeasurement]) -> None:
    names = measured[0].objects["Cells"].names
    families = {name.split("_")[0] for name in names}
    assert {
        "AreaShape",
        "Intensity",
        "RadialDistribution",
        "Texture",
        "Granularity",
        "Correlation",
        "Neighbors",
    } <= families
    assert {f"AreaShape_Zernike_{n}_{m}" for n, m in ((0, 0), (9, 9))} <= set(names)
    assert len(names) == len(set(names)) > 1000


def test_blank_picture_has_no_cells_and_the_same_columns(measured: list[FieldMeasurement]) -> None:
    blank = measured[3]
    assert blank.outcome == "no_cells"
    assert "Cells" in blank.reason
    for name, table in blank.objects.items():
        assert table.values.shape == (0, len(table.names))
        assert table.names == measured[0].objects[name].names


def test_same_bytes_for_any_number_of_workers_and_any_order(
    measured: list[FieldMeasurement], pictures: np.ndarray
) -> None:
    order = [2, 0, 3, 1, 0]
    with CellProfilerEngine(workers=2) as two:
        again = two.measure(pictures[order], CHANNELS)
    for i, field in zip(order, again, strict=True):
        assert same_bytes(field, measured[i])


def test_killed_worker_is_replaced_and_nothing_is_lost(
    engine: CellProfilerEngine, measured: list[FieldMeasurement], pictures: np.ndarray
) -> None:
    (victim,) = engine.worker_pids
    os.kill(victim, signal.SIGKILL)
    again = engine.measure(pictures[:2], CHANNELS)
    assert engine.worker_pids != (victim,)
    assert all(same_bytes(a, b) for a, b in zip(again, measured, strict=False))


def test_bad_pictures_are_named_and_stop_nobody(
    engine: CellProfilerEngine, measured: list[FieldMeasurement], pictures: np.ndarray
) -> None:
    bad = pictures[[0, 0, 0]].copy()
    bad[0, 2, 5, 5] = np.nan
    bad[1, 2, 5, 5] = 1.5
    done: list[int] = []
    fields = engine.measure(bad, CHANNELS, progress=done.append)
    assert [field.outcome for field in fields] == ["failed", "failed", "ok"]
    assert "not finite" in fields[0].reason
    assert "1.5" in fields[1].reason
    assert same_bytes(fields[2], measured[0])
    assert done == [1, 2, 3]


def test_hanging_picture_is_given_up_after_two_attempts(engine: CellProfilerEngine, pictures: np.ndarray) -> None:
    with CellProfilerEngine(workers=1, timeout_s=1e-4) as hurried:
        (field,) = hurried.measure(pictures[:1], CHANNELS)
    assert field.outcome == "failed"
    assert "no answer within 0.0001 s (2 attempts)" in field.reason


def test_missing_channels_and_wrong_arrays_are_refused(engine: CellProfilerEngine, pictures: np.ndarray) -> None:
    with pytest.raises(InvalidPictures, match="needs Mito"):
        engine.measure(pictures[:1, :4], CHANNELS[:4])
    with pytest.raises(InvalidPictures, match="one distinct name"):
        engine.measure(pictures[:1], ("DNA", "DNA", "RNA", "AGP", "Mito"))


def test_settings_and_installation_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="full, jump, jump8, sim128"):
        CellProfilerEngine(settings="nosuch")
    (tmp_path / "not.cppipe").write_text("hello")
    with pytest.raises(InvalidSettings, match="not a CellProfiler pipeline"):
        CellProfilerEngine(settings=tmp_path / "not.cppipe")
    with pytest.raises(CellProfilerMissing, match="run `dopaint setup cellprofiler`"):
        CellProfilerEngine(venv=tmp_path / "nowhere")


def test_hash_follows_settings_and_kernels() -> None:
    one = CellProfilerEngine().hash
    assert one == ENGINES["cellprofiler"](workers=1, timeout_s=5.0).hash
    assert len({one, CellProfilerEngine(kernels=False).hash, CellProfilerEngine(settings="jump").hash}) == 3


def test_pipeline_files_are_what_the_script_writes(tmp_path: Path, repository: Path) -> None:
    python = environment.interpreter()
    script = repository / "tests/golden/write_pipelines.py"
    subprocess.run(
        [str(python), "-P", str(script), str(tmp_path)], check=True, env=environment.worker_environment(python)
    )
    written = sorted(tmp_path.glob("*.cppipe"))
    assert sorted(path.name for path in written) == sorted(settings.SETTINGS.values())
    for path in written:
        assert path.read_text() == (repository / "configs/profiling" / path.name).read_text()


class Accident:
    """Sends the worker a signal while it measures the picture whose turn it is; `turns` count from 0."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: signal.Signals, turns: tuple[int, ...]) -> None:
        self.turn, send = -1, WorkerProcess.send

        def sending(worker: WorkerProcess, *args: Any, **kwargs: Any) -> None:
            send(worker, *args, **kwargs)
            self.turn += 1
            if self.turn in turns:
                time.sleep(0.05)  # a picture takes at least ten times as long
                os.kill(worker.pid, kind)

        monkeypatch.setattr(WorkerProcess, "send", sending)


@pytest.mark.slow
def test_worker_killed_in_the_middle_of_a_picture(
    measured: list[FieldMeasurement], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Turns: picture 0; picture 1 dies and is repeated; picture 2 dies twice; picture 3.
    accident = Accident(monkeypatch, signal.SIGKILL, (1, 3, 4))
    with CellProfilerEngine(workers=1) as engine:
        fields = engine.measure(pictures, CHANNELS)
    assert accident.turn == 6 - 1
    assert same_bytes(fields[0], measured[0])
    assert same_bytes(fields[1], measured[1])
    assert (fields[2].outcome, fields[2].objects) == ("failed", {})
    assert fields[2].reason == "worker process ended with exit code -9 (2 attempts)"
    assert same_bytes(fields[3], measured[3])


def test_worker_that_stands_still_is_replaced(
    measured: list[FieldMeasurement], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    Accident(monkeypatch, signal.SIGSTOP, (0,))
    with CellProfilerEngine(workers=1, timeout_s=20.0) as engine:
        fields = engine.measure(pictures[:1], CHANNELS)
    assert same_bytes(fields[0], measured[0])


def test_worker_may_not_take_more_memory_than_twice_its_limit(pictures: np.ndarray) -> None:
    with CellProfilerEngine(workers=1, memory_limit_mib=50.0) as small:  # less than the imports took
        (field,) = small.measure(pictures[:1], CHANNELS)
    assert field.outcome == "failed"
    assert "emory" in field.reason
    assert "(2 attempts)" in field.reason


def test_given_masks_take_the_place_of_segmentation(
    engine: CellProfilerEngine, measured: list[FieldMeasurement], pictures: np.ndarray
) -> None:
    labels = {name: np.stack([field.masks[name] for field in measured[:2]]) for name in ("Nuclei", "Cells")}
    fields = engine.measure_masks(pictures[:2], CHANNELS, labels)
    for field, found in zip(fields, measured, strict=False):
        for name, table in field.objects.items():
            expected = found.objects[name].values.copy()
            if "Parent_AllNuclei" in table.names:  # not among the masks
                expected[:, table.names.index("Parent_AllNuclei")] = np.nan
            assert table.names == found.objects[name].names
            assert table.values.tobytes() == expected.tobytes(), name
        assert np.isnan(field.image["Threshold_FinalThreshold_Cells"])
        assert field.image["Count_Cells"] == found.image["Count_Cells"]
    # Rows follow the labels: the last becomes the first.
    n = labels["Cells"][0].max()
    turned = {name: np.where(one > 0, n + 1 - one.astype(int), 0)[:1] for name, one in labels.items()}
    (field,) = engine.measure_masks(pictures[:1], CHANNELS, turned)
    area = field.objects["Cells"].names.index("AreaShape_Area")
    assert np.array_equal(field.objects["Cells"].values[::-1, area], fields[0].objects["Cells"].values[:, area])


def test_masks_that_fit_no_picture_are_refused(engine: CellProfilerEngine, pictures: np.ndarray) -> None:
    masks = np.zeros((1, SIDE, SIDE), int)
    with pytest.raises(InvalidPictures, match="labels: got none"):
        engine.measure_masks(pictures[:1], CHANNELS, {})
    with pytest.raises(InvalidPictures, match=r"Cells is int64 \(1, 128, 128\), expected integers of shape \(2,"):
        engine.measure_masks(pictures[:2], CHANNELS, {"Cells": masks})
    masks[0, 3, 3], masks[0, 9, 9] = 1, 3
    with pytest.raises(
        InvalidPictures, match="Cells of picture 0 has 2 from 1 to 3, expected 1 to 2; number them anew"
    ):
        engine.measure_masks(pictures[:1], CHANNELS, {"Cells": masks})


def test_nuclei_of_real_fields_have_the_published_areas(real_data: Path, repository: Path) -> None:
    """NF1 fields with their own masks; only nuclei, because the masks of their cells run into each other."""
    folder = real_data / "nf1_fields"
    table = pd.read_parquet(folder / "Plate_2_with_image_data_shrunken.parquet")
    pipeline = repository / "tests/golden/user/three_channels.cppipe"
    compared = []
    with CellProfilerEngine(pipeline, workers=1, objects=("Kerne",), masks=True) as engine:
        for well, site in (("B7", 3), ("D7", 1), ("H12", 1)):
            names = [f"{well}_01_{k}_{site}_{channel}_001" for k, channel in ((1, "DAPI"), (2, "GFP"), (3, "RFP"))]
            counts = np.stack([tifffile.imread(folder / "images" / f"{name}.tif") for name in names])
            nuclei = label(tifffile.imread(folder / "masks" / f"{names[0]}_MaskNuclei.tiff") > 0)
            picture = (counts / 65535).astype(np.float32)
            (field,) = engine.measure_masks(picture[None], ("DAPI", "GFP", "RFP"), {"Kerne": nuclei[None]})
            assert field.outcome == "ok", field.reason
            one = table[(table["Image_Metadata_Well_x"] == well) & (table["Image_Metadata_Site_x"].astype(int) == site)]
            for row in one.to_dict("records"):
                y, x = (round(float(row[f"Nuclei_AreaShape_Center_{axis}"])) for axis in "YX")
                kerne = field.objects["Kerne"]
                area = kerne.values[nuclei[y, x] - 1, kerne.names.index("AreaShape_Area")]
                compared.append((area, float(row["Nuclei_AreaShape_Area"])))
    assert len(compared) == 3
    found, published = np.array(compared).T
    assert found == pytest.approx(published, rel=0.01)


def test_worker_chooses_its_processor_and_threads_whatever_the_shell_says(
    measured: list[FieldMeasurement], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "8")
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    chosen = environment.worker_environment(environment.interpreter())
    assert chosen["OPENBLAS_NUM_THREADS"] == "1"
    assert "AVX512F" in chosen["NPY_DISABLE_CPU_FEATURES"]
    assert "PYTHONPATH" not in chosen
    # And the worker does so by itself, too; the compiled kernels are where they were.
    shell = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shell["NUMBA_CACHE_DIR"] = chosen["NUMBA_CACHE_DIR"]
    monkeypatch.setattr(environment, "worker_environment", lambda _: shell)
    with CellProfilerEngine(workers=1) as engine:
        assert same_bytes(engine.measure(pictures[:1], CHANNELS)[0], measured[0])


def checked(variables: dict[str, str], code: str) -> str:
    """What `processor` says in CellProfiler's interpreter under these variables: the last line of its traceback."""
    python = environment.interpreter()
    load = (
        "import importlib.util as u; s = u.spec_from_file_location('processor', "
        f"{str(Path(processor.__file__))!r}); p = u.module_from_spec(s); s.loader.exec_module(p); "
    )
    kept = {name: value for name, value in os.environ.items() if name not in processor.VARIABLES}
    done = subprocess.run(
        [str(python), "-I", "-c", load + code], env=kept | variables, capture_output=True, text=True, check=False
    )
    return (done.stderr.strip().splitlines() or [""])[-1]


def test_process_that_escaped_both_traps_passes_and_others_are_told() -> None:
    assert checked(processor.VARIABLES, "import numpy, scipy.linalg; p.check()") == ""
    assert checked({}, "p.prepare(); import numpy, scipy.linalg; p.check()") == ""
    assert "numpy was loaded before" in checked({}, "import numpy; p.prepare()")
    threads = processor.VARIABLES | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    if (os.cpu_count() or 1) > 1:
        assert "uses 2 threads, expected 1" in checked(threads, "import numpy; p.check()")
    if "avx512f" in Path("/proc/cpuinfo").read_text():
        dispatch = processor.VARIABLES | {"NPY_DISABLE_CPU_FEATURES": ""}
        assert "numpy uses AVX512F" in checked(dispatch, "import numpy; p.check()")
