"""The leaderboard of representations: every engine × every score, on a painted screen and on real cells.

An engine measures the test rows of a screen (`embedder_screen`); a trained embedder stands beside its untrained twin of
the same shape; TRex refines any of them with the training rows. Tables of profiles made elsewhere (CellProfiler, the
generator's effects under do(compound)) join as they are. A bag of channels is read with channels left out, too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiling.embedders.evaluate import combinations_of
from profiling.embedders.trex import TrexConfig, fit
from profiling.profiles import Profiles
from profiling.tables import read_profiles
from service.embedder_targets import Measured, measure_rows
from service.errors import InvalidRequest
from service.measure import Options
from service.real.chart import CAPTION, score_chart
from service.real.study import Study, write
from service.representation_scores import ScoreConfig, complete, consensus, gain, prepared, scores
from service.version import __version__

Progress = Callable[[int, int, str], None]
NUCLEI = "DNA"


@dataclass(frozen=True)
class BoardConfig:
    """`engines`: without weights (random_conv, fast, cellprofiler). `weights`: folder of each trained embedder by the
    name it gets here. `profiles`: tables of profiles by name, with Metadata_compound, _plate, _well, _batch, _moa.
    `trex`: engines to refine. `rows`: most test rows measured (0: all); `fit_rows`: most training rows for TRex.
    `subsets`: channel combinations read beside all channels. `tile`: above 0, trained embedders read tiles of that side
    instead of cells (pictures of one cell each). `split`: the rows that are scored, or "all"; "left out" are those that
    the recipe of `left_out_by` left out, with all controls."""

    engines: tuple[str, ...] = ("random_conv",)
    weights: Mapping[str, Path] = field(default_factory=dict)
    profiles: Mapping[str, Path] = field(default_factory=dict)
    trex: tuple[str, ...] = ()
    settings: str = "sim128"
    workers: int = 1
    rows: int = 0
    fit_rows: int = 600
    subsets: int = 2
    tile: int = 0
    twins: bool = True
    split: str = "test"
    left_out_by: Path | None = None
    control: str = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"
    scoring: ScoreConfig = field(default_factory=ScoreConfig)


@dataclass(frozen=True)
class Entry:
    """One line of the board: profiles of fields, seconds a picture, parameters; `options` measure more rows."""

    fields: Profiles
    seconds: float
    parameters: int
    options: Options | None = None


def untrained_twin(folder: Path, out: Path) -> Path:
    """A folder of the same shape whose weights were never trained: those that a training of seed 0 would begin with."""
    import torch

    from profiling.embedders.trained import TrainedEmbedder
    from profiling.embedders.weights import read_card, save_folder

    card = read_card(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TrainedEmbedder(folder, card["engine"]).untrained()
    shutil.rmtree(out, ignore_errors=True)
    save_folder(out, network, {**card, "training": {"steps": 0}})
    return out


def retiled(folder: Path, out: Path, side: int) -> Path:
    """A copy of a folder of weights that reads tiles of `side` pixels instead of cells."""
    from profiling.embedders.weights import CARD, read_card

    crops = read_card(folder)["crops"] | {"source": "tiles", "scales": [side], "read": side}
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out)
    card = json.loads((out / CARD).read_text(encoding="utf-8")) | {"crops": crops}
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return out


def chosen(data: Path, split: str, most: int, by: Path | None = None, control: str = "") -> np.ndarray:
    """Rows of a split, at most `most` of them (0: all), always the same; `by`: a folder of weights whose recipe says
    which rows are "left out", to be scored with all controls. Raises InvalidRequest for an empty split."""
    rows = pd.read_parquet(data / "rows.parquet")
    if by is not None:
        from profiling.embedders.ablation import LEFT_OUT, DataConfig, left_out
        from profiling.embedders.recipe import from_table
        from profiling.embedders.weights import read_card

        own = from_table(DataConfig, read_card(by)["data"], str(by))
        rows = rows.assign(split=np.where(left_out(rows, own), LEFT_OUT, rows["split"]))
    wanted = (rows["split"].to_numpy() == split) | (split == "all")
    if by is not None and wanted.any():
        wanted |= rows["compound"].to_numpy() == control
    found = np.flatnonzero(wanted)
    if not len(found):
        raise InvalidRequest(f"data: no row of {data} has split {split!r}; it has {sorted(rows['split'].unique())}")
    return found if not most or len(found) <= most else np.sort(np.random.default_rng(0).permutation(found)[:most])


def entries(data: Path, out: Path, config: BoardConfig, progress: Progress | None = None) -> dict[str, Entry]:
    """Measure everything that is asked for; one entry a line of the board."""
    from profiling.embedders.weights import read_card

    rows = chosen(data, config.split, config.rows, config.left_out_by, config.control)
    channels = tuple(json.loads((data / "intensity.json").read_text(encoding="utf-8"))["channels"])
    made: dict[str, Entry] = {}

    def add(name: str, options: Options, parameters: int, shown: tuple[str, ...] = ()) -> None:
        done: Measured = measure_rows(data, options, rows, shown, progress)
        made[name] = Entry(done.profiles, done.seconds, parameters, options)

    plain = Options(settings=config.settings, workers=config.workers)
    for engine in config.engines:
        add(engine, replace(plain, engine=engine), 0)
    for name, given in config.weights.items():
        folder = given
        card = read_card(folder)
        if config.tile:
            folder = retiled(folder, out / "tiled" / name, config.tile)
        own = replace(plain, engine=card["engine"], weights=folder)
        add(name, own, int(card.get("parameters", 0)))
        if config.twins:
            twin = untrained_twin(folder, out / "twins" / name)
            add(f"{name} untrained", replace(own, weights=twin), int(card.get("parameters", 0)))
        if config.subsets and NUCLEI in channels and card["network"]["kind"] in ("boc", "mca"):
            rng = np.random.default_rng(0)
            for subset in combinations_of(channels, (NUCLEI,), config.subsets, rng):
                add(f"{name} on {'+'.join(subset)}", own, int(card.get("parameters", 0)), subset)
    for name, path in config.profiles.items():
        made[name] = Entry(read_profiles(path), float("nan"), 0)
    for name in config.trex:
        if name not in made or made[name].options is None:
            raise InvalidRequest(f"trex: no measuring engine {name!r} on the board; it has {', '.join(made)}")
        made |= refined(name, made[name], data, config, progress)
    return made


def refined(
    name: str, base: Entry, data: Path, config: BoardConfig, progress: Progress | None = None
) -> dict[str, Entry]:
    """TRex on an engine's field profiles, with both objectives, fitted on training rows."""
    assert base.options is not None
    rows = chosen(data, "train", config.fit_rows)
    train = measure_rows(data, base.options, rows, progress=progress).profiles
    train = complete(train)
    test = base.fields.features(train.names)
    test = test.rows(np.isfinite(test.values).all(axis=1))
    made = {}
    for objective in ("compound", "moa"):
        fitted = fit(train, TrexConfig(objective=objective, label=objective, batch=64))
        parameters = base.parameters + sum(p.numel() for p in fitted.network.parameters())
        made[f"TRex ({objective}) on {name}"] = Entry(fitted.transform(test), base.seconds, parameters)
    return made


