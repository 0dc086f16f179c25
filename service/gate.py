"""The condition-use gate: paired rows that differ in one thing, and the scores of generated against true effects.

FID cannot see a model that ignores the drug. Here each pair of rows differs in the compound, the source, the batch or
the well alone and shares its noise; the effect of the swap in the generated pictures must point where the effect in
the true pictures points, and be about as large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from causal.design import draw_contexts
from causal.laboratory import COLUMNS, ROWS
from causal.phenotype import DMSO, stream
from ldm.quality import cosine as cosines
from service.errors import InvalidRequest

FACTORS = ("compound", "source", "batch", "well")
ROW = ["compound", "source", "batch", "plate", "plate_format", "row", "column", "seed"]


@dataclass(frozen=True)
class GateConfig:
    """How many pairs and draws, and what counts as passed (thresholds of the project, not of a paper).

    The draws of a factor are the pictures at each end of its pairs: as many as the noise of single fields asks for
    (`docs/decisions/0004-draws-of-the-gate.md`). truth: true pictures of every row, each with cells and noise of its
    own.
    """

    pairs: int = 64
    compound_draws: int = 12
    source_draws: int = 6
    batch_draws: int = 8
    well_draws: int = 12
    truth: int = 2
    seed: int = 4200
    cosine: float = 0.6
    cosine_low: float = 0.4
    slope: tuple[float, float] = (0.6, 1.4)
    top: float = 0.1  # the true compound must be in this share of the candidates ...
    top_share: float = 0.6  # ... for at least this share of the compounds
    bootstrap: int = 2000

    def draws(self, factor: str) -> int:
        """Pictures at each end of a pair of this factor."""
        return {
            "compound": self.compound_draws,
            "source": self.source_draws,
            "batch": self.batch_draws,
            "well": self.well_draws,
        }[factor]


def with_draws(changes: Sequence[str]) -> GateConfig:
    """The gate with other draws, each given as FACTOR=NUMBER. Raises `InvalidRequest`."""
    found: dict[str, int] = {}
    for change in changes:
        factor, _, number = change.partition("=")
        if factor not in FACTORS or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 1000:
            raise InvalidRequest(
                f"draws: got {change!r}, expected {', '.join(FACTORS)}, and a number from 1 to 1000, as well=32"
            )
        found[factor] = int(number)
    base = GateConfig()
    return replace(
        base,
        compound_draws=found.get("compound", base.compound_draws),
        source_draws=found.get("source", base.source_draws),
        batch_draws=found.get("batch", base.batch_draws),
        well_draws=found.get("well", base.well_draws),
    )


@dataclass(frozen=True)
class Score:
    """One factor under one model: median cosine with its 95 % lower bound, slope of sizes, share in the top.

    noise_ceiling: median cosine that true pictures with other noise reach at as many draws (`noise_ceiling`): what a
    model whose pictures come from the true law would get. repeat: median cosine of the model's effects over its even
    and over its odd draws: how far its own noise, and not its error, moves them (`expected_at`).
    """

    factor: str
    model: str
    pairs: int
    cosine: float
    cosine_low: float
    slope: float
    top_share: float | None
    passed: bool
    noise_ceiling: float | None = None
    repeat: float | None = None

    def document(self) -> dict[str, object]:
        """As a JSON object, rounded to four digits."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


