"""The brightfield paper's five steps on a painted screen of doses and times: vectors, MAD and Harmony, mAP-ES, nuclear
count beside it, mechanisms by dose; and nuclei found without labels against the true ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiling.activity import EffectSizeConfig, beyond_count, count_activity, map_effect_size
from profiling.embedders.data import load_pictures
from profiling.embedders.evaluate import DoseTable, dose_curve
from profiling.profiles import META, Profiles
from profiling.retrieval import unit_rows
from profiling.steps import run_steps
from service.embedder_targets import measure_rows
from service.errors import InvalidRequest
from service.measure import Options
from service.representation_scores import complete

Progress = Callable[[int, int, str], None]
#: MAD of each plate and time to its DMSO, then Harmony over replicas and fields of view (their MAD+Harmony/FOV).
MAD: dict[str, Any] = {"name": "mad_robustise", "by": ["plate", "hours"]}
TIDY = ({"name": "select", "fit_on": "all", "missing": 0.0}, {"name": "pca", "fit_on": "all", "keep": 0.99})
NORMALISATIONS: dict[str, Sequence[dict[str, Any]]] = {
    "MAD": (MAD, *TIDY),
    "MAD+Harmony/FOV": (MAD, *TIDY, {"name": "harmony", "by": ["batch"], "cluster_rounds": 20}),
    "fastMNN": (MAD, *TIDY, {"name": "mnn", "batch": "batch"}),
}
KEYS = ["dose", "hours"]


@dataclass(frozen=True)
class BrightfieldConfig:
    """`normalisation`: one of `NORMALISATIONS`; `draws`, `pseudo`: of mAP-ES; `nuclei`: pictures whose nuclei are
    looked for; `rows`: most rows measured (0: all); `control`: the compound that is DMSO."""

    normalisation: str = "MAD+Harmony/FOV"
    draws: int = 1000
    pseudo: int = 20
    nuclei: int = 50
    rows: int = 0
    seed: int = 1
    control: str = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise InvalidRequest(
                f"normalisation: got {self.normalisation!r}, expected one of {', '.join(NORMALISATIONS)}"
            )


@dataclass(frozen=True)
class Evaluation:
    """`activity`: a row a compound, dose and time; `beyond`: against the nuclear count;
    `doses`: mechanisms named with 1, 2, ... doses; `nuclei`: found against true ones (empty without an embedder)."""

    activity: pd.DataFrame
    beyond: pd.DataFrame
    doses: pd.DataFrame
    nuclei: dict[str, float]


def corrected(fields: Profiles, config: BrightfieldConfig) -> tuple[Profiles, np.ndarray]:
    """The steps of a normalisation, on wells that were measured, of plates and times with at least two controls."""
    wells = complete(fields)
    place = wells.meta[[META + "plate", META + "hours"]].apply(tuple, axis=1)
    controls = place[wells.column("compound") == config.control].value_counts()
    wells = wells.rows(place.isin(controls[controls >= 2].index).to_numpy())
    done = run_steps(wells, list(NORMALISATIONS[config.normalisation]), wells.column("compound") == config.control)
    return done.profiles, done.controls


def activity(profiles: Profiles, controls: np.ndarray, config: BrightfieldConfig) -> pd.DataFrame:
    """mAP-ES of every compound at every dose and time (`map_effect_size`), with columns dose and hours."""
    parts = []
    condition = profiles.meta[[META + k for k in KEYS]].apply(tuple, axis=1)
    sizes = EffectSizeConfig(pseudo=config.pseudo, resamples=0, samples=config.draws)
    for own in sorted(set(condition)):
        rows = (condition == own).to_numpy()
        part, is_control = profiles.rows(rows), controls[rows]
        rng = np.random.default_rng(config.seed)
        columns = [part.column(c) for c in ("compound", "plate", "batch")]
        table = map_effect_size(unit_rows(part.values), columns[0], columns[1], columns[2], is_control, rng, sizes)
        parts.append(table.assign(dose=own[0], hours=own[1]))
    return pd.concat(parts, ignore_index=True)


def by_count(rows: pd.DataFrame, count: np.ndarray, config: BrightfieldConfig) -> pd.DataFrame:
    """Activity by the nuclear count: z to the DMSO of each plate and time, interval of the median by bootstrap."""
    parts = []
    table = rows.assign(count=count)
    control = table["compound"] == config.control
    groups = table[control].groupby(["plate", "hours"])["count"]
    base = table.set_index(["plate", "hours"]).index
    mean, sd = groups.mean().reindex(base).to_numpy(), groups.std().reindex(base).to_numpy()
    z = (count - mean) / np.where(sd > 0, sd, np.nan)
    for (dose, hours), own in table[~control].groupby(KEYS, sort=True):
        at = own.index.to_numpy()
        known = at[np.isfinite(z[at])]
        rng = np.random.default_rng(config.seed)
        made = count_activity(z[known], table["compound"].to_numpy()[known], rng)
        parts.append(made.assign(dose=dose, hours=hours))
    return pd.concat(parts, ignore_index=True)


def beyond(profile: pd.DataFrame, count: pd.DataFrame) -> pd.DataFrame:
    """Active by both, by the profile only, by the count only, by neither: at every dose and time."""
    parts = []
    for key, own in profile.dropna(subset=["effect_size"]).groupby(KEYS, sort=True):
        other = count[(count["dose"] == key[0]) & (count["hours"] == key[1])]
        both = sorted(set(own["treatment"]) & set(other["treatment"]))
        made = beyond_count(own[own["treatment"].isin(both)], other[other["treatment"].isin(both)])
        parts.append(made.assign(dose=key[0], hours=key[1]))
    return pd.concat(parts, ignore_index=True)


def weighted(profiles: Profiles, controls: np.ndarray, table: pd.DataFrame) -> DoseTable:
    """Treated rows with the weight of their condition: mAP-ES where active, else 0."""
    treated = profiles.rows(~controls & profiles.meta[META + "moa"].notna().to_numpy())
    rows = treated.meta[[META + c for c in ("compound", "moa", *KEYS)]].rename(columns=lambda c: c[len(META) :])
    size = table.assign(weight=np.where(table["active"], table["effect_size"], 0.0)).set_index(["treatment", *KEYS])
    index = pd.MultiIndex.from_frame(rows[["compound", *KEYS]])
    return DoseTable(treated.values, rows.assign(weight=size["weight"].reindex(index).fillna(0.0).to_numpy()))


def nuclei(data: Path, weights: Path, config: BrightfieldConfig, plane: str = "z1") -> dict[str, float]:
    """Nuclei from attention and keys of a trained network, against the true centres: F1, and that of shifted ones."""
    from profiling.embedders.found import FoundConfig, agreement, objects, segment
    from profiling.embedders.networks.vit import VisionTransformer
    from profiling.embedders.trained import TrainedEmbedder
    from profiling.embedders.weights import read_card

    network = TrainedEmbedder(weights, read_card(weights)["engine"]).network
    vit = getattr(network, "vit", None)
    if not isinstance(vit, VisionTransformer):
        raise InvalidRequest(f"weights: {weights} is no bag of channels, whose attention finds nuclei")
    pictures, true = load_pictures(data), pd.read_parquet(data / "nuclei.parquet")
    settings = FoundConfig()
    at = pictures.channels.index(plane)
    rows = np.sort(np.random.default_rng(config.seed).permutation(len(pictures))[: config.nuclei])
    own, other = [], []
    for row in rows:
        centres = objects(segment(vit, pictures.read(int(row))[at], settings), settings.least)
        real = true.loc[true["row"] == row, ["y", "x"]].to_numpy(np.float64)
        size = np.array(pictures.pictures.shape[2:], np.float64)
        own.append(agreement(centres, real).f1)
        other.append(agreement((centres + size / 2) % size, real).f1)  # as many objects, elsewhere
    return {"f1": float(np.mean(own)), "f1 of the same objects elsewhere": float(np.mean(other)), "pictures": len(rows)}


def evaluate(data: Path, options: Options, config: BrightfieldConfig, progress: Progress | None = None) -> Evaluation:
    """All steps for one engine on the rows of a screen. The count is of true nuclei; CellProfiler's features go through
    the same steps with its engine's name."""
    table = load_pictures(data).rows
    chosen = np.arange(len(table))
    if config.rows and config.rows < len(table):
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[: config.rows])
    measured = measure_rows(data, options, chosen, progress=progress).profiles
    profiles, controls = corrected(measured, config)
    active = activity(profiles, controls, config)
    true = pd.read_parquet(data / "nuclei.parquet")["row"].value_counts()
    count = true.reindex(chosen).fillna(0).to_numpy(np.float64)
    counted = by_count(table.iloc[chosen].reset_index(drop=True), count, config)
    both = beyond(active, counted)
    curve = dose_curve(weighted(profiles, controls, active), seed=config.seed)
    found = nuclei(data, options.weights, config) if options.weights is not None and config.nuclei else {}
    return Evaluation(active, both, curve, found)


def write(found: Evaluation, out: Path) -> dict[str, Any]:
    """Write the tables and brightfield.json to `out`; returns what the JSON says."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("activity", "beyond", "doses"):
        getattr(found, name).to_csv(out / f"{name}.csv", index=False)
    known = found.activity.dropna(subset=["effect_size"])
    shares = known.groupby(KEYS)["active"].mean().reset_index()
    said: dict[str, Any] = {
        "active": [
            {**dict(zip(KEYS, (r.dose, r.hours), strict=True)), "share": float(r.active)} for r in shares.itertuples()
        ],
        "mechanisms": found.doses.to_dict("records"),
        "nuclei": found.nuclei,
    }
    (out / "brightfield.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return said
