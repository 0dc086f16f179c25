"""The causal graph: its words, do(), and the adjustment set that follows from it.

The paper's graph (its figure 2): source → batch → plate and well; all four → compound, phenotype and picture; compound
→ phenotype → picture. The set to adjust for is derived by the back-door criterion (Pearl 2009, definition 3.3.1), not
stated; a confounder that a user adds in a TOML file changes it, the drawing and the contexts that are drawn.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from causal.contexts import Condition

Edge = tuple[str, str]


class InvalidGraph(ValueError):
    """A cycle, an unknown node, or a config key that means nothing."""


class NotIdentified(ValueError):
    """No set of observed variables closes all back doors."""


@dataclass(frozen=True)
class CausalGraph:
    """A directed acyclic graph with a treatment, an outcome and unobserved nodes."""

    edges: tuple[Edge, ...]
    treatment: str = "compound"
    outcome: str = "picture"
    unobserved: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for name in (self.treatment, self.outcome, *self.unobserved):
            if name not in self.nodes:
                raise InvalidGraph(f"node {name!r} has no edge, expected one of {', '.join(self.nodes)}")
        for node in self.nodes:
            if node in self.descendants([node]):
                raise InvalidGraph(f"edges: {node!r} is its own cause, expected a graph without cycles")

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes in the order in which the edges name them."""
        return tuple(dict.fromkeys(n for edge in self.edges for n in edge))

    def parents(self, node: str) -> tuple[str, ...]:
        """Direct causes of a node."""
        return tuple(a for a, b in self.edges if b == node)

    def children(self, node: str) -> tuple[str, ...]:
        """Direct effects of a node."""
        return tuple(b for a, b in self.edges if a == node)

    def descendants(self, nodes: Iterable[str]) -> frozenset[str]:
        """All effects of these nodes, direct or not, themselves left out unless in a cycle."""
        found: set[str] = set()
        queue = list(nodes)
        while queue:
            for child in self.children(queue.pop()):
                if child not in found:
                    found.add(child)
                    queue.append(child)
        return frozenset(found)

    def ancestors(self, nodes: Iterable[str]) -> frozenset[str]:
        """All causes of these nodes, direct or not."""
        reverse = CausalGraph.__new__(CausalGraph)
        object.__setattr__(reverse, "edges", tuple((b, a) for a, b in self.edges))
        return reverse.descendants(nodes)

    def do(self, *names: str) -> CausalGraph:
        """The graph after an intervention: no arrow into these nodes is left."""
        unknown = [n for n in names if n not in self.nodes]
        if unknown:
            raise InvalidGraph(f"do: unknown node {unknown[0]!r}, expected one of {', '.join(self.nodes)}")
        kept = tuple(e for e in self.edges if e[1] not in names)
        return _with_edges(self, kept)

    def separated(self, a: str, b: str, given: Iterable[str]) -> bool:
        """d-separation of two nodes, by the moral graph of their ancestors (Lauritzen et al. 1990)."""
        z = set(given)
        keep = self.ancestors([a, b, *z]) | {a, b} | z
        links = {frozenset(e) for e in self.edges if set(e) <= keep}
        for node in keep:
            links |= {frozenset(pair) for pair in combinations([p for p in self.parents(node) if p in keep], 2)}
        reached, queue = {a}, [a]
        while queue:
            here = queue.pop()
            for link in links:
                if here in link:
                    (there,) = link - {here}
                    if there not in reached and there not in z:
                        reached.add(there)
                        queue.append(there)
        return b not in reached

    def open_back_doors(self, given: Iterable[str] = ()) -> tuple[tuple[str, ...], ...]:
        """Paths from treatment to outcome that start with an arrow into the treatment and are open given these."""
        z = set(given)
        into = [p for p in _simple_paths(self, self.treatment, self.outcome) if (p[1], p[0]) in self.edges]
        return tuple(p for p in into if _is_open(self, p, z))

    def adjustment_sets(self) -> tuple[frozenset[str], ...]:
        """All minimal sets of observed variables that satisfy the back-door criterion.

        Raises:
            NotIdentified: there is none; the message names a path that stays open.
        """
        forbidden = self.descendants([self.treatment]) | self.unobserved | {self.treatment, self.outcome}
        candidates = [n for n in self.nodes if n not in forbidden]
        back = _with_edges(self, tuple(e for e in self.edges if e[0] != self.treatment))
        found: list[frozenset[str]] = []
        for size in range(len(candidates) + 1):
            for chosen in map(frozenset, combinations(candidates, size)):
                if not any(s <= chosen for s in found) and back.separated(self.treatment, self.outcome, chosen):
                    found.append(chosen)
        if not found:
            path = self.open_back_doors(candidates)[0]
            raise NotIdentified(
                f"no observed variable closes {draw_path(self, path)}: observe one on it, or find a negative control "
                "that shares it"
            )
        return tuple(found)


