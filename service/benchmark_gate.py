"""`dopaint benchmark gate`: does the shipped model use what it is given? True twins come from the simulated world."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from causal.phenotype import DMSO, stream
from ldm.quality import ceiling
from profiling.normalise import median_mad
from profiling.profiles import COUNT_CELLS, Profiles
from profiling.select import SelectConfig, select
from service.engine import ModelRoom, load_room
from service.gate import FACTORS, ROW, GateConfig, Score, compound_pairs, context_pairs, effects, score, shuffled
from service.library import library, world

Progress = Callable[[int, int, str], None]
ENCODED = 160  # true pictures that are encoded and decoded for the ceiling
LIMIT = 30.0  # normalised features are clipped to ±LIMIT, so that one odd picture cannot be the whole effect


@dataclass(frozen=True, eq=False)
class Measured:
    """Features of every distinct row [n, k] of true and generated pictures, on the scale of true controls."""

    names: tuple[str, ...]
    true: np.ndarray
    generated: np.ndarray


def actives(n: int, seed: int) -> list[str]:
    """Seen drugs whose hidden effect is at least half the median length: a seeded choice of n."""
    table, truth = library(), world().compounds
    size = pd.Series(np.linalg.norm(truth.effect, axis=1), index=list(truth.ids))
    seen = table[(table["kind"] == "drug") & (table["split"] == "seen")]["compound"]
    strong = sorted(seen[size[seen].to_numpy() >= 0.5 * float(size[seen].median())])
    return [str(c) for c in stream(seed, "gate", "actives").choice(strong, min(n, len(strong)), replace=False)]


def pairs_of(plates: pd.DataFrame, config: GateConfig) -> pd.DataFrame:
    """All pairs of all factors on the plates that the model was trained on."""
    chosen = actives(config.pairs, config.seed)
    parts = [compound_pairs(Contexts.from_table(plates), chosen, config)]
    parts += [context_pairs(plates, chosen, factor, config) for factor in FACTORS[1:]]
    return pd.concat(parts, ignore_index=True)


def normalised(
    true: Profiles, generated: Profiles, controls: np.ndarray
) -> tuple[tuple[str, ...], Float[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Both tables on the scale of the true controls (median, MAD), without missing, flat and doubled features."""
    centre, spread = median_mad(true.values[controls])
    use = np.isfinite(centre) & (spread > 0)
    names = np.array(true.names)[use]
    z = [
        np.clip((p.features(list(names)).values - centre[use]) / spread[use], -LIMIT, LIMIT) for p in (true, generated)
    ]
    alive = np.isfinite(z[0]).any(1)
    both = Profiles(true.meta[alive].reset_index(drop=True), z[0][alive], tuple(names))
    kept = select(both, SelectConfig(missing=0.0, correlation=0.9, outlier=None)).names
    place = {name: i for i, name in enumerate(names)}
    index = [place[name] for name in kept]
    return tuple(kept), z[0][:, index], z[1][:, index]


def whole_cells(profiles: Profiles, control: np.ndarray) -> float:
    """Median number of cells that lie whole in a control field; fields without cells count as 0."""
    counted = profiles.features([COUNT_CELLS]).values[control, 0]
    return float(np.median(np.nan_to_num(counted)))


def _measure(room: ModelRoom, pictures: np.ndarray, meta: pd.DataFrame, tell: Callable[[int], None]) -> Profiles:
    measured = room.measure(pictures, tell)
    profiles = Profiles(meta.add_prefix("Metadata_"), measured.values, measured.names)
    return profiles


