"""`dopaint benchmark gate`: does the shipped model use what it is given? True twins come from the simulated world."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from service.gate import (
    FACTORS,
    ROW,
    GateConfig,
    Score,
    compound_pairs,
    context_pairs,
    effects,
    mean_effects,
    noise_ceiling,
    own_repeat,
    score,
    shuffled,
)
from service.gate_measure import autoencoder_features, model_features, truth
from service.library import library, world

Progress = Callable[[int, int, str], None]
ENCODED = 160  # true pictures, spread over all rows, that are encoded and decoded for the ceiling
LIMIT = 30.0  # normalised features are clipped to ±LIMIT, so that one odd picture cannot be the whole effect


def actives(n: int, seed: int) -> list[str]:
    """Seen drugs whose hidden effect is at least half the median length: a seeded choice of n."""
    table, hidden = library(), world().compounds
    size = pd.Series(np.linalg.norm(hidden.effect, axis=1), index=list(hidden.ids))
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
    true: Sequence[Profiles], generated: Profiles, controls: np.ndarray
) -> tuple[tuple[str, ...], list[Float[np.ndarray, "n k"]], Float[np.ndarray, "n k"]]:
    """All tables on the scale of the true controls (median, MAD), without missing, flat and doubled features: names,
    one array for every set of true pictures, and the generated one.
    """
    names = true[0].names
    measured = [p.features(list(names)).values for p in (*true, generated)]
    centre, spread = median_mad(np.concatenate([values[controls] for values in measured[:-1]]))
    use = np.isfinite(centre) & (spread > 0)
    names = tuple(np.array(names)[use])
    z = [np.clip((values[:, use] - centre[use]) / spread[use], -LIMIT, LIMIT) for values in measured]
    together = np.concatenate(z[:-1])
    alive = np.isfinite(together).any(1)
    both = Profiles(pd.DataFrame({"Metadata_Row": np.flatnonzero(alive)}), together[alive], names)
    kept = select(both, SelectConfig(missing=0.0, correlation=0.9, outlier=None)).names
    place = {name: i for i, name in enumerate(names)}
    index = [place[name] for name in kept]
    return tuple(kept), [one[:, index] for one in z[:-1]], z[-1][:, index]


def whole_cells(profiles: Profiles, control: np.ndarray) -> float:
    """Median number of cells that lie whole in a control field; fields without cells count as 0."""
    counted = profiles.features([COUNT_CELLS]).values[control, 0]
    return float(np.median(np.nan_to_num(counted)))


def run(
    model: str | Path = "simulation-128",
    out: Path | None = None,
    config: GateConfig | None = None,
    progress: Progress | None = None,
    *,
    engine: str = "fast",
    truth_in: Path | None = None,
) -> dict[str, object]:
    """Paint, measure and score all pairs; write gate.json to `out` (a file) if given. Returns what it writes.

    truth_in: a folder that keeps the measured truth for the next model (`service.gate_measure.truth`).
    """
    config = config or GateConfig()
    with load_room(model, engine) as room:
        pairs = pairs_of(room.contexts.plates, config)
        rows = pairs[ROW].drop_duplicates().reset_index(drop=True)
        some = np.linspace(0, len(rows) - 1, min(ENCODED, len(rows))).round().astype(int)
        total, done = (config.truth + 1) * len(rows) + len(some), 0

        def tell(what: str) -> Callable[[int], None]:
            def more(n: int) -> None:
                nonlocal done
                done += n
                if progress is not None:
                    progress(done, total, what)

            return more

        blind = _blind(room, rows)
        generated = model_features(room, rows, tell("the model"))
        true = truth(room, rows, config.truth, truth_in, tell("the truth"))
        autoencoder = autoencoder_features(room, rows.iloc[some].reset_index(drop=True), tell("the autoencoder"))
        hashes = room.provenance.document()
    control = (rows["compound"] == DMSO).to_numpy()
    names, z_true, z_generated = normalised(true, generated, control)
    scores = score_all(pairs, rows, z_true, z_generated, blind, config)
    limit = ceiling(true[0].values[some], autoencoder.features(list(true[0].names)).values, true[0].names)
    result: dict[str, object] = {
        "evidence": "simulation",
        "hashes": hashes,
        "engine": engine,
        "draws": {factor: config.draws(factor) for factor in FACTORS} | {"truth": config.truth},
        "pictures": len(rows),
        "features": len(names),
        "whole_cells": {"true": whole_cells(true[0], control), "generated": whole_cells(generated, control)},
        "scores": [s.document() for s in scores],
        "passed": all(s.passed for s in scores if s.model == "model"),
        "controls_fail": not any(s.passed for s in scores if s.model != "model"),
        "autoencoder_ceiling": {k: v for k, v in limit.items() if k != "features"},
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _blind(room: ModelRoom, rows: pd.DataFrame) -> float:
    """Largest difference between unconditional pictures of two rows with one seed and source: 0 means blind.

    Raises ValueError when the unconditional pictures are those of the conditional model.
    """
    twins = rows[rows.duplicated(["seed", "source"], keep=False)].sort_values(["seed", "source"]).index[:16]
    few = rows.loc[twins].reset_index(drop=True)
    vectors = room.vectors(list(few["compound"]))
    pictures = room.paint_rows(vectors, few, None, unconditional=True)
    if np.array_equal(pictures, room.paint_rows(vectors, few, None)):
        raise ValueError("unconditional: the model paints the same with and without conditions")
    group = few.groupby(["seed", "source"]).ngroup().to_numpy()
    return float(max(np.ptp(pictures[group == g], axis=0).max() for g in np.unique(group)))


def score_all(
    pairs: pd.DataFrame,
    rows: pd.DataFrame,
    true: Sequence[Float[np.ndarray, "n k"]],
    generated: Float[np.ndarray, "n k"],
    blind: float,
    config: GateConfig,
) -> list[Score]:
    """Scores of the model, of shuffled conditions and of the unconditional model, for every factor.

    The unconditional model paints one picture per seed, so each of its effects is exactly 0 (`blind` is the largest
    difference seen; above 0 it was not blind, and the run stops). The truth is the mean over its sets of pictures.
    """
    if blind > 0:
        raise ValueError(f"unconditional: pictures of one seed differ by {blind:.3g} between conditions; 0 expected")
    place = rows.reset_index().set_index(ROW)["index"]
    at = place.loc[pd.MultiIndex.from_frame(pairs[ROW])].to_numpy()
    scores = []
    for factor in FACTORS:
        of = (pairs["factor"] == factor).to_numpy()
        mine = pairs[of].reset_index(drop=True)
        g, *sets = (effects(values[at[of]], mine) for values in (generated, *true))
        t = mean_effects(sets)
        order = shuffled(len(g), config, factor)
        scores += [
            score(factor, "model", g, t, config, noise_ceiling(sets), own_repeat(generated[at[of]], mine)),
            score(factor, "shuffled", g[order], t, config),
            score(factor, "unconditional", np.zeros_like(g), t, config),
        ]
    return scores
