"""Figures show the numbers they are given, no text is cut off, and the same input gives the same bytes."""

import hashlib

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from profiling.plots import Bar, InvalidFigure, Panel, bars, confusion_map, overlap_map, panels, save, subprofile_map
from profiling.plots.style import PALETTE, colours
from profiling.subprofile import build

METHODS = ["Real", "Real - Batch Correction", "Synthetic - C-aware - 50k", "Synthetic - non C-aware - 50k"]


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def cut_off(figure):
    """By how many inches the drawing goes beyond its paper."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height, 0.0)


def some_bars():
    values = [0.06, 0.07, 0.08, np.nan]
    letters = ["a", "ab", "b", ""]
    row = [Bar(m, v, v - 0.01, v + 0.02, 0.05, w) for m, v, w in zip(METHODS, values, letters, strict=True)]
    return {"mAP, seen": row, "mAP, unseen": row, "ROC-AUC, seen": row}


def test_bars_have_their_heights_whiskers_letters_and_chance():
    made = bars(some_bars(), "95 % t interval over 5 folds", note="word " * 60)
    assert len(made.axes) == 3
    axes = made.axes[0]
    assert [p.get_height() for p in axes.patches][:3] == [0.06, 0.07, 0.08]
    low, high = axes.containers[1].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.05, 0.08))
    assert {"a", "ab", "b"} <= set(texts(made))
    dashed = [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2]
    assert all(line.get_ydata()[0] == 0.05 for line in dashed)
    assert "Tukey" in " ".join(texts(made))
    assert cut_off(made) < 0.01


def test_heat_map_of_subprofiles_is_in_the_order_of_its_axis():
    rng = np.random.default_rng(0)
    names = ["Nuclei_Texture_X_DNA", "Cells_Texture_X_DNA", "Cells_AreaShape_Area", "Nuclei_AreaShape_Area"]
    values = np.abs(rng.normal(size=(10, 4))) + 1
    values[:5, 0] = [-1, 1, 1, -1, 1]  # the first label does not agree on this feature
    sub = build(values, ["one"] * 5 + ["two"] * 5, names)
    made = subprofile_map(sub)
    shown = made.axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown[1].data, sub.values[1][[2, 1, 3, 0]])
    assert shown.mask[0].tolist() == [False, False, False, True]
    assert {"Cells", "Nuclei", "AreaShape", "one (3)", "two (4)"} <= set(texts(made))
    assert cut_off(made) < 0.01
    with pytest.raises(InvalidFigure, match="no label keeps"):
        subprofile_map(build(values[:2], ["a", "b"], names))


def test_overlap_and_confusion():
    rng = np.random.default_rng(1)
    words = [f"a mechanism with a long name, number {i} of several" for i in range(12)]
    sub = build(rng.normal(size=(60, 50)) + rng.normal(size=(12, 50)).repeat(5, axis=0), np.repeat(words, 5), [
        f"Cells_A_{i}" for i in range(50)
    ])  # fmt: skip
    made = overlap_map(sub)
    assert cut_off(made) < 0.01
    lower, upper = (image.get_array() for image in made.axes[0].images)
    both = (sub.mask[3] & sub.mask[1]).sum() / (sub.mask[3] | sub.mask[1]).sum()
    assert lower[3, 1] == pytest.approx(both)
    assert lower.mask[1, 3]
    assert upper.mask[3, 1]
    counts = rng.integers(0, 4, (12, 13)) + 6 * np.eye(12, 13, dtype=int)
    made = confusion_map(counts, list(sub.labels), [*sub.labels, "no call"])
    np.testing.assert_allclose(made.axes[0].images[0].get_array().sum(axis=1), 1)
    assert str(counts[0, 0]) in texts(made)
    assert cut_off(made) < 0.01
    with pytest.raises(InvalidFigure, match="do not fit"):
        confusion_map(counts, ["a"], ["b"])


def test_panels_share_colours_along_a_row_and_letter_themselves():
    rng = np.random.default_rng(2)
    many = tuple(f"batch {i % 20}" for i in range(60))
    few = tuple(["x", "y", ""][i % 3] for i in range(60))
    rows = [
        ("compound", [Panel(t, rng.normal(size=(60, 2)), few) for t in ("real", "synthetic")]),
        ("batch", [Panel(t, rng.normal(size=(60, 2)), many) for t in ("real", "synthetic")]),
    ]
    made = panels(rows)
    words = texts(made)
    assert {"(a) real", "(b) synthetic", "(c) real", "(d) synthetic", "x", "y", "20 different: batch"} <= set(words)
    first, second = made.axes[0].collections[1], made.axes[1].collections[1]
    shades = [{tuple(c[:3]) for c in one.get_facecolors()} for one in (first, second)]
    assert shades[0] == shades[1]
    assert len(shades[0]) == 2
    assert len(made.axes[0].collections[0].get_offsets()) == 20  # points without a label
    assert cut_off(made) < 0.01
    with pytest.raises(InvalidFigure, match="same number"):
        panels([rows[0], ("batch", rows[1][1][:1])])


def test_colours_differ():
    assert [to_hex(shade).upper() for shade in colours(3)] == list(PALETTE[:3])
    assert len(set(colours(26))) == 26


def test_the_same_bytes_twice(tmp_path):
    for ending in ("png", "svg", "pdf"):
        made = [save(bars(some_bars(), "none"), tmp_path / f"{i}.{ending}") for i in (0, 1)]
        first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in made)
        assert first == second, ending
    with pytest.raises(InvalidFigure, match="unknown ending"):
        save(bars(some_bars(), "none"), tmp_path / "x.gif")
