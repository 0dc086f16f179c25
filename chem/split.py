"""Seen and unseen compounds: a seeded rule, applied before any training (docs/decisions/0001-unseen-compounds.md).

Two kinds of unseen compound, because they ask different questions. `unseen_random`: drawn at random within its class,
so analogues of it may have been seen. `unseen_scaffold`: every library compound with its Bemis-Murcko scaffold is held
out, so no seen compound shares its ring system. Compounds are told apart by the first block of the InChIKey.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

SEEN, UNSEEN_RANDOM, UNSEEN_SCAFFOLD = "seen", "unseen_random", "unseen_scaffold"
SPLITS = (SEEN, UNSEEN_RANDOM, UNSEEN_SCAFFOLD)
SPLIT_SEED = 20261120


class SplitError(ValueError):
    """A split that cannot be made as asked, or that leaks."""


def scaffold(smiles: str) -> str:
    """Bemis-Murcko scaffold (Bemis and Murcko 1996), canonical SMILES without stereo; '' for an acyclic molecule."""
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise SplitError(f"not a molecule: {smiles!r}; standardise it first.")
    return str(MurckoScaffold.MurckoScaffoldSmiles(mol=mol, includeChirality=False))


def choose_unseen(
    inchikeys: Sequence[str],
    smiles: Sequence[str],
    labels: Sequence[str],
    *,
    random_per_class: int = 2,
    scaffold_per_class: int = 2,
    keep_seen: Collection[str] = (),
    seed: int = SPLIT_SEED,
) -> list[str]:
    """Give each compound its split, in the order of the input; the result does not depend on that order.

    Per class: first `scaffold_per_class` compounds by whole scaffold groups that lie inside the class, then
    `random_per_class` of those that are left. `keep_seen` (InChIKeys) are never held out.
    Raises `SplitError` on duplicate compounds (by first block) or when a class is too small.
    """
    blocks = [key[:14] for key in inchikeys]
    if len(set(blocks)) != len(blocks):
        raise SplitError("two rows are the same compound (first block of the InChIKey); remove the duplicates first.")
    fixed = {key[:14] for key in keep_seen}
    groups: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(smiles):
        groups[scaffold(text)].append(row)
    groups.pop("", None)

    split = dict.fromkeys(blocks, SEEN)
    for label in sorted(set(labels)):
        rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
        members = sorted((row for row in range(len(blocks)) if labels[row] == label), key=lambda row: blocks[row])
        own = sorted(
            (sorted(blocks[row] for row in rows) for rows in groups.values() if set(rows) <= set(members)),
        )
        taken = 0
        for choice in rng.permutation(len(own)):
            group = own[int(choice)]
            if taken + len(group) <= scaffold_per_class and not fixed.intersection(group):
                split.update(dict.fromkeys(group, UNSEEN_SCAFFOLD))
                taken += len(group)
        free = [blocks[row] for row in members if split[blocks[row]] == SEEN and blocks[row] not in fixed]
        if taken < scaffold_per_class or len(free) <= random_per_class:
            raise SplitError(
                f"class {label!r} ({len(members)} compounds) is too small to hold out {scaffold_per_class} by scaffold "
                f"(found {taken}) and {random_per_class} at random; give it more compounds."
            )
        for choice in rng.choice(len(free), size=random_per_class, replace=False):
            split[free[int(choice)]] = UNSEEN_RANDOM
    return [split[block] for block in blocks]


def check_split(inchikeys: Sequence[str], smiles: Sequence[str], splits: Sequence[str]) -> None:
    """Raise `SplitError` where a first block occurs in two splits or a held-out scaffold was seen."""
    where: dict[str, set[str]] = defaultdict(set)
    for key, part in zip(inchikeys, splits, strict=True):
        if part not in SPLITS:
            raise SplitError(f"unknown split {part!r}; known are {', '.join(SPLITS)}.")
        where[key[:14]].add(part)
    leaks = sorted(block for block, parts in where.items() if len(parts) > 1)
    if leaks:
        raise SplitError(f"{len(leaks)} compound(s) lie in two splits, first {leaks[0]}.")
    seen = {scaffold(text) for text, part in zip(smiles, splits, strict=True) if part == SEEN}
    for key, text, part in zip(inchikeys, smiles, splits, strict=True):
        if part == UNSEEN_SCAFFOLD and scaffold(text) in seen:
            raise SplitError(f"{key} is held out by scaffold, but a seen compound has the same scaffold.")


def structure_groups(inchikeys: Sequence[str], smiles: Sequence[str]) -> list[int]:
    """Numbers of groups that must stay together: compounds of one first block, and compounds of one ring scaffold.

    Both at once, so a chain of them is one group. Acyclic compounds have no scaffold and are joined by block only.
    Raises `SplitError` for a text that is no molecule.
    """
    parent = list(range(len(inchikeys)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[tuple[str, str], int] = {}
    for row, (inchikey, text) in enumerate(zip(inchikeys, smiles, strict=True)):
        frame = scaffold(text)
        for name in (("block", inchikey[:14]), *([("scaffold", frame)] if frame else [])):
            other = root(first.setdefault(name, row))
            parent[max(root(row), other)] = min(root(row), other)
    return [root(row) for row in range(len(inchikeys))]


def split_by_group(groups: Sequence[int], shares: Mapping[str, float], *, seed: int = SPLIT_SEED) -> list[str]:
    """A part for each row, whole groups at a time, in a seeded order of groups.

    `shares` name the parts and add up to 1. Each group goes to the part that lacks most rows then, so shares are met
    as well as the largest groups allow. Raises `SplitError` on other shares.
    """
    if not shares or abs(sum(shares.values()) - 1.0) > 1e-6 or min(shares.values()) <= 0:
        raise SplitError(f"shares must be above 0 and add up to 1; got {dict(shares)}.")
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    names = sorted(members)
    room = {part: share * len(groups) for part, share in shares.items()}
    chosen = [""] * len(groups)
    for place in np.random.default_rng(seed).permutation(len(names)):
        rows = members[names[int(place)]]
        part = max(room, key=lambda one: (room[one], one))
        room[part] -= len(rows)
        for row in rows:
            chosen[row] = part
    return chosen