def board(data: Path, out: Path, config: BoardConfig, progress: Progress | None = None) -> Study:
    """Scores of every entry, with gains over the untrained twins and of TRex over its base."""
    measured = entries(data, out, config, progress)
    table: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    costs = []
    wells = {}
    for done, (name, entry) in enumerate(measured.items()):
        if progress is not None:
            progress(done, len(measured), f"scoring {name}")
        wells[name] = prepared(entry.fields, config.control)
        own, missing = scores(name, *wells[name], config.scoring)
        table += own
        refused += missing
        costs.append({"method": name, "seconds a picture": entry.seconds, "parameters": entry.parameters,
                      "features": len(entry.fields.names)})  # fmt: skip
    rng = np.random.default_rng(config.scoring.seed)
    for name in measured:
        for base in (f"{name} untrained", name.partition(" on ")[2] if name.startswith("TRex") else ""):
            if base in wells:
                table += gain(name, wells[name], wells[base], rng, base)
    told = json.loads((data / "intensity.json").read_text(encoding="utf-8"))
    some = next(iter(wells.values()))
    text = (
        f"Pictures: {told.get('evidence', 'unknown')}, rows of the split {config.split!r}; "
        f"{len(some[0])} wells, {len(consensus(*some))} compounds with a mechanism. Each batch is scaled by its DMSO "
        "(median, MAD), features are selected, PCA keeps 99 % of the variance; the same steps for every engine.",
        "Gains are paired over compounds; an interval above zero is a gain. What a painted world says of an engine "
        "holds for that world.",
    )
    extra = {"Cost": pd.DataFrame(costs)}
    if refused:
        extra["What this screen does not allow"] = pd.DataFrame(refused)
    frame = pd.DataFrame(table)
    shown = frame[~frame["metric"].str.startswith("gain")]
    return Study("representations", "Leaderboard of representations", text, frame, extra,
                 {f"Scores {CAPTION}": score_chart(shown, "score")})  # fmt: skip


def run(data: Path, out: Path, config: BoardConfig, real: Path | None = None, progress: Progress | None = None) -> Path:
    """Write the board (report.html, real.json, CSV files) to `out`; `real`: folder of published tables, adds TRex on
    CPJUMP1 and cpg0016. Returns the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    studies = [board(data, out, config, progress)]
    if real is not None:
        from service.real.trex import study

        studies.append(study(real, config.scoring.permutations))
    return write(studies, out, {"dopaint": __version__, "data": str(data.name), "split": config.split})
