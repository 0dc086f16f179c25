"""Designs: which pictures to make. One row = one picture = (compound, context, seed).

Every compound meets the same draws (context and noise seed), so contrasts are paired: common random numbers. A draw
depends on (seed, scheme, its number) only; iid and Sobol draws have the prefix property (the first 10 of 100 draws are
those of 10, for the same number of groups).
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt64
from scipy.stats import qmc

from causal.contexts import CONTEXT_COLUMNS, Contexts, Distribution

SCHEMES = ("iid", "stratified", "lhs", "sobol")
DESIGN_COLUMNS = ("compound", "draw", *CONTEXT_COLUMNS, "seed")
MAX_STRATA = 64


class InvalidDesign(ValueError):
    """A design that cannot be drawn: no draws, an unknown scheme, a repeated compound."""


@dataclass(frozen=True)
class DrawPlan:
    """How contexts are drawn; the data of `configs/causal/*.toml`."""

    n: int = 16
    """Number of draws per compound."""
    scheme: str = "sobol"
    """iid, stratified, lhs or sobol."""
    distribution: str = "valid"
    """Name of p*(C), see `causal.contexts.Contexts.distribution`."""
    groups: int | None = None
    """Strata (stratified) or independent randomised replicates (lhs, sobol); None: chosen from n."""
    seeds_per_context: int = 1
    """Noise seeds per context; more than one lets the variance be split (`causal.variance`)."""


PRESETS: dict[str, DrawPlan] = {
    "paper-10": DrawPlan(n=10, scheme="iid", distribution="paper"),  # Algorithm 1, N = 10
    "paper-100": DrawPlan(n=100, scheme="iid", distribution="paper"),  # Algorithm 1, N = 100
    "default": DrawPlan(),
}


def load_plan(name: str | Path) -> DrawPlan:
    """A plan by preset name or from a TOML file; an unknown key is an error.

    Raises:
        InvalidDesign: no such preset or file, or a key that `DrawPlan` does not have.
    """
    if str(name) in PRESETS:
        return PRESETS[str(name)]
    path = Path(name)
    if not path.is_file():
        raise InvalidDesign(f"plan: got {str(name)!r}, expected a TOML file or one of {', '.join(PRESETS)}")
    data = tomllib.loads(path.read_text())
    unknown = sorted(set(data) - {f.name for f in fields(DrawPlan)})
    if unknown:
        raise InvalidDesign(f"{path}: unknown key {unknown[0]!r}, known are {[f.name for f in fields(DrawPlan)]}")
    return DrawPlan(**data)


def draw_contexts(
    contexts: Contexts,
    n: int,
    scheme: str = "iid",
    distribution: str | pd.DataFrame | Distribution = "valid",
    seed: int = 0,
    *,
    observed: pd.DataFrame | None = None,
    groups: int | None = None,
    seeds_per_context: int = 1,
) -> pd.DataFrame:
    """n draws of (context, noise seed) from p*(C), each of weight 1/n.

    * ``iid``: independent (the paper's Algorithm 1).
    * ``stratified``: equal strata along the nested order source, batch, plate; two or more draws in each.
    * ``lhs``, ``sobol``: independent randomised replicates of a Latin hypercube / scrambled Sobol set; the standard
      error comes from the scatter between replicates (Owen 1997; L'Ecuyer 2018).

    Args:
        contexts: the valid contexts.
        n: number of draws, at least 1.
        scheme: one of `SCHEMES`.
        distribution: name of p*(C), a user's table, or a `Distribution` made before.
        seed: determines contexts and noise seeds.
        observed: table for ``distribution="observed"``.
        groups: number of strata or of replicates; None: n // 2 up to 64 strata, 8 replicates or n // 2.
        seeds_per_context: noise seeds for each context; n must be a multiple. With iid contexts the column scheme
            then says ``repeated``: the standard error is that of up to 64 random groups of contexts.

    Returns:
        columns draw, source, batch, plate, plate_format, row, column (and the further conditions), seed (uint64),
        scheme, group.

    Raises:
        InvalidDesign: n < 1, unknown scheme, n not a multiple of seeds_per_context, more groups than half of n.
    """
    if n < 1 or seeds_per_context < 1 or n % seeds_per_context:
        raise InvalidDesign(
            f"n: got {n} draws with {seeds_per_context} seeds per context, expected a positive multiple of it"
        )
    if scheme not in SCHEMES:
        raise InvalidDesign(f"scheme: got {scheme!r}, expected one of {', '.join(SCHEMES)}")
    places = n // seeds_per_context
    if scheme == "stratified" and seeds_per_context > 1:
        raise InvalidDesign("seeds_per_context: got more than 1 with scheme 'stratified', expected iid, lhs or sobol")
    group_count = _group_count(places, scheme, groups)
    target = distribution if isinstance(distribution, Distribution) else contexts.distribution(distribution, observed)
    points = _points(places, target.dimensions, scheme, group_count, seed)
    draws = target.quantile(points)
    repeat = np.repeat(np.arange(places), seeds_per_context)
    draws = draws.iloc[repeat].reset_index(drop=True)
    draws.insert(0, "draw", np.arange(n, dtype=np.int64))
    draws["seed"] = _noise_seeds(n, seed)
    if scheme == "iid" and seeds_per_context > 1:  # draws of one context hang together: random groups of contexts
        scheme, group_count = "repeated", min(places, MAX_STRATA)
    draws["scheme"] = scheme
    draws["group"] = (repeat % group_count).astype(np.int64)
    return draws


def draw_plan(contexts: Contexts, plan: DrawPlan, seed: int) -> pd.DataFrame:
    """`draw_contexts` with the settings of a plan."""
    return draw_contexts(contexts, plan.n, plan.scheme, plan.distribution, seed,
                         groups=plan.groups, seeds_per_context=plan.seeds_per_context)  # fmt: skip


def cross(compounds: Sequence[str], draws: pd.DataFrame) -> pd.DataFrame:
    """Every compound under every draw, draw by draw: the design, len(compounds) x len(draws) rows.

    Raises:
        InvalidDesign: no compound, or one twice.
    """
    if not len(compounds) or len(set(compounds)) != len(compounds):
        raise InvalidDesign(
            f"compounds: got {len(compounds)}, {len(set(compounds))} of them different; expected each once"
        )
    design = draws.iloc[np.repeat(np.arange(len(draws)), len(compounds))].reset_index(drop=True)
    design.insert(0, "compound", np.tile(np.array(list(compounds), dtype=object), len(draws)))
    return design


def design_hash(design: pd.DataFrame) -> str:
    """sha256 of the content of a design: independent of row order, column order and integer width."""
    known = [c for c in DESIGN_COLUMNS if c in design.columns]
    columns = known + sorted(set(design.columns) - set(known))
    order = design.sort_values([c for c in ("draw", "compound", "seed") if c in known], kind="stable")
    digest = hashlib.sha256()
    for name in columns:
        column = order[name]
        digest.update(f"{name}\0".encode())
        if name == "seed":
            digest.update(np.ascontiguousarray(column.to_numpy(dtype="<u8")).tobytes())
        elif pd.api.types.is_integer_dtype(column.dtype):
            digest.update(np.ascontiguousarray(column.to_numpy(dtype="<i8")).tobytes())
        elif pd.api.types.is_float_dtype(column.dtype):
            digest.update(np.ascontiguousarray(column.to_numpy(dtype="<f8")).tobytes())
        else:
            digest.update("\0".join(column.astype(str)).encode())
        digest.update(b"\1")
    return digest.hexdigest()


def _group_count(places: int, scheme: str, groups: int | None) -> int:
    if scheme == "iid":
        return 1
    most = max(places // 2, 1)
    if groups is None:
        return min(most, MAX_STRATA if scheme == "stratified" else 8)
    if not 1 <= groups <= most:
        raise InvalidDesign(f"groups: got {groups} for {places} contexts, expected 1 to {most} (two contexts in each)")
    return groups


def _generator(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))


def _noise_seeds(n: int, seed: int) -> UInt64[np.ndarray, "n"]:
    return _generator(seed, 1).integers(0, 2**64, n, dtype=np.uint64)


def _points(n: int, d: int, scheme: str, groups: int, seed: int) -> Float[np.ndarray, "n d"]:
    """Points of the unit cube; draw i belongs to group i % groups."""
    if scheme == "iid":
        return _generator(seed, 0).random((n, d))
    points = np.empty((n, d))
    if scheme == "stratified":
        points[:] = _generator(seed, 0).random((n, d))
        group = np.arange(n) % groups
        size = np.bincount(group, minlength=groups)
        edge = np.concatenate([[0], np.cumsum(size)]) / n  # a stratum is as wide as its share of the draws
        points[:, 0] = edge[group] + points[:, 0] * (size / n)[group]
        return np.minimum(points, np.nextafter(1, 0))
    for g in range(groups):
        mine = slice(g, n, groups)
        count = len(range(n)[mine])
        rng = _generator(seed, 2, g)
        if scheme == "lhs":
            points[mine] = qmc.LatinHypercube(d, rng=rng).random(count)
        else:
            sobol = qmc.Sobol(d, scramble=True, rng=rng)
            points[mine] = sobol.random_base2(int(np.ceil(np.log2(max(count, 1)))))[:count]
    return np.minimum(points, np.nextafter(1, 0))