def run(
    model: str | Path = "simulation-128",
    out: Path | None = None,
    config: GateConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Paint, measure and score all pairs; write gate.json to `out` (a file) if given. Returns what it writes."""
    config = config or GateConfig()
    with load_room(model) as room:
        pairs = pairs_of(room.contexts.plates, config)
        rows = pairs[ROW].drop_duplicates().reset_index(drop=True)
        total, done = 4 * len(rows) + min(ENCODED, len(rows)), 0

        def tell(what: str) -> Callable[[int], None]:
            before = done

            def so_far(n: int) -> None:
                if progress is not None:
                    progress(min(before + n, total), total, what)

            return so_far

        true_pictures = world().paint(rows, tell("painting the truth"))
        done += len(rows)
        true = _measure(room, true_pictures, rows, tell("measuring the truth"))
        done += len(rows)
        vectors = room.vectors(list(rows["compound"]))
        painted = room.paint_rows(vectors, rows, tell("painting with the model"))
        done += len(rows)
        done += len(rows)
        generated = _measure(room, painted, rows, tell("measuring the model"))
        done += len(rows)
        blind = _blind(room, vectors, rows, painted)
        compressed = room.compress(true_pictures[:ENCODED], list(rows["source"][:ENCODED]))
        autoencoder = _measure(room, compressed, rows[:ENCODED], tell("measuring the autoencoder"))
        hashes = room.provenance.document()
    control = (rows["compound"] == DMSO).to_numpy()
    names, z_true, z_generated = normalised(true, generated, control)
    scores = score_all(pairs, rows, z_true, z_generated, blind, config)
    limit = ceiling(true.values[: len(autoencoder.values)], autoencoder.values, true.names)
    result: dict[str, object] = {
        "evidence": "simulation",
        "hashes": hashes,
        "pictures": len(rows),
        "features": len(names),
        "whole_cells": {"true": whole_cells(true, control), "generated": whole_cells(generated, control)},
        "scores": [s.document() for s in scores],
        "passed": all(s.passed for s in scores if s.model == "model"),
        "controls_fail": not any(s.passed for s in scores if s.model != "model"),
        "autoencoder_ceiling": {k: v for k, v in limit.items() if k != "features"},
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _blind(room: ModelRoom, vectors: np.ndarray, rows: pd.DataFrame, painted: np.ndarray) -> float:
    """Largest difference between unconditional pictures of two rows with one seed and source: 0 means blind.

    Raises ValueError when the unconditional pictures are those of the conditional model.
    """
    twins = rows[rows.duplicated(["seed", "source"], keep=False)].sort_values(["seed", "source"]).index[:16]
    pictures = room.paint_rows(vectors[twins], rows.loc[twins].reset_index(drop=True), None, unconditional=True)
    if np.array_equal(pictures, painted[twins]):
        raise ValueError("unconditional: the model paints the same with and without conditions")
    group = rows.loc[twins].groupby(["seed", "source"]).ngroup().to_numpy()
    return float(max(np.ptp(pictures[group == g], axis=0).max() for g in np.unique(group)))


def score_all(
    pairs: pd.DataFrame,
    rows: pd.DataFrame,
    true: Float[np.ndarray, "n k"],
    generated: Float[np.ndarray, "n k"],
    blind: float,
    config: GateConfig,
) -> list[Score]:
    """Scores of the model, of shuffled conditions and of the unconditional model, for every factor.

    The unconditional model paints one picture per seed, so each of its effects is exactly 0 (`blind` is the largest
    difference seen; above 0 it was not blind, and the run stops).
    """
    if blind > 0:
        raise ValueError(f"unconditional: pictures of one seed differ by {blind:.3g} between conditions; 0 expected")
    place = rows.reset_index().set_index(ROW)["index"]
    at = place.loc[pd.MultiIndex.from_frame(pairs[ROW])].to_numpy()
    scores = []
    for factor in FACTORS:
        of = (pairs["factor"] == factor).to_numpy()
        g, t = (effects(values[at[of]], pairs[of].reset_index(drop=True)) for values in (generated, true))
        order = shuffled(len(g), config, factor)
        scores += [
            score(factor, "model", g, t, config),
            score(factor, "shuffled", g[order], t, config),
            score(factor, "unconditional", np.zeros_like(g), t, config),
        ]
    return scores
