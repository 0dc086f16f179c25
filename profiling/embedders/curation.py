"""CHAMMI-75's curation: which pictures of many studies to learn from (appendices A.2 to A.4).

Metadata in six groups and 22 columns, one row a channel file, no cell ever empty: what is not known is "unknown".
Then, in their order: central slices of stacks, frames spread over time, as many controls as a treatment has, channels
that are not dark for their study, and pictures chosen evenly over k-means clusters of their content.

What the paper leaves open is fixed here: controls are thinned to the median number of pictures of a reagent in their
study; a channel is dark where the log of its mean lies more than `dark` robust deviations below its study's median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from sklearn.cluster import KMeans

from profiling.embedders.data import InvalidTrainingData

GROUPS: dict[str, tuple[str, ...]] = {
    "experiment": ("study", "plate", "well", "reagent", "control"),
    "biology": ("organism", "cell_line", "cell_type"),
    "imaging": ("multi_channel_id", "panel", "channel", "channel_type"),
    "microscopy": ("type", "magnification", "fov"),
    "geometry": ("width", "height", "depth", "channels", "z_slice", "timepoint"),
    "storage": ("path",),
}
COLUMNS = tuple(f"{group}.{name}" for group, names in GROUPS.items() for name in names)
UNKNOWN, NO = "unknown", "no"
STUDY, PICTURE, REAGENT = "experiment.study", "imaging.multi_channel_id", "experiment.reagent"
PLACE = (STUDY, "experiment.plate", "experiment.well", "microscopy.fov")


@dataclass(frozen=True)
class CurationConfig:
    """`slices`: central share of a stack that is kept (at least one). `frames`: most frames of a sequence. `dark`:
    robust deviations below the study's median. `clusters`: of k-means; `keep`: pictures kept in the end, 0: all."""

    slices: float = 0.2
    frames: int = 5
    dark: float = 3.0
    clusters: int = 50
    keep: int = 0
    seed: int = 1


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """The table with all 22 columns in their order, as text; missing columns and empty cells say "unknown".

    Raises InvalidTrainingData for a column that is not one of the 22, or where study, picture or path is unknown.
    """
    if odd := sorted(set(map(str, table.columns)) - set(COLUMNS)):
        raise InvalidTrainingData(f"metadata: unknown column {odd[0]!r}; expected {', '.join(COLUMNS)}")
    made = table.reindex(columns=list(COLUMNS)).astype(object)
    made = made.where(made.notna(), UNKNOWN).astype(str).apply(lambda column: column.str.strip())
    made = made.mask(made.isin(["", "nan", "None"]), UNKNOWN)
    for column in (STUDY, PICTURE, "storage.path"):
        if bool((made[column] == UNKNOWN).any()):
            raise InvalidTrainingData(
                f"metadata: {column} is unknown in some rows; every file has a study and a picture"
            )
    return made.reset_index(drop=True)


def numbers(column: pd.Series) -> Float[np.ndarray, " n"]:
    """A column of numbers; NaN where it says "unknown"."""
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64)


def central_slices(table: pd.DataFrame, share: float) -> Bool[np.ndarray, " n"]:
    """True for the slices in the middle `share` of their stack (at least one), and for files of no stack."""
    z = numbers(table["geometry.z_slice"])
    keep = np.ones(len(table), dtype=bool)
    known = np.flatnonzero(np.isfinite(z))
    place = [*PLACE, "geometry.timepoint"]
    for index in table.iloc[known].reset_index(drop=True).groupby(place, sort=False).indices.values():
        rows = known[index]
        levels = np.unique(z[rows])
        count = max(1, round(share * len(levels)))
        first = (len(levels) - count) // 2
        keep[rows] = np.isin(z[rows], levels[first : first + count])
    return keep


def spread_frames(table: pd.DataFrame, most: int) -> Bool[np.ndarray, " n"]:
    """True for at most `most` time points of a sequence, evenly from the first to the last."""
    t = numbers(table["geometry.timepoint"])
    keep = np.ones(len(table), dtype=bool)
    known = np.flatnonzero(np.isfinite(t))
    for index in table.iloc[known].reset_index(drop=True).groupby(list(PLACE), sort=False).indices.values():
        rows = known[index]
        levels = np.unique(t[rows])
        chosen = levels[np.unique(np.linspace(0, len(levels) - 1, min(most, len(levels))).round().astype(int))]
        keep[rows] = np.isin(t[rows], chosen)
    return keep


