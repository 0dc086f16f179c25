r"""Cheap worlds whose truth is known in closed form: many at once, no pictures, for proofs about estimators.

A world has sources, batches, plates and wells; features are

.. math:: Y(t) = a_{source} + b_{batch} + g_{plate} + h\,edge(well) + t (\tau + \gamma_{source} + \kappa\,edge(well))
          + \lambda u + \sigma \epsilon + \sigma_t \epsilon_t

with u a hidden cause of allocation and outcome (off unless asked for), ε the noise that compound and control share
under one seed and ε_t that which they do not. The second feature is a negative control: same confounders, no effect.
The effect under p*(C) is :math:`\tau + \sum_c p^*(c) (\gamma_{source(c)} + \kappa\,edge(c))`. Everything here is a
simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt64
from scipy import special

from causal.contexts import PLATE_SHAPES, Contexts
from causal.scm import CausalGraph
from causal.structural import StructuralModel

COMPOUND, PLACEBO, CONTROL = "compound", "placebo", "DMSO"
FEATURES = ("target", "negative_control")


@dataclass(frozen=True)
class WorldSettings:
    """Sizes and standard deviations of the parts of a world, in units of the feature."""

    sources: int = 3
    batches: int = 4
    """Per source."""
    plates: int = 2
    """Per batch."""
    source_sd: float = 1.0
    batch_sd: float = 1.0
    plate_sd: float = 0.5
    edge: float = 1.0
    """Effect of a well at the very edge."""
    effect_sd: float = 1.0
    source_interaction_sd: float = 0.3
    edge_interaction: float = 1.0
    noise_sd: float = 1.0
    own_noise_sd: float = 0.5
    hidden: float = 0.0
    """Effect of the hidden cause u; treated wells then have u = 1 with probability 0.5 + 0.4 * hidden_allocation."""
    hidden_allocation: float = 1.0
    hidden_shared: bool = True
    """Whether the negative-control feature and the placebo's allocation share the hidden cause."""


