"""What each simulated compound does to a cell: a hidden class direction plus a smooth function of its structure.

Structure comes in as numbers (any fingerprint counts): this room knows no chemistry. All of it is invented; only the
names, structures and mechanism labels of the compounds are real.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.painter import STATE

DMSO = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"


class UnknownCompound(ValueError):
    """A compound without a row in the simulated library."""


@dataclass(frozen=True)
class PhenotypeConfig:
    """Sizes are in units of one visible step of the cell state (see `causal.painter.STATE`)."""

    seed: int = 20261120
    class_norm: float = 4.2  # length of a class direction
    class_axes: int = 6  # axes a class moves
    own_norm: float = 1.4  # length scale of the structure's own part
    second_share: float = 0.7  # weight of a second target
    weak_classes: tuple[str, ...] = ()  # classes that do little to human cells
    weak_scale: float = 0.25
    cliff_share: float = 0.06  # share of compounds behind an activity cliff
    cliff_scale: float = 0.2
    max_cosine: float = 0.55  # between two class directions


@dataclass(frozen=True)
class Compounds:
    """Hidden truth of the library: row i belongs to `ids[i]`.

    effect: [m, 16] state steps of a responding cell at 10 µM and 48 h; responders: [m] share of cells that respond;
    log10_ec50: [m] in µM; cliff: [m] whether an activity cliff silenced the compound.
    """

    ids: tuple[str, ...]
    effect: np.ndarray
    responders: np.ndarray
    log10_ec50: np.ndarray
    cliff: np.ndarray

    def rows(self, compounds: Sequence[str]) -> np.ndarray:
        """Row numbers of `compounds`; DMSO is -1; anything else unknown is refused."""
        index = {c: i for i, c in enumerate(self.ids)}
        index[DMSO] = -1
        unknown = sorted({c for c in compounds if c not in index})
        if unknown:
            raise UnknownCompound(
                f"compound: {unknown[0]!r} (and {len(unknown) - 1} more) is not in the simulated library of "
                f"{len(self.ids)} compounds; use an InChIKey from configs/library, or DMSO ({DMSO})"
            )
        return np.array([index[c] for c in compounds], dtype=np.int64)


def stream(*keys: object) -> np.random.Generator:
    """A generator that depends on the names given and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def class_directions(classes: Sequence[str], config: PhenotypeConfig) -> dict[str, np.ndarray]:
    """One sparse direction [16] a class, of length `class_norm`, no two with a cosine above `max_cosine`."""
    found: dict[str, np.ndarray] = {}
    for name in sorted(classes):
        rng = stream(config.seed, "class", name)
        for _ in range(10_000):
            d = np.zeros(len(STATE))
            axes = rng.choice(len(STATE), config.class_axes, replace=False)
            d[axes] = rng.choice([-1.0, 1.0], config.class_axes) * rng.uniform(0.6, 1.4, config.class_axes)
            d[0] = -abs(d[0])  # compounds cost cells, they do not add any
            d /= np.linalg.norm(d)
            if all(abs(d @ e) / np.linalg.norm(e) <= config.max_cosine for e in found.values()):
                found[name] = d * config.class_norm
                break
        else:
            raise ValueError(f"max_cosine: {config.max_cosine} leaves no room for {len(classes)} classes; raise it")
    return found


def compound_effects(
    library: pd.DataFrame, structure: Float[np.ndarray, "m p"], config: PhenotypeConfig | None = None
) -> Compounds:
    """Hidden truth for every compound.

    `library` has columns compound (InChIKey), moa, second_moa ("" if none); `structure` holds non-negative counts,
    row by row. Raises ValueError on a mismatch of lengths or a repeated compound.
    """
    config = config or PhenotypeConfig()
    if len(library) != len(structure):
        raise ValueError(f"structure: {len(structure)} rows for {len(library)} compounds; give one row a compound")
    if library["compound"].duplicated().any():
        twice = library.loc[library["compound"].duplicated(), "compound"].iloc[0]
        raise ValueError(f"library: compound {twice} occurs twice; give each compound once")
    directions = class_directions(sorted(set(library["moa"]) | set(library["second_moa"]) - {""}), config)
    counts = np.log1p(np.asarray(structure, dtype=np.float64))
    length = np.linalg.norm(counts, axis=1, keepdims=True)
    unit = counts / np.maximum(length, 1e-12)

    def smooth(name: str, width: int) -> np.ndarray:
        """A random linear read-out of the normalised structure, of unit variance over typical molecules, squashed."""
        weights = stream(config.seed, "structure", name).standard_normal((unit.shape[1], width))
        return np.asarray(np.tanh(unit @ weights))

    own = smooth("own", len(STATE)) * config.own_norm / np.sqrt(len(STATE)) * 1.6
    own[:, 0] = -np.abs(own[:, 0])
    potency = np.exp(0.35 * smooth("potency", 1)[:, 0])
    cliff_score = smooth("cliff", 1)[:, 0] + 0.6 * np.sign(np.sin(37.0 * smooth("cliff-fine", 1)[:, 0]))
    cliff = cliff_score > np.quantile(cliff_score, 1.0 - config.cliff_share)
    scale = np.where(library["moa"].isin(config.weak_classes), config.weak_scale, 1.0)
    effect = np.stack([directions[m] for m in library["moa"]])
    for i, second in enumerate(library["second_moa"]):
        if second:
            both = effect[i] + config.second_share * directions[second]
            effect[i] = both * config.class_norm / np.linalg.norm(both)
    effect = effect * (scale * potency)[:, None] + own
    effect *= np.where(cliff, config.cliff_scale, 1.0)[:, None]
    responders = 0.82 + 0.14 * smooth("responders", 1)[:, 0]
    log10_ec50 = 0.45 * smooth("ec50", 1)[:, 0]
    return Compounds(tuple(library["compound"]), effect, responders, log10_ec50, cliff)
