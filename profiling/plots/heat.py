"""Heat maps: sub-profiles over their features, overlap between sub-profiles, confusion among mechanisms."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from profiling.drivers import CHANNELS, read_name
from profiling.plots.style import MISSING, InvalidFigure, figure, short
from profiling.subprofile import SubProfiles, overlap

NO_CALL = "no call"
MOST = 34  # characters of a label


def subprofile_map(subprofiles: SubProfiles, channels: Sequence[str] = CHANNELS, limit: float | None = None) -> Figure:
    """Labels x features, in the order compartment, family, channel; grey where a label does not keep a feature.

    Values are those of the sub-profiles, in units of the normalisation; colours end at `limit` (default: the 98 %
    quantile of |value|). The number of features kept stands behind each label. Raises `InvalidFigure` where no label
    keeps a feature.
    """
    kept = np.flatnonzero(subprofiles.n_features > 0)
    if len(kept) == 0:
        raise InvalidFigure("no label keeps a feature: there is nothing to draw")
    read = [read_name(name, channels) for name in subprofiles.names]
    order = sorted(range(len(read)), key=lambda j: (read[j].compartment, read[j].family, read[j].channel, j))
    shown = np.where(subprofiles.mask, subprofiles.values, np.nan)[kept][:, order]
    most = limit or float(np.nanquantile(np.abs(shown), 0.98)) or 1.0
    made = figure(9.0, max(0.19 * len(kept) + 1.9, 4.0))
    axes = made.subplots()
    colour = colormaps["RdBu_r"].with_extremes(bad=MISSING)
    picture = axes.imshow(shown, aspect="auto", cmap=colour, vmin=-most, vmax=most, interpolation="nearest")
    words = short([subprofiles.labels[i] for i in kept])
    axes.set_yticks(range(len(kept)), [f"{w} ({subprofiles.n_features[i]})" for w, i in zip(words, kept, strict=True)])
    axes.tick_params(axis="y", labelsize=7, length=0)
    _blocks(axes, [(read[j].compartment, read[j].family) for j in order])
    bar = made.colorbar(picture, ax=axes, fraction=0.02, pad=0.01, extend="both")
    bar.ax.tick_params(labelsize=7)
    bar.set_label("median of the references, units of the normalisation", fontsize=7)
    says = f"{len(order)} features by compartment, family and channel; in brackets: features kept; grey: not kept"
    axes.set_title(says, fontsize=8, loc="left", pad=26)
    return made


def _blocks(axes: Axes, groups: Sequence[tuple[str, str]]) -> None:
    """Lines between groups of columns; families named below, compartments above, where there is room."""
    total = len(groups)
    families: list[tuple[int, int, str]] = []
    compartments: list[tuple[int, int, str]] = []
    for level, found in ((2, families), (1, compartments)):
        start = 0
        for i in range(1, total + 1):
            if i == total or groups[i][:level] != groups[start][:level]:
                found.append((start, i, groups[start][level - 1]))
                start = i
    for start, _, _ in families[1:]:
        axes.axvline(start - 0.5, color="#909090", linewidth=0.4)
    for start, _, _ in compartments[1:]:
        axes.axvline(start - 0.5, color="black", linewidth=1.0)
    wide = [(s, e, w) for s, e, w in families if (e - s) / total > 0.016]
    axes.set_xticks([(s + e - 1) / 2 for s, e, _ in wide], [w for _, _, w in wide], rotation=60, ha="right")
    axes.tick_params(axis="x", labelsize=6, length=2)
    for start, end, word in compartments:
        if (end - start) / total > 0.03:
            place = ((start + end - 1) / 2, 1.0)
            axes.annotate(
                word, place, (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
                fontsize=8,
            )  # fmt: skip


def overlap_map(subprofiles: SubProfiles) -> Figure:
    """Labels x labels: below the diagonal the Jaccard index of the features kept, above it their correlation.

    Two labels with the same features and a correlation near 1 cannot be told apart by Biosimilarity.
    """
    jaccard, correlation = overlap(subprofiles)
    n = len(subprofiles.labels)
    if n < 2:
        raise InvalidFigure(f"subprofiles have {n} labels: expected at least two to compare")
    lower = np.where(np.tri(n, k=-1, dtype=bool), jaccard, np.nan)
    upper = np.where(np.tri(n, k=-1, dtype=bool).T, correlation, np.nan)
    room = _room(subprofiles.labels)
    made = figure(0.19 * n + room + 2.0, 0.19 * n + room)
    axes = made.subplots()
    axes.set_facecolor(MISSING)
    low = axes.imshow(lower, cmap="Greens", vmin=0, vmax=1)
    high = axes.imshow(upper, cmap="RdBu_r", vmin=-1, vmax=1)
    _words(axes, subprofiles.labels, subprofiles.labels)
    for picture, words in ((low, "Jaccard index of features kept (below)"), (high, "correlation on them (above)")):
        bar = made.colorbar(picture, ax=axes, fraction=0.03, pad=0.02)
        bar.ax.tick_params(labelsize=7)
        bar.set_label(words, fontsize=7)
    return made


def confusion_map(counts: Int[np.ndarray, "l m"], truth: Sequence[str], called: Sequence[str]) -> Figure:
    """True labels x called labels: the share of the compounds of each true label; the count where there is room.

    `called` may end in "no call". Raises `InvalidFigure` where the counts do not fit the labels or are all zero.
    """
    if counts.shape != (len(truth), len(called)):
        raise InvalidFigure(f"counts {counts.shape} do not fit {len(truth)} true and {len(called)} called labels")
    total = counts.sum(axis=1, keepdims=True)
    if total.sum() == 0:
        raise InvalidFigure("counts are all zero: no compound was called")
    share: Float[np.ndarray, "l m"] = counts / np.maximum(total, 1)
    room = _room([*truth, *called])
    made = figure(0.24 * len(called) + room + 2.2, 0.24 * len(truth) + room + 0.3)
    axes = made.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=max(float(share.max()), 1e-9), aspect="equal")
    _words(axes, [f"{w} ({n})" for w, n in zip(short(truth, MOST), total[:, 0].tolist(), strict=True)], called)
    if len(truth) <= 40:
        for i, j in np.argwhere(counts > 0):
            shade = "white" if share[i, j] > 0.6 * share.max() else "black"
            axes.annotate(str(counts[i, j]), (j, i), ha="center", va="center", fontsize=6, color=shade)
    axes.set_xlabel("called", fontsize=8)
    axes.set_ylabel("true (compounds)", fontsize=8)
    bar = made.colorbar(picture, ax=axes, fraction=0.03, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.set_label("share of the compounds of the true label", fontsize=7)
    return made


def _room(words: Sequence[str]) -> float:
    """Inches that the longest label takes at seven points."""
    return 0.5 + 0.066 * min(max(len(word) for word in words), MOST + 6)


def _words(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_yticks(range(len(rows)), short(rows, MOST + 6))
    axes.set_xticks(range(len(columns)), short(columns, MOST), rotation=60, ha="right", rotation_mode="anchor")
    axes.tick_params(labelsize=7, length=0)
