"""The benchmark of the profiling engines: its pictures, its arithmetic, and one tiny run of the engine fast."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

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
    rows.append({"engine": "command", "workers": 1, "fields_per_s": 0.05})
    benchmark_profiling._compare(rows)
    assert [row.get("times_stock") for row in rows] == [1.0, 25.0, None, None, 0.5]
    assert [row.get("times_command") for row in rows] == [2.0, 50.0, None, None, 1.0]
    found = {"rows": rows, "families": {}, "curve": {}}
    assert "25.000" in benchmark_profiling.table(found)
    assert "missing: not installed" in benchmark_profiling.table(found)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="engines: got quick"):
        benchmark_profiling.run(ProfilingConfig(engines=("quick",)))
    with pytest.raises(ValueError, match="workers: got 999"):
        benchmark_profiling.run(ProfilingConfig(workers=(999,)))


@pytest.mark.parametrize(
    ("task", "command", "reason"),
    [
        ("command", None, "name it with --stock-command"),
        ("command", "/nonexistent/venv", "--stock-command: /nonexistent/venv does not exist"),
        ("fast_cuda", None, "device: got 'cuda', but torch"),
    ],
)
def test_what_cannot_be_measured_here_has_a_reason_and_no_number(
    task: str, command: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pictures = tmp_path / "p.npy"
    np.save(pictures, np.zeros((1, 5, 32, 32), np.float32))
    asked = {"task": task, "pictures": str(pictures), "settings": "sim128", "workers": 1, "command": command}
    with pytest.raises((ValueError, OSError), match=reason):
        benchmark_profiling._child(asked)
    rows = [{"engine": task, "workers": 1, "missing": reason}]
    benchmark_profiling._compare(rows)
    text = benchmark_profiling.table({"rows": rows, "families": {}, "curve": {}})
    assert f"missing: {reason}" in text
    assert not any(character.isdigit() and character != "1" for character in text.splitlines()[-1].split("missing")[0])


def test_a_line_is_told_from_a_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_families, "paint", lambda n, cells, *_, **__: np.zeros((n, 5, 8, 8)))
    seconds = {"now": 0.0}

    def curve(cost: Callable[[int], float]) -> dict[str, Any]:
        counts = iter((10, 100, 500))

        def measured(*_: object) -> SimpleNamespace:
            seconds["now"] = cost(count := next(counts))
            return SimpleNamespace(objects={"Cells": SimpleNamespace(count=count)})

        monkeypatch.setattr(benchmark_families.fast_field, "measure_field", measured)
        monkeypatch.setattr(benchmark_families, "_median_ms", lambda *_: 1e3 * seconds["now"])
        return benchmark_families.curve((10, 100, 500), 8, "jump", 1)

    line = curve(lambda n: 0.5 + 0.002 * n)
    assert line["ms_per_cell"] == pytest.approx(2.0)
    assert line["fixed_ms"] == pytest.approx(500.0)
    assert line["residual"] < 1e-12
    assert benchmark_profiling.verdict(line) == "linear in cells"
    bent = curve(lambda n: 0.1 + 1e-5 * n**2)
    assert benchmark_profiling.verdict(bent) == "not linear in cells"
    found = {"rows": [], "families": {}, "curve": bent}
    assert "not linear in cells" in benchmark_profiling.table(found)
    assert benchmark_profiling.verdict({"points": line["points"][:2], "residual": 0.0}) == "too few points to tell"


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
