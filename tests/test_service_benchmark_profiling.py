"""The benchmark of the profiling engines: its pictures, its arithmetic, and one tiny run of the engine fast."""

import numpy as np
import pytest

from service import benchmark_families, benchmark_profiling
from service.benchmark_profiling import ProfilingConfig
from service.painted_fields import paint


def test_painted_fields_are_seeded_and_hold_light() -> None:
    first = paint(2, 3, size=96)
    assert first.shape == (2, 5, 96, 96)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, paint(2, 3, size=96))
    assert not np.array_equal(first[0], first[1])
    assert first.min() >= 0
    assert first.max() <= 1
    assert (first.max(axis=(2, 3)) > 2 * np.median(first, axis=(2, 3))).all()
    # Counts of a 12-bit camera, as a 16-bit file keeps them.
    counts = first.astype(float) * 65535 / 16
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    with pytest.raises(ValueError, match="positive"):
        paint(1, 0)


def test_what_is_compared_with_stock() -> None:
    rows = [
        {"engine": "stock", "workers": 1, "fields_per_s": 0.1},
        {"engine": "fast", "workers": 1, "fields_per_s": 2.5},
        {"engine": "fast", "workers": 2, "fields_per_s": 5.0},
        {"engine": "cp_measure", "workers": 1, "missing": "not installed"},
    ]
    benchmark_profiling._compare(rows)
    assert [row.get("times_stock") for row in rows] == [1.0, 25.0, None, None]
    found = {"rows": rows, "families": {}, "curve": {}}
    assert "25.000" in benchmark_profiling.table(found)
    assert "missing: not installed" in benchmark_profiling.table(found)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="engines: got quick"):
        benchmark_profiling.run(ProfilingConfig(engines=("quick",)))
    with pytest.raises(ValueError, match="workers: got 999"):
        benchmark_profiling.run(ProfilingConfig(workers=(999,)))


def test_a_task_that_fails_says_why() -> None:
    answer = benchmark_profiling._apart(
        {"task": "stock", "pictures": "/nonexistent", "settings": "x", "workers": 1}, [0]
    )
    assert "Error" in answer["missing"] or "Missing" in answer["missing"]


def test_pixel_pairs_are_counted() -> None:
    from profiling.engines.families.regions import regions
    from profiling.engines.pipeline_settings import Texture

    labels = np.zeros((6, 8), np.int32)
    labels[1:4, 1:6] = 1
    step = Texture(("DNA",), ("Cells",), 256, "Both", (1,))
    inside = 3 * 4 + 2 * 4 + 2 * 5 + 2 * 4
    whole = 6 * 7 + 5 * 7 + 5 * 8 + 5 * 7
    assert benchmark_families._pairs(step, {"Cells": regions(labels)}, (6, 8)) == inside + whole


@pytest.mark.slow
def test_a_tiny_run() -> None:
    config = ProfilingConfig(
        fields=1, cells=4, size=128, engines=("fast",), workers=(1,), curve=(1, 4), curve_size=128, repeats=1
    )
    found = benchmark_profiling.run(config)
    [row] = found["rows"]
    assert "missing" not in row, row
    assert row["columns"] == 3518 + 971
    assert row["cells"] >= 1
    assert {"Texture", "Granularity", "Intensity", "Colocalization", "whole field"} <= set(found["families"])
    assert len(found["curve"]["points"]) == 2
    assert "Texture" in benchmark_profiling.table(found)