@dataclass(frozen=True)
class Adjustment:
    """What adjusting for a set does: which back doors stay open, what must then be assumed, what it must not hold."""

    adjusted: frozenset[str]
    valid: bool
    open_paths: tuple[str, ...]
    assumptions: tuple[str, ...]
    after_treatment: frozenset[str]

    def __str__(self) -> str:
        names = "{" + ", ".join(sorted(self.adjusted)) + "}"
        lines = [f"adjusting for {names} {'closes every back door' if self.valid else 'is not enough'}"]
        lines += [f"open: {path}" for path in self.open_paths]
        lines += [f"then assume: {a}" for a in self.assumptions]
        if self.after_treatment:
            after = ", ".join(sorted(self.after_treatment))
            lines.append(f"{after} lies after the treatment: adjusting for it asks for a direct effect, not the effect")
        return "\n".join(lines)


def check_adjustment(graph: CausalGraph, adjusted: Iterable[str]) -> Adjustment:
    """The back-door criterion for one set, in words a reader can dispute."""
    z = frozenset(adjusted)
    unknown = sorted(z - set(graph.nodes))
    if unknown:
        raise InvalidGraph(f"adjusted: unknown node {unknown[0]!r}, expected one of {', '.join(graph.nodes)}")
    paths = graph.open_back_doors(z)
    after = z & graph.descendants([graph.treatment])
    omitted = [n for n in graph.nodes if any(n in p[1:-1] for p in paths) and n not in z]
    assumptions = []
    rest = _with_edges(graph, tuple(e for e in graph.edges if graph.treatment not in e))
    for node in omitted:
        if node in graph.descendants([graph.treatment]):
            continue
        to_treatment = [c for c in graph.children(node) if c == graph.treatment or _leads(graph, c, graph.treatment, z)]
        to_outcome = [c for c in graph.children(node) if c == graph.outcome or _leads(rest, c, graph.outcome, z)]
        to_outcome = [c for c in to_outcome if c not in to_treatment]
        given = f" given {', '.join(sorted(z))}" if z else ""
        assumptions.append(
            f"{node} does not influence {' or '.join(to_treatment)}{given}; or it does not influence "
            f"{' or '.join(to_outcome)}{given}"
        )
    return Adjustment(z, not paths and not after, tuple(draw_path(graph, p) for p in paths), tuple(assumptions), after)


CONFOUNDERS = ("source", "batch", "plate", "well")
PAPER_GRAPH = CausalGraph(
    edges=(
        ("source", "batch"),
        ("batch", "plate"),
        ("batch", "well"),
        *((c, effect) for c in CONFOUNDERS for effect in ("compound", "phenotype", "picture")),
        ("compound", "phenotype"),
        ("phenotype", "picture"),
    ),
    unobserved=frozenset({"phenotype"}),
)


