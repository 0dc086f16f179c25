"""The engine `cellprofiler` against two oracles on painted fields: the stock modules in process, and the command line.

The oracles ran outside the tests (tests/golden/stock_cellprofiler.py, stock_command_line.py); their results are golden.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiling.engines import CellProfilerEngine, FieldMeasurement

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
#: Painted field → settings. jump and full have 3,518 and 4,637 columns and take longer.
CASES = {"sim128_sparse": "sim128", "jump_border": "jump", "full_large": "full"}
PARAMETERS = [
    pytest.param(name, marks=[] if settings == "sim128" else [pytest.mark.slow]) for name, settings in CASES.items()
]
#: Zero in exact arithmetic; the value is rounding noise in every CellProfiler.
NOISE = ("CentralMoment_0_1", "CentralMoment_1_0")
#: Columns that may differ from the command line by more than 1e-9: it keeps some results as float32 on their way to the
#: CSV. FracAtD is the share of an object's intensity in a ring; Haralick's correlation differs by our order of sums.
FLOAT32_ON_THE_WAY = (
    "RadialDistribution_FracAtD_",
    "ImageQuality_",
    "Threshold_OrigThreshold_",
    "Texture_Correlation_",
)

Measure = Callable[[str, bool], FieldMeasurement]


@pytest.fixture(scope="module")
def measure(repository: Path) -> Measure:
    """One picture with or without our kernels; each is measured once."""
    known: dict[tuple[str, bool], FieldMeasurement] = {}

    def run(name: str, kernels: bool) -> FieldMeasurement:
        if (name, kernels) not in known:
            with np.load(repository / f"tests/golden/profiling/fast/{name}.npz") as golden:
                picture = (golden["picture"] / 65535.0).astype(np.float32)
            with CellProfilerEngine(CASES[name], workers=1, timeout_s=280.0, kernels=kernels) as engine:
                (known[name, kernels],) = engine.measure(picture[None], CHANNELS)
        return known[name, kernels]

    return run


def differences(field: FieldMeasurement, oracle: Path) -> dict[str, float]:
    """Largest relative difference of each column, against the larger value or 1e-6 of the column's scale."""
    worst: dict[str, float] = {}
    tables = {name: (table.names, table.values) for name, table in field.objects.items()}
    tables["Image"] = (tuple(field.image), np.array([list(field.image.values())]))
    with np.load(oracle) as golden:
        for name, (names, values) in tables.items():
            known = dict(
                zip(golden[f"names/{name}"].tobytes().decode().split("\n"), golden[f"values/{name}"].T, strict=True)
            )
            assert set(names) <= set(known)
            for k, feature in enumerate(names):
                expected, found = known[feature], values[:, k]
                assert expected.shape == found.shape, feature
                assert np.array_equal(np.isnan(expected), np.isnan(found)), feature
                scale = np.maximum(np.maximum(np.abs(expected), np.abs(found)), 1e-6 * np.abs(expected).max() + 1e-300)
                worst[f"{name}.{feature}"] = float(np.nanmax(np.abs(expected - found) / scale, initial=0.0))
    return worst


@pytest.mark.parametrize("name", PARAMETERS)
def test_without_kernels_the_numbers_are_those_of_stock_modules(measure: Measure, repository: Path, name: str) -> None:
    worst = differences(measure(name, False), repository / f"tests/golden/profiling/stock/{name}.npz")
    # The same code on the same arrays; where it is not the same bits, the processor or the BLAS library is another.
    assert max(worst.values()) <= 1e-12, max(worst, key=worst.__getitem__)


@pytest.mark.parametrize("name", PARAMETERS)
def test_kernels_agree_with_stock_modules(measure: Measure, repository: Path, name: str) -> None:
    worst = differences(measure(name, True), repository / f"tests/golden/profiling/stock/{name}.npz")
    worst = {column: value for column, value in worst.items() if not column.endswith(NOISE)}
    # Haralick's sums run in another order; correlation and information measures divide small differences.
    assert max(worst.values()) <= 5e-8, max(worst, key=worst.__getitem__)
    assert {column.split(".")[1].split("_")[0] for column, value in worst.items() if value > 1e-12} <= {"Texture"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_numbers_are_those_of_the_command_line_reading_tiff(measure: Measure, repository: Path, name: str) -> None:
    worst = differences(measure(name, True), repository / f"tests/golden/profiling/command_line/{name}.npz")
    assert max(worst.values()) <= 1e-7, max(worst, key=worst.__getitem__)  # float32 keeps 6e-8
    different = [column.split(".", 1)[1] for column, value in worst.items() if value > 1e-9]
    assert all(column.startswith(FLOAT32_ON_THE_WAY) for column in different), different


def test_feature_counts_are_those_of_the_settings() -> None:
    counts = {}
    for settings in ("jump", "full", "jump8"):
        with CellProfilerEngine(settings, workers=1) as engine:
            columns = engine.columns()
        counts[settings] = {name: len(names) for name, names in columns.items() if name != "Image"}
    assert counts["jump"] == {"Nuclei": 1173, "Cells": 1180, "Cytoplasm": 1165}
    # The paper's 5,797 features are neither of the two five-channel sets; JUMP's eight channels come close.
    assert {name: sum(one.values()) for name, one in counts.items()} == {"jump": 3518, "full": 4637, "jump8": 5795}
