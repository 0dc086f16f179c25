"""The benchmark writes a table, a summary and a figure; the precision study finds what it must."""

import json
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from causal import benchmark
from causal.figure import Panel, draw_panels
from causal.precision import variance_at_equal_cost
from causal.studies import allocation_dial, cell_count


def test_run_writes_table_summary_and_figure(tmp_path):
    studies = {"dial": lambda quick: allocation_dial(8, dial=(0.0, 1.0)), "count": lambda quick: cell_count(40)}
    table = benchmark.run(tmp_path / "out", quick=True, studies=studies)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "causal.csv"), table, check_dtype=False)
    assert set(table["evidence"]) == {"simulation"}
    summary = json.loads((tmp_path / "out" / "causal.json").read_text())
    assert summary["limits"] == 4
    assert summary["hold"] + len(summary["missed"]) == 4
    figure = ET.fromstring((tmp_path / "out" / "causal.svg").read_text())
    lines = figure.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * table.loc[table["study"] == "allocation dial", "estimator"].nunique()


def test_points_lie_where_the_numbers_say():
    svg = draw_panels([Panel("t", "x", (0.0, 1.0), {"a": (0.0, 1.0)}, (0.0, 2.0), band=(0.5, 1.5))], "T")
    (line,) = ET.fromstring(svg).findall(".//{http://www.w3.org/2000/svg}polyline")
    assert line.get("points") == "52.0,310.0 412.0,180.0"  # the corner, and half way up at the right


def test_designs_and_pairing_divide_the_variance():
    table = variance_at_equal_cost(96, replicates=60, worlds=4, designs=("stratified", "sobol, 8 replicates"))
    rows = table.set_index(["setting", "estimator"])
    mean, effect, null = (
        "mean of target, 96 draws",
        "effect of target, 96 draws",
        "effect of negative_control, 96 draws",
    )
    assert rows.loc[(mean, "iid (paper)"), "variance_ratio"] == pytest.approx(1.0, abs=0.35)
    assert rows.loc[(mean, "stratified"), "variance_ratio"] > 1.3
    assert rows.loc[(mean, "sobol, 8 replicates"), "variance_ratio"] > 1.3
    # what compound and control share cancels: base 2.6 of context and 1.25 of noise each against 0.69 left
    assert rows.loc[(effect, "iid (paper)"), "pairing_gain"] > 5
    assert rows.loc[(null, "iid (paper)"), "context_share"] < 0.05  # no effect anywhere, so contexts carry none of it