@dataclass(frozen=True, eq=False)
class TabularWorlds:
    """W worlds of one shape; arrays have the world as their first axis and the feature as their last."""

    settings: WorldSettings
    contexts: Contexts
    source: Float[np.ndarray, "w s k"]
    batch: Float[np.ndarray, "w b k"]
    plate: Float[np.ndarray, "w p k"]
    effect: Float[np.ndarray, "w k"]
    source_interaction: Float[np.ndarray, "w s k"]

    @classmethod
    def make(cls, worlds: int, seed: int, settings: WorldSettings | None = None) -> TabularWorlds:
        """Worlds drawn at random; the last source has 1536-well plates."""
        s = settings or WorldSettings()
        rng = np.random.default_rng(seed)
        rows = [
            (f"S{i}", f"S{i}B{j:02d}", f"S{i}B{j:02d}P{p}", 1536 if i == s.sources - 1 and i else 384)
            for i in range(s.sources) for j in range(s.batches) for p in range(s.plates)
        ]  # fmt: skip
        contexts = Contexts(pd.DataFrame(rows, columns=["source", "batch", "plate", "plate_format"]))
        k = len(FEATURES)
        active = np.array([1.0, 0.0])
        return cls(
            s,
            contexts,
            rng.normal(0, s.source_sd, (worlds, s.sources, k)),
            rng.normal(0, s.batch_sd, (worlds, s.sources * s.batches, k)),
            rng.normal(0, s.plate_sd, (worlds, len(rows), k)),
            rng.normal(0, s.effect_sd, (worlds, 1)) * active,
            rng.normal(0, s.source_interaction_sd, (worlds, s.sources, 1)) * active,
        )

    def __len__(self) -> int:
        return len(self.effect)

    def outcome(
        self,
        world: Int[np.ndarray, "n"],
        treated: Bool[np.ndarray, "n"],
        rows: pd.DataFrame,
        hidden: Float[np.ndarray, "n"] | None = None,
    ) -> Float[np.ndarray, "n k"]:
        """Potential outcomes of rows (contexts and seeds) in the given worlds; a function of each row alone.

        ``hidden`` is u of each row; None: Bernoulli(1/2) from the row's seed, as under do().
        """
        s = self.settings
        plate = plate_index(self.contexts, rows)
        batch, source = plate // s.plates, plate // (s.plates * s.batches)
        edge = edge_of(rows)[:, None]
        seed = rows["seed"].to_numpy(np.uint64)
        k = len(FEATURES)
        active = np.array([1.0, 0.0])
        base = self.source[world, source] + self.batch[world, batch] + self.plate[world, plate] + s.edge * edge
        tau = self.effect[world] + self.source_interaction[world, source] + s.edge_interaction * edge * active
        u = (uniform(seed, 90) < 0.5).astype(float) if hidden is None else hidden
        reach = np.array([1.0, float(s.hidden_shared)])
        shared = np.stack([normal(seed, i) for i in range(k)], 1)
        own = np.stack([np.where(treated, normal(seed, 20 + i), normal(seed, 40 + i)) for i in range(k)], 1)
        return (
            base + treated[:, None] * tau + s.hidden * u[:, None] * reach + s.noise_sd * shared + s.own_noise_sd * own
        )

    def truth(self, distribution: str = "valid") -> Float[np.ndarray, "w k"]:
        """The effect under do(compound) in every world, by formula: [w, k]."""
        s = self.settings
        target = self.contexts.distribution(distribution).enumerate()
        weight = target["weight"].to_numpy()
        source = plate_index(self.contexts, target) // (s.plates * s.batches)
        share = np.bincount(source, weight, s.sources)
        mean_edge = float(weight @ edge_of(target))
        active = np.array([1.0, 0.0])
        return (
            self.effect
            + np.einsum("s,wsk->wk", share, self.source_interaction)
            + s.edge_interaction * mean_edge * active
        )

    def screens(
        self, allocation: float, seed: int, *, n_treated: int = 48, controls_per_plate: int = 8
    ) -> tuple[Float[np.ndarray, "n k"], pd.DataFrame]:
        """Tables of wells as screens would give them, one of equal length per world: a compound, a placebo, controls.

        Controls lie on every plate in random wells. Of the compound's and the placebo's wells a share ``allocation``
        lies in two batches and the outer columns (JUMP-like), the rest anywhere under p*: 0 is a randomised screen.

        Returns:
            values [n, k] and their table: world, compound, context columns, edge, seed; worlds one after the other.
        """
        rng = np.random.default_rng(seed)
        s = self.settings
        n_plates, n_batches = len(self.contexts.plates), s.sources * s.batches
        n_controls = n_plates * controls_per_plate
        size = n_controls + 2 * n_treated
        u = rng.random((len(self), size, 3))
        u[:, :n_controls, 0] = (np.repeat(np.arange(n_plates), controls_per_plate) + 0.5) / n_plates
        for arm in range(2):
            t = u[:, n_controls + arm * n_treated : n_controls + (arm + 1) * n_treated]
            biased = np.arange(n_treated) < round(allocation * n_treated)
            favoured = rng.random((len(self), n_batches)).argsort(1)[:, :2]
            batch = np.take_along_axis(favoured, rng.integers(0, 2, (len(self), n_treated)), 1)
            t[..., 0] = np.where(biased, (batch + t[..., 0]) / n_batches, t[..., 0])
            outer = np.where(t[..., 2] < 0.5, t[..., 2] / 8, 1 - (1 - t[..., 2]) / 8)
            t[..., 2] = np.where(biased, outer, t[..., 2])
        rows = self.contexts.distribution("valid").quantile(np.minimum(u.reshape(-1, 3), np.nextafter(1, 0)))
        arms = np.repeat(np.array([CONTROL, COMPOUND, PLACEBO], object), [n_controls, n_treated, n_treated])
        rows.insert(0, "compound", np.tile(arms, len(self)))
        rows.insert(0, "world", np.repeat(np.arange(len(self)), size))
        rows["edge"] = edge_of(rows)
        rows["seed"] = rng.integers(0, 2**64, len(rows), dtype=np.uint64)
        is_control = rows["compound"].isin([CONTROL] if s.hidden_shared else [CONTROL, PLACEBO]).to_numpy()
        p_hidden = np.where(is_control, 0.5 - 0.4 * s.hidden_allocation, 0.5 + 0.4 * s.hidden_allocation)
        hidden = (rng.random(len(rows)) < p_hidden).astype(float)
        treated = (rows["compound"] == COMPOUND).to_numpy()
        return self.outcome(rows["world"].to_numpy(), treated, rows, hidden), rows