def _at(plate: pd.Series, position: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    """Row and column on this plate at a relative position in [0, 1)²."""
    high, wide = ROWS[int(plate["plate_format"])], COLUMNS[int(plate["plate_format"])]
    return min(int(position[0] * high), high - 1), min(int(position[1] * wide), wide - 1)


def _row(compound: str, plate: pd.Series, position: Float[np.ndarray, " 2"], seed: int) -> dict[str, object]:
    row, column = _at(plate, position)
    context = {k: plate[k] for k in ("source", "batch", "plate", "plate_format")}
    return {"compound": compound, **context, "row": row, "column": column, "seed": np.uint64(seed)}


def compound_pairs(contexts: Contexts, compounds: Sequence[str], config: GateConfig) -> pd.DataFrame:
    """Pair i: DMSO against compound i, under draws (contexts and noise) that all pairs share."""
    draws = draw_contexts(contexts, config.compound_draws, "iid", "valid", config.seed)
    columns = ["source", "batch", "plate", "plate_format", "row", "column", "seed"]
    parts = []
    for pair, compound in enumerate(compounds):
        for end, who in enumerate((DMSO, compound)):
            parts.append(draws[columns].assign(compound=who, pair=pair, end=end, draw=np.arange(len(draws))))
    return pd.concat(parts, ignore_index=True).assign(factor="compound")


def context_pairs(plates: pd.DataFrame, compounds: Sequence[str], factor: str, config: GateConfig) -> pd.DataFrame:
    """Pairs of rows of one compound (every second one DMSO) and one noise that differ in source, batch or well alone.

    A source comes with one of its batches and plates, a batch with one of its plates: contexts are nested. Wells keep
    their relative position, except in the well factor: there one end lies inside the plate and one at its edge, or
    the ends lie at opposite sides.
    """
    rows = []
    for pair in range(config.pairs):
        rng = stream(config.seed, factor, pair)
        compound = DMSO if pair % 2 == 0 else compounds[(pair // 2) % len(compounds)]
        sources = rng.permutation(sorted(plates["source"].unique()))
        here = plates[plates["source"] == sources[0]]
        batches = rng.permutation(sorted(here["batch"].unique()))
        spots = _spots(rng)
        for draw in range(config.draws(factor)):
            seed = int(rng.integers(0, 2**63 - 1))
            position = rng.random(2)
            if factor == "source":
                ends = [plates[plates["source"] == s] for s in sources[:2]]
                places = [position, position]
            elif factor == "batch":
                ends = [here[here["batch"] == b] for b in batches[:2]]
                places = [position, position]
            else:
                ends = [here, here]
                places = spots
            pick = int(rng.integers(0, 2**31))
            for end, (table, place) in enumerate(zip(ends, places, strict=True)):
                plate = table.iloc[pick % len(table)]
                rows.append({**_row(compound, plate, place, seed), "pair": pair, "end": end, "draw": draw})
    return pd.DataFrame(rows).assign(factor=factor)


def _spots(rng: np.random.Generator) -> list[Float[np.ndarray, " 2"]]:
    inside = rng.uniform(0.3, 0.7, 2)
    other = inside.copy()
    axis = int(rng.integers(0, 2))
    if rng.random() < 0.5:
        other[axis] = rng.choice([0.0, 0.999])
        return [inside, other]
    inside[axis], other[axis] = 0.15, 0.85
    return [inside, other]


def effects(values: Float[np.ndarray, "n k"], pairs: pd.DataFrame) -> Float[np.ndarray, "p k"]:
    """Mean over draws of (end 1 − end 0) of each pair; a draw without cells at either end is left out.

    `values` and `pairs` go row by row. A pair without any usable draw is NaN.
    """
    place = pairs.assign(position=np.arange(len(pairs))).set_index(["pair", "draw", "end"])["position"]
    order = pd.DataFrame({end: place.xs(end, level="end") for end in (0, 1)})
    difference = values[order[1].to_numpy()] - values[order[0].to_numpy()]
    usable = np.isfinite(difference).all(1)
    pair = order.index.get_level_values("pair").to_numpy()
    out = np.full((pair.max() + 1, values.shape[1]), np.nan)
    for p in range(len(out)):
        chosen = (pair == p) & usable
        if chosen.any():
            out[p] = difference[chosen].mean(0)
    return out


def replicate(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """The k-th true picture of every row: other cells and noise in the same context; k = 0 keeps the rows' seeds.

    Equal seeds stay equal, so pairs go on sharing their noise. Seeds are mixed by SplitMix64 (Steele, Lea and Flood
    2014).
    """
    if k == 0:
        return rows
    z = rows["seed"].to_numpy(np.uint64) + np.uint64(k * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return rows.assign(seed=z ^ (z >> np.uint64(31)))


def mean_effects(replicates: Sequence[Float[np.ndarray, "p k"]]) -> Float[np.ndarray, "p k"]:
    """Mean of the effects of several sets of pictures; NaN only where every one is."""
    stacked = np.stack(list(replicates))
    known = np.isfinite(stacked)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, stacked, 0.0).sum(0) / np.maximum(count, 1), np.nan)


def noise_ceiling(replicates: Sequence[Float[np.ndarray, "p k"]]) -> float | None:
    """Median cosine of each set of true effects with the mean of the others, averaged over the sets.

    None for one set. The others are one set fewer than what a model meets, so this errs on the low side.
    """
    if len(replicates) < 2:
        return None
    medians = []
    for k, one in enumerate(replicates):
        others = mean_effects([r for j, r in enumerate(replicates) if j != k])
        both = np.isfinite(one).all(1) & np.isfinite(others).all(1)
        medians.append(float(np.median(cosines(others[both], one[both]))))
    return float(np.mean(medians))


def own_repeat(values: Float[np.ndarray, "n k"], pairs: pd.DataFrame) -> float | None:
    """Median cosine of the effects over even draws with those over odd draws; None for one draw."""
    odd = (pairs["draw"] % 2 == 1).to_numpy()
    if not odd.any():
        return None
    one, other = (effects(values[half], pairs[half].reset_index(drop=True)) for half in (~odd, odd))
    both = np.isfinite(one).all(1) & np.isfinite(other).all(1)
    return float(np.median(cosines(one[both], other[both])))


def expected_at(cosine: float, repeat: float, draws: int, more: int) -> float:
    """What a median cosine over `draws` draws would be over `more`, if only the model's own noise shrank.

    A repeat h between halves of `draws` means that noise has the share (1 - h) / (2 h) of the effect's square at
    `draws` (Spearman 1910, Brown 1910).
    """
    share = (1.0 - repeat) / (2.0 * repeat)
    return float(cosine * np.sqrt((1.0 + share) / (1.0 + share * draws / more)))


def top_share(generated: Float[np.ndarray, "p k"], true: Float[np.ndarray, "p k"], top: float) -> float:
    """Share of rows whose own true effect is among the `top` share of all true effects by Pearson correlation."""
    centred = [x - x.mean(1, keepdims=True) for x in (generated, true)]
    length = [np.linalg.norm(x, axis=1, keepdims=True) for x in centred]
    g, t = (x / np.where(n > 0, n, 1.0) for x, n in zip(centred, length, strict=True))
    correlation = g @ t.T
    own = np.diag(correlation)[:, None]
    better = (correlation >= own).sum(1)  # counts itself; ties count against the model
    return float((better <= max(1, int(top * len(true)))).mean())


def score(
    factor: str,
    model: str,
    generated: Float[np.ndarray, "p k"],
    true: Float[np.ndarray, "p k"],
    config: GateConfig,
    noise: float | None = None,
    repeat: float | None = None,
) -> Score:
    """Score one factor: rows are pairs, features are normalised. Pairs without cells at an end count as cosine 0.

    noise, repeat: the noise ceiling and the model's own, which are reported and decide nothing.
    """
    known = np.isfinite(true).all(1)
    g, t = np.nan_to_num(generated[known]), true[known]
    cosine = cosines(t, g)
    rng = stream(config.seed, "bootstrap", factor, model)
    resampled = np.median(cosine[rng.integers(0, len(cosine), (config.bootstrap, len(cosine)))], axis=1)
    sizes = np.linalg.norm(g, axis=1), np.linalg.norm(t, axis=1)
    slope = float((sizes[0] * sizes[1]).sum() / (sizes[1] ** 2).sum())
    share = top_share(g, t, config.top) if factor == "compound" else None
    median, low = float(np.median(cosine)), float(np.quantile(resampled, 0.025))
    passed = (
        median >= config.cosine
        and low >= config.cosine_low
        and config.slope[0] <= slope <= config.slope[1]
        and (share is None or share >= config.top_share)
    )
    return Score(factor, model, len(g), median, low, slope, share, bool(passed), noise, repeat)


def shuffled(n: int, config: GateConfig, factor: str) -> np.ndarray:
    """A permutation without fixed points: pair i meets the conditions of another pair."""
    rng = stream(config.seed, "shuffle", factor)
    order = rng.permutation(n)
    where = np.empty(n, np.int64)
    where[order] = np.roll(order, 1)
    return where