def fewer_controls(table: pd.DataFrame, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """True for treated pictures and for a random part of the controls of each study and kind of control: as many as the
    median reagent of the study has. A study without reagents keeps all of its controls."""
    keep = np.ones(len(table), dtype=bool)
    is_control = ~table["experiment.control"].isin([NO, UNKNOWN]).to_numpy()
    for _, study in table.groupby(STUDY, sort=True):
        rows = study.index.to_numpy()
        treated = study[~is_control[rows]]
        if treated.empty:
            continue
        wanted = int(np.median(treated.groupby(REAGENT)[PICTURE].nunique()))
        for _, own in study[is_control[rows]].groupby("experiment.control", sort=True):
            pictures = np.sort(own[PICTURE].unique())
            chosen = rng.permutation(pictures)[: max(wanted, 1)]
            keep[own.index.to_numpy()] = own[PICTURE].isin(chosen).to_numpy()
    return keep


def bright_enough(table: pd.DataFrame, mean: Float[np.ndarray, " n"], dark: float) -> Bool[np.ndarray, " n"]:
    """True for channels that are not dark among all channels of their study; `mean`: mean intensity of each file."""
    keep = np.ones(len(table), dtype=bool)
    level = np.log10(np.maximum(mean, 1e-12))
    for _, study in table.groupby(STUDY, sort=True):
        rows = study.index.to_numpy()
        centre = np.median(level[rows])
        spread = 1.4826 * np.median(np.abs(level[rows] - centre))
        keep[rows] = (level[rows] >= centre - dark * spread) & (mean[rows] > 0)
    return keep


def even_over_clusters(
    features: Float[np.ndarray, "n k"], keep: int, clusters: int, rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """Positions of `keep` rows, as evenly over k-means clusters as these allow (Vo et al. 2024)."""
    n = len(features)
    if keep <= 0 or keep >= n:
        return np.arange(n)
    seed = int(rng.integers(2**31))
    own = KMeans(min(clusters, n), n_init=3, random_state=seed).fit_predict(features)
    queues = [list(rng.permutation(np.flatnonzero(own == c))) for c in np.unique(own)]
    chosen: list[int] = []
    while len(chosen) < keep:
        for queue in queues:
            if queue and len(chosen) < keep:
                chosen.append(int(queue.pop()))
    return np.sort(np.array(chosen))


@dataclass(frozen=True)
class Curated:
    """`table`: the files that are left; `log`: step, files and pictures after it."""

    table: pd.DataFrame
    log: pd.DataFrame


def curate(
    table: pd.DataFrame,
    mean: Float[np.ndarray, " n"],
    features: Float[np.ndarray, "n k"] | None = None,
    config: CurationConfig | None = None,
) -> Curated:
    """All steps in the paper's order. `mean` and `features` (of content, one row a file; None: no selection by content)
    belong to the rows of `table`."""
    config = config or CurationConfig()
    rng = np.random.default_rng(config.seed)
    now = complete(table)
    place = np.arange(len(now))
    lines = [("complete", len(now), now[PICTURE].nunique())]

    def step(name: str, keep: Bool[np.ndarray, " n"]) -> None:
        nonlocal now, place
        now, place = now[keep].reset_index(drop=True), place[keep]
        lines.append((name, len(now), now[PICTURE].nunique()))

    step("central slices", central_slices(now, config.slices))
    step("spread frames", spread_frames(now, config.frames))
    step("fewer controls", fewer_controls(now, rng))
    step("bright enough", bright_enough(now, mean[place], config.dark))
    if features is not None and config.keep:
        pictures, code = np.unique(now[PICTURE].to_numpy(), return_inverse=True)
        content = np.stack([features[place][code == i].mean(axis=0) for i in range(len(pictures))])
        chosen = even_over_clusters(content, config.keep, config.clusters, rng)
        step("even over clusters", np.isin(code, chosen))
    return Curated(now, pd.DataFrame(lines, columns=["step", "files", "pictures"]))
