"""Structural causal models as programs: sample, intervene with do(), and replay the same noise (counterfactual twins).

Each variable is a function of its parents and of noise of its own; the noise depends on (seed, name of the variable)
only, so an intervention leaves every other variable's noise as it was. After numpyro's ``do`` handler and Pearl's
abduction, action, prediction (2009, theorem 7.1.7), abduction being exact because the noise is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from causal.scm import CausalGraph, InvalidGraph

Mechanism = Callable[[Mapping[str, np.ndarray], np.random.Generator, int], np.ndarray]
"""(values of the parents, noise, number of units) to the values of the variable, shape [n]."""


@dataclass(frozen=True)
class StructuralModel:
    """A graph and one mechanism for each of its nodes."""

    graph: CausalGraph
    mechanisms: Mapping[str, Mechanism]

    def __post_init__(self) -> None:
        lacking = sorted(set(self.graph.nodes) ^ set(self.mechanisms))
        if lacking:
            raise InvalidGraph(f"mechanisms: {lacking} differ from the nodes of the graph, expected one for each node")

    def do(self, **values: float | str) -> StructuralModel:
        """The intervened model: these variables are set, whatever their causes."""
        unknown = sorted(set(values) - set(self.mechanisms))
        if unknown:
            raise InvalidGraph(f"do: unknown variable {unknown[0]!r}, expected one of {sorted(self.mechanisms)}")
        return replace(self, mechanisms={**self.mechanisms, **{k: _constant(v) for k, v in values.items()}})

    def sample(self, n: int, seed: int) -> pd.DataFrame:
        """n units, one column per variable; unit i of do(...) is the twin of unit i under the same seed."""
        done: dict[str, np.ndarray] = {}
        while len(done) < len(self.mechanisms):
            for node in self.graph.nodes:
                parents = self.graph.parents(node)
                if node not in done and all(p in done for p in parents):
                    noise = np.random.default_rng([seed, _stream(node)])
                    done[node] = np.asarray(self.mechanisms[node]({p: done[p] for p in parents}, noise, n))
        return pd.DataFrame({node: done[node] for node in self.graph.nodes})


def _constant(value: float | str) -> Mechanism:
    return lambda parents, noise, n: np.full(n, value)


def _stream(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
