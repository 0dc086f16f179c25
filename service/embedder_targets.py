"""What pictures of a training folder measure by any engine: profiles of its rows, and targets for PhenoProfiler."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int

from profiling.embedders.data import TrainingPictures, load_pictures
from profiling.profiles import COUNT_CELLS, COUNT_NUCLEI, Profiles, field_medians
from profiling.select import SelectConfig, select
from service.measure import Options, engine_of

BATCH = 32
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Measured:
    """Profiles of fields with the columns of rows.parquet as metadata, and seconds a picture."""

    profiles: Profiles
    seconds: float


def camera(folder: Path, data: TrainingPictures, rows: Int[np.ndarray, " b"]) -> Float32[np.ndarray, "b c h w"]:
    """Pictures in camera units [0, 1]: scaled back by the source's two numbers where the folder was scaled."""
    values = np.stack([np.asarray(data.pictures[int(i)], np.float32) for i in rows])
    scale = json.loads((folder / "intensity.json").read_text(encoding="utf-8")).get("sources")
    if scale is None:
        return np.clip(values / 255.0 if data.pictures.dtype == np.uint8 else values, 0.0, 1.0).astype(np.float32)
    source = data.rows["source"].to_numpy()[rows]
    low = np.array([scale[s]["low"] for s in source], np.float32)[:, :, None, None]
    high = np.array([scale[s]["high"] for s in source], np.float32)[:, :, None, None]
    return np.clip((values + 1.0) / 2.0 * (high - low) + low, 0.0, 1.0).astype(np.float32)


def measure_rows(
    folder: Path,
    options: Options,
    rows: Int[np.ndarray, " b"] | None = None,
    channels: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Measured:
    """Field profiles (median over cells) of chosen rows by an engine; `channels`: which are shown to it, () all."""
    data = load_pictures(folder)
    chosen = np.arange(len(data)) if rows is None else rows
    shown = channels or data.channels
    place = [data.channels.index(name) for name in shown]
    measured = []
    with engine_of(options) as engine:
        began = time.monotonic()
        for start in range(0, len(chosen), BATCH):
            part = chosen[start : start + BATCH]
            measured += engine.measure(np.ascontiguousarray(camera(folder, data, part)[:, place]), shown)
            if progress is not None:
                progress(start + len(part), len(chosen), options.engine)
        seconds = (time.monotonic() - began) / max(len(chosen), 1)
    meta = data.rows.iloc[chosen].reset_index(drop=True).rename(columns=lambda c: f"Metadata_{c}")
    return Measured(field_medians(measured, meta), seconds)


def write_targets(folder: Path, options: Options, progress: Progress | None = None) -> int:
    """Write targets.npy and targets.json to a training folder: selected features, standardised over all rows, medians
    in the place of what was not measured. Returns the number of features."""
    profiles = measure_rows(folder, options, progress=progress).profiles
    counts = [name for name in profiles.names if name in (COUNT_CELLS, COUNT_NUCLEI)]
    kept = profiles.features(select(profiles, SelectConfig()).names)
    kept = kept.features([name for name in kept.names if name not in counts])
    middle = np.nan_to_num(np.nanmedian(kept.values, axis=0))
    values = np.where(np.isnan(kept.values), middle, kept.values)
    sd = values.std(axis=0)
    values = np.clip((values - values.mean(axis=0)) / np.where(sd > 0, sd, 1.0), -10.0, 10.0)
    np.save(folder / "targets.npy", values.astype(np.float32))
    (folder / "targets.json").write_text(json.dumps(list(kept.names)) + "\n", encoding="utf-8")
    return len(kept.names)


def adapted(profiles_path: Path, weights: Path, out: Path) -> int:
    """Apply a TRex adaptation to a table of profiles; returns the number of rows."""
    from profiling.embedders.trex import load_adaptation
    from profiling.tables import read_profiles, write_profiles

    made = load_adaptation(weights).transform(read_profiles(profiles_path))
    write_profiles(made, out)
    return len(made)


def curated(table: Path, out: Path, config: Path | None = None) -> pd.DataFrame:
    """Curate a table of CHAMMI-75's metadata: a CSV with its columns, `mean` and, for the selection by content, feature
    columns beginning with `content_`. Writes what is left to `out`; returns the log."""
    from profiling.embedders.curation import CurationConfig, curate
    from profiling.embedders.recipe import read_recipe, table_of

    own = table_of(read_recipe(config), "curation", CurationConfig, str(config)) if config else CurationConfig()
    read = pd.read_csv(table, dtype=str, keep_default_na=False)
    content = [c for c in read.columns if c.startswith("content_")]
    mean = pd.to_numeric(read["mean"]).to_numpy(np.float64)
    features = read[content].astype(float).to_numpy() if content else None
    done = curate(read.drop(columns=["mean", *content]), mean, features, own)
    done.table.to_csv(out, index=False)
    return done.log