def strata_table() -> tuple[Float[np.ndarray, "n 1"], pd.DataFrame]:
    """200 people in two strata whose g-formula answers are 0.575 (treated) and 0.415 (untreated) by hand.

    Stratum l0 (125): 28 of 50 treated and 30 of 75 untreated have the outcome; l1 (75): 15 of 25 and 22 of 50. So
    125/200 · 28/50 + 75/200 · 15/25 = 0.575 and 125/200 · 30/75 + 75/200 · 22/50 = 0.415 (the counts of zEpid's test).
    """
    counts = [("l0", "DMSO", 30, 75), ("l0", "A", 28, 50), ("l1", "DMSO", 22, 50), ("l1", "A", 15, 25)]
    table = pd.concat(
        [pd.DataFrame({"stratum": [s] * n, "compound": t, "y": [1.0] * y + [0.0] * (n - y)}) for s, t, y, n in counts],
        ignore_index=True,
    )
    return table[["y"]].to_numpy(), table[["stratum", "compound"]]


def linear_gaussian(c_to_t: float, c_to_y: float, t_to_y: float) -> StructuralModel:
    """c → t, c → y, t → y with unit Gaussian noise: E[y | do(t)] = t_to_y t, while the regression of y on t alone has
    the slope t_to_y + c_to_y c_to_t / (c_to_t² + 1)."""
    return StructuralModel(
        CausalGraph((("c", "t"), ("c", "y"), ("t", "y")), "t", "y"),
        {
            "c": lambda parents, noise, n: noise.normal(size=n),
            "t": lambda parents, noise, n: c_to_t * parents["c"] + noise.normal(size=n),
            "y": lambda parents, noise, n: t_to_y * parents["t"] + c_to_y * parents["c"] + noise.normal(size=n),
        },
    )


def plate_index(contexts: Contexts, rows: pd.DataFrame) -> Int[np.ndarray, "n"]:
    """Position of each row's plate in the (sorted) table of plates."""
    return np.searchsorted(contexts.plates["plate"].to_numpy(str), rows["plate"].to_numpy(str)).astype(np.int64)


def edge_of(rows: pd.DataFrame) -> Float[np.ndarray, "n"]:
    """How near a well is to the edge of its plate: exp(-d/2), d wells to the nearest edge; 1 at the edge."""
    formats = rows["plate_format"].to_numpy()
    height = np.select([formats == f for f in PLATE_SHAPES], [s[0] for s in PLATE_SHAPES.values()])
    width = np.select([formats == f for f in PLATE_SHAPES], [s[1] for s in PLATE_SHAPES.values()])
    row, column = rows["row"].to_numpy(), rows["column"].to_numpy()
    distance = np.minimum(np.minimum(row, height - 1 - row), np.minimum(column, width - 1 - column))
    return np.exp(-distance / 2.0)


def uniform(seed: UInt64[np.ndarray, "n"], position: int) -> Float[np.ndarray, "n"]:
    """Counter-based uniform numbers in (0, 1): a function of (seed, position) only (SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = seed + np.uint64(0x9E3779B97F4A7C15) * np.uint64(position + 1)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray(((z >> np.uint64(11)).astype(float) + 0.5) * 2.0**-53)


def normal(seed: UInt64[np.ndarray, "n"], position: int) -> Float[np.ndarray, "n"]:
    """Counter-based standard normal numbers, by inversion of `uniform`."""
    return np.asarray(special.ndtri(uniform(seed, position)))