def load_graph(path: Path) -> tuple[CausalGraph, tuple[Condition, ...]]:
    """The paper's graph with the confounders of a TOML file, and the conditions to draw for those observed.

    Each ``[[confounder]]``: name; values and weights of p* (observed ones); parents; affects (default: compound,
    phenotype, picture); observed (default true).

    Raises:
        InvalidGraph: an unknown key, an observed confounder without values, a cycle.
    """
    data = tomllib.loads(path.read_text())
    unknown = sorted(set(data) - {"confounder"})
    if unknown:
        raise InvalidGraph(f"{path}: unknown key {unknown[0]!r}, expected [[confounder]] tables only")
    edges, hidden = list(PAPER_GRAPH.edges), set(PAPER_GRAPH.unobserved)
    conditions = []
    for entry in data.get("confounder", []):
        name, observed = _read_confounder(path, entry)
        edges += [(parent, name) for parent in entry.get("parents", [])]
        edges += [(name, effect) for effect in entry.get("affects", ["compound", "phenotype", "picture"])]
        if observed:
            conditions.append(Condition(name, tuple(entry["values"]), tuple(entry.get("weights", ()))))
        else:
            hidden.add(name)
    return CausalGraph(tuple(edges), unobserved=frozenset(hidden)), tuple(conditions)


def to_mermaid(graph: CausalGraph) -> str:
    """The graph for Markdown; unobserved nodes are round and dashed."""
    shape = {n: f"(({n})):::hidden" if n in graph.unobserved else f"[{n}]" for n in graph.nodes}
    lines = ["graph LR", *(f"  {n}{shape[n]}" for n in graph.nodes)]
    lines += [f"  {a} --> {b}" for a, b in graph.edges]
    return "\n".join([*lines, "  classDef hidden stroke-dasharray: 4 4"]) + "\n"


def to_graphviz(graph: CausalGraph) -> str:
    """The graph in the DOT language; unobserved nodes are dashed."""
    lines = ["digraph scm {", "  rankdir=LR;"]
    for node in graph.nodes:
        style = "dashed" if node in graph.unobserved else "solid"
        lines.append(f'  "{node}" [shape=ellipse, style={style}];')
    lines += [f'  "{a}" -> "{b}";' for a, b in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def draw_path(graph: CausalGraph, path: tuple[str, ...]) -> str:
    """A path with its arrows: compound ← plate → picture."""
    text = path[0]
    for a, b in pairwise(path):
        text += f" {'→' if (a, b) in graph.edges else '←'} {b}"
    return text


def _with_edges(graph: CausalGraph, edges: tuple[Edge, ...]) -> CausalGraph:
    """The same graph with other edges; nodes may be left without any."""
    new = CausalGraph.__new__(CausalGraph)
    for name, value in (
        ("edges", edges),
        ("treatment", graph.treatment),
        ("outcome", graph.outcome),
        ("unobserved", graph.unobserved),
    ):
        object.__setattr__(new, name, value)
    return new


def _simple_paths(graph: CausalGraph, start: str, end: str) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = []
    queue: list[tuple[str, ...]] = [(start,)]
    while queue:
        path = queue.pop()
        for step in (*graph.parents(path[-1]), *graph.children(path[-1])):
            if step == end:
                paths.append((*path, step))
            elif step not in path:
                queue.append((*path, step))
    return sorted(set(paths), key=lambda p: (len(p), p))


def _is_open(graph: CausalGraph, path: tuple[str, ...], z: set[str]) -> bool:
    for before, node, after in zip(path, path[1:], path[2:], strict=False):
        collider = (before, node) in graph.edges and (after, node) in graph.edges
        if collider and not ({node} | graph.descendants([node])) & z:
            return False
        if not collider and node in z:
            return False
    return True


def _leads(graph: CausalGraph, start: str, end: str, blocked: frozenset[str]) -> bool:
    """Whether a directed path that avoids ``blocked`` goes from start to end."""
    if start in blocked:
        return False
    free = _with_edges(graph, tuple(e for e in graph.edges if not set(e) & blocked))
    return end in free.descendants([start])


def _read_confounder(path: Path, entry: dict[str, Any]) -> tuple[str, bool]:
    unknown = sorted(set(entry) - {"name", "values", "weights", "parents", "affects", "observed"})
    if unknown or "name" not in entry:
        raise InvalidGraph(
            f"{path}: [[confounder]] with keys {sorted(entry)}, unknown {unknown}, expected a name and known keys"
        )
    observed = bool(entry.get("observed", True))
    if observed and "values" not in entry:
        raise InvalidGraph(f"{path}: confounder {entry['name']!r} has no values, expected those to draw from")
    return str(entry["name"]), observed
