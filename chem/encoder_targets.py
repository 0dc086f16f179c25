"""What the small encoder's vectors should say: principal components of Morgan counts, and near molecules as pairs.

Of the L2-normalised log(1 + count) Morgan vectors, the leading principal components are taken, each divided by the
square root of its standard deviation: half way between keeping the variances, where a few components say everything,
and whitening, where noise speaks as loud. Neighbours are by cosine in that space. No label enters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from rdkit import rdBase
from rdkit.Chem import MolFromSmiles

from chem.fingerprint import morgan_counts
from chem.vector import EncoderError

BLOCK = 1000  # rows worked on at a time, for the sake of memory


class Targets(NamedTuple):
    """Targets of a table of m readable molecules (`rows` are their places in it), and a near ones for each anchor."""

    rows: Int[np.ndarray, " m"]
    vectors: Float[np.ndarray, "m d"]
    anchors: Int[np.ndarray, " a"]  # places in `rows`
    near: Int[np.ndarray, "a k"]  # places in `rows`, nearest first, the anchor itself excluded


def targets(smiles: Sequence[str], size: int, *, sample: int, anchors: int, neighbours: int, seed: int) -> Targets:
    """Targets of `size` dimensions with standard deviation 1 over all values; a function of the arguments.

    Components come from a seeded `sample` of the readable molecules. Raises EncoderError when fewer than `size` + 2
    molecules can be read, or no more than `neighbours`.
    """
    with rdBase.BlockLogs():
        rows = np.array([i for i, text in enumerate(smiles) if MolFromSmiles(text) is not None], np.int64)
    if len(rows) < max(size, neighbours) + 2:
        raise EncoderError(
            f"{len(rows)} readable molecules are too few for {size} components and {neighbours} neighbours; "
            f"give at least {max(size, neighbours) + 2}, or lower d_model or neighbours."
        )
    rng = np.random.default_rng([seed, 3])
    drawn = rng.choice(len(rows), size=min(sample, len(rows)), replace=False)
    shares = _log_shares([smiles[i] for i in rows[drawn]])
    middle = shares.mean(axis=0)
    _, spread, axes = np.linalg.svd(shares - middle, full_matrices=False)
    deviation = np.maximum(spread[:size] / np.sqrt(len(shares)), 1e-6)
    turn = (axes[:size] / np.sqrt(deviation)[:, None]).T.astype(np.float32)
    vectors = np.concatenate(
        [
            (_log_shares([smiles[i] for i in rows[start : start + BLOCK]]) - middle) @ turn
            for start in range(0, len(rows), BLOCK)
        ]
    )
    vectors /= vectors.std()
    chosen = rng.choice(len(rows), size=min(anchors, len(rows)), replace=False)
    return Targets(rows, vectors.astype(np.float32), chosen, _near(vectors, chosen, neighbours))


def kept_targets(
    file: Path, smiles: Sequence[str], size: int, *, sample: int, anchors: int, neighbours: int, seed: int
) -> Targets:
    """`targets`, kept in `file` (npz, written whole or not at all); a file of another table or size is refused."""
    asked = np.array([len(smiles), size, sample, anchors, neighbours, seed])
    if not file.is_file():
        made = targets(smiles, size, sample=sample, anchors=anchors, neighbours=neighbours, seed=seed)
        draft = file.with_name(file.name + ".part")
        with draft.open("wb") as stream:
            np.savez(stream, asked=asked, **made._asdict())
        os.replace(draft, file)
    with np.load(file) as stored:
        if not np.array_equal(stored["asked"], asked):
            raise EncoderError(f"{file} holds targets of another recipe or table; remove it, or use another folder.")
        return Targets(stored["rows"], stored["vectors"], stored["anchors"], stored["near"])


def _log_shares(smiles: Sequence[str]) -> Float[np.ndarray, "n 2048"]:
    counts = np.log1p(morgan_counts(smiles))
    return (counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _near(vectors: Float[np.ndarray, "m d"], chosen: Int[np.ndarray, " a"], count: int) -> Int[np.ndarray, "a k"]:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    found = np.empty((len(chosen), count), np.int64)
    for start in range(0, len(chosen), BLOCK):
        asked = chosen[start : start + BLOCK]
        alike = unit[asked] @ unit.T
        alike[np.arange(len(asked)), asked] = -np.inf
        best = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(alike, best, axis=1), axis=1, kind="stable")
        found[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
    return found
