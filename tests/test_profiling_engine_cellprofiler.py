"""The CellProfiler engine: parity with stock modules, determinism, bad pictures and dead workers."""

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def stock(pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What CellProfiler's own modules and storage say about the first two pictures."""
    folder = tmp_path_factory.mktemp("stock")
    np.save(folder / "pictures.npy", pictures[:2])
    python = environment.interpreter()
    root = Path(__file__).resolve().parent
    command = [
        python,
        "-P",
        root / "golden/stock_cellprofiler.py",
        root.parent / "configs/profiling/cell_painting_128.cppipe",
    ]
    command += [folder / "pictures.npy", folder / "out.npz"]
    subprocess.run(
        [str(c) for c in command], check=True, env=environment.worker_environment(python), capture_output=True
    )
    with np.load(folder / "out.npz") as archive:
        return {name: archive[name] for name in archive.files}


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


def worst_difference(field: FieldMeasurement, stock: dict[str, np.ndarray], i: int) -> dict[str, float]:
    """Largest relative difference of each feature, against the larger value or 1e-6 of the column's scale."""
    worst: dict[str, float] = {}
    for name, (names, values) in field.objects.items():
        for k, feature in enumerate(names):
            expected = stock[f"{i}|{name}|{feature}"]
            assert expected.shape == values[:, k].shape, feature
            assert np.array_equal(np.isnan(expected), np.isnan(values[:, k])), feature
            scale = np.maximum(
                np.maximum(np.abs(expected), np.abs(values[:, k])), 1e-6 * np.abs(expected).max() + 1e-300
            )
            worst[f"{name}_{feature}"] = float(np.nanmax(np.abs(expected - values[:, k]) / scale, initial=0.0))
    return worst


# Zero in exact arithmetic; the value is rounding noise in every CellProfiler.
NOISE = ("CentralMoment_0_1", "CentralMoment_1_0")


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


def test_kernels_agree_with_stock_modules(measured: list[FieldMeasurement], stock: dict[str, np.ndarray]) -> None:
    for i in (0, 1):
        worst = worst_difference(measured[i], stock, i)
        worst = {name: value for name, value in worst.items() if not name.endswith(NOISE)}
        assert max(worst.values()) <= 5e-8, max(worst, key=worst.__getitem__)


def test_without_kernels_the_numbers_are_those_of_stock_modules(
    pictures: np.ndarray, stock: dict[str, np.ndarray]
) -> None:
    with CellProfilerEngine(workers=1, kernels=False) as plain:
        fields = plain.measure(pictures[:2], CHANNELS)
    for i, field in enumerate(fields):
        worst = worst_difference(field, stock, i)
        assert max(worst.values()) <= 1e-12, max(worst, key=worst.__getitem__)
        for name, value in field.image.items():
            expected = float(stock[f"{i}|Image|{name}"].ravel()[0])
            assert value == pytest.approx(expected, rel=1e-12, nan_ok=True), name


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


def test_worker_environment_pins_what_moves_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    seen = environment.worker_environment(environment.interpreter())
    assert seen["OPENBLAS_NUM_THREADS"] == "1"
    assert "AVX512F" in seen["NPY_DISABLE_CPU_FEATURES"]
    assert "PYTHONPATH" not in seen
    assert json.dumps(environment.pins()["cellprofiler"]) == '"4.2.8.1"'
