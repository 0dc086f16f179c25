"""What limits the gate: the noise of a few fields, the autoencoder, or the denoiser?

For pairs of every factor of the gate (`service/gate.py`), median cosines of effect vectors:

noise         true effects of d draws against true effects of d other draws
perfect       true effects of d draws against other true pictures of the same contexts: what a model that paints from
              the true law would get against a truth of one picture a row
autoencoder   true effects against those of the same pictures, encoded and decoded
model         generated against true effects, at d draws; `against all` where the truth is all draws of the run

    python benchmarks/gate_ceiling.py --out benchmarks/results/gate-ceiling-DATE.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from causal.phenotype import DMSO
from ldm.quality import cosine, family
from profiling.profiles import Profiles
from service.benchmark_gate import normalised, pairs_of
from service.engine import ModelRoom, load_room
from service.gate import FACTORS, ROW, GateConfig, effects, replicate
from service.gate_measure import autoencoder_features, model_features, true_features


def median_cosine(one: np.ndarray, other: np.ndarray, columns: np.ndarray | slice = slice(None)) -> float:
    """Median over pairs of the cosine of their effects; pairs without cells are left out."""
    both = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    return round(float(np.median(cosine(one[both][:, columns], other[both][:, columns]))), 3)


class Effects:
    """Effects of a factor's pairs from the features of rows, by draws."""

    def __init__(self, pairs: pd.DataFrame, rows: pd.DataFrame) -> None:
        self.pairs = pairs
        place = rows.reset_index().set_index(ROW)["index"]
        self.at = place.loc[pd.MultiIndex.from_frame(pairs[ROW])].to_numpy()

    def of(self, values: np.ndarray, factor: str, draws: range) -> np.ndarray:
        """Effects [pairs, features] over these draws."""
        use = (self.pairs["factor"] == factor).to_numpy() & self.pairs["draw"].isin(draws).to_numpy()
        return effects(values[self.at[use]], self.pairs[use].reset_index(drop=True))


def rows_of(pairs: pd.DataFrame, draws: int) -> pd.DataFrame:
    """Distinct rows of the first draws of every pair."""
    return pairs.loc[pairs["draw"] < draws, ROW].drop_duplicates().reset_index(drop=True)


def spread(some: Profiles, part: pd.DataFrame, rows: pd.DataFrame) -> Profiles:
    """Profiles of a part of the rows at the places that these have among all; NaN elsewhere."""
    place = rows.reset_index().set_index(ROW)["index"]
    at = place.loc[pd.MultiIndex.from_frame(part[ROW])].to_numpy()
    values = np.full((len(rows), len(some.names)), np.nan)
    values[at] = some.values
    return Profiles(rows.add_prefix("Metadata_"), values, some.names)


def families(one: np.ndarray, other: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Median cosines within each family of features."""
    kinds = np.array([family(name) for name in names])
    return {str(kind): median_cosine(one, other, kinds == kind) for kind in np.unique(kinds)}


def measure(room: ModelRoom, config: GateConfig, draws: int, few: int) -> dict[str, object]:
    """All numbers; the truth has 2 x `draws` draws, model and autoencoder have `few`."""
    n = 2 * draws
    wide = replace(config, compound_draws=n, source_draws=n, batch_draws=n, well_draws=n)
    pairs = pairs_of(room.contexts.plates, wide)
    rows, part = rows_of(pairs, 2 * draws), rows_of(pairs, few)
    began, seconds = time.monotonic(), {}

    def timed(name: str, made: Profiles) -> Profiles:
        nonlocal began
        seconds[name] = round(time.monotonic() - began, 1)
        print(f"{name}: {len(made)} pictures in {seconds[name]} s", file=sys.stderr, flush=True)
        began = time.monotonic()
        return made

    quiet = lambda _: None  # noqa: E731
    model = timed("model", spread(model_features(room, part, quiet), part, rows))
    decoded = timed("autoencoder", spread(autoencoder_features(room, part, quiet), part, rows))
    again = timed("again", spread(true_features(room, replicate(part, 1), quiet), part, rows))
    true = timed("truth", true_features(room, rows, quiet))
    control = (rows["compound"] == DMSO).to_numpy()
    names, (z_true,), z_model = normalised([true], model, control)
    z_decoded, z_again = (normalised([true], one, control)[2] for one in (decoded, again))
    of = Effects(pairs, rows).of
    result: dict[str, object] = {
        "pictures": len(rows),
        "features": len(names),
        "seconds": seconds,
        "pairs": config.pairs,
    }
    sizes = [d for d in (1, 2, 4, 8, 16, 32) if d <= draws]
    for factor in FACTORS:
        everything = of(z_true, factor, range(2 * draws))
        short = [d for d in sizes if d <= few]
        true_few, model_few, decoded_few = (of(z, factor, range(few)) for z in (z_true, z_model, z_decoded))
        result[factor] = {
            "noise": {
                d: median_cosine(of(z_true, factor, range(d)), of(z_true, factor, range(draws, draws + d)))
                for d in sizes
            },
            "perfect": {d: median_cosine(of(z_again, factor, range(d)), of(z_true, factor, range(d))) for d in short},
            "autoencoder": {
                d: median_cosine(of(z_decoded, factor, range(d)), of(z_true, factor, range(d))) for d in short
            },
            "model": {d: median_cosine(of(z_model, factor, range(d)), of(z_true, factor, range(d))) for d in short},
            "model against all": median_cosine(model_few, everything),
            "autoencoder against all": median_cosine(decoded_few, everything),
            "truth against all others": median_cosine(true_few, of(z_true, factor, range(few, 2 * draws))),
            "families": {
                "noise": families(true_few, of(z_true, factor, range(draws, draws + few)), names),
                "autoencoder": families(decoded_few, true_few, names),
                "model": families(model_few, true_few, names),
            },
        }
    return result


def main() -> None:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description="What limits the gate.")
    parser.add_argument("--model", default="simulation-128")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--draws", type=int, default=16, help="of a noise ceiling; the truth has twice as many")
    parser.add_argument("--few", type=int, default=8, help="draws of model and autoencoder")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with load_room(args.model, "fast", workers=args.workers) as room:
        result = measure(room, GateConfig(pairs=args.pairs), args.draws, args.few)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
