"""A whole library against mechanisms and targets, from effects computed before: `dopaint screen`.

Without a label: the nearest label of each compound, with its score, the level of chance and p. With one: the compounds
nearest to it, best first. Scores are Biosimilarities to the sub-profiles of the model's reference library; a compound
that is itself a reference of the label is marked, because it helped to make what it is scored against.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from profiling.profiles import Profiles
from profiling.subprofile import SubProfiles, biosimilarity
from service.errors import UnknownName
from service.library_effects import LibraryEffects
from service.reference import KINDS, Reference


def nearest_labels(library: LibraryEffects, reference: Reference, kind: str = "moa") -> pd.DataFrame:
    """One row a compound: its nearest label of a kind, score, chance, p of the label and p of the best of all labels.

    Raises `UnknownName` for a kind that is not "moa" or "target".
    """
    sub, null = _kind(reference, kind)
    chance = _column_means(null)
    best_null = np.where(np.isnan(null), -np.inf, null).max(axis=1, initial=-np.inf)
    best_null = best_null[np.isfinite(best_null)]
    members = {label: set(keys) for label, keys in reference.members(kind).items()}
    parts = []
    for piece, values in library.on(reference):
        score = biosimilarity(values, sub, missing="pairwise")
        known = np.isfinite(score).any(axis=1)
        best = np.where(known, np.argmax(np.where(np.isfinite(score), score, -np.inf), axis=1), 0)
        top = np.where(known, score[np.arange(len(score)), best], np.nan)
        keys = piece.column("InChIKey").astype(str)
        labels = [sub.labels[j] if ok else "" for j, ok in zip(best, known, strict=True)]
        parts.append(
            _head(piece, library).assign(
                kind=kind,
                label=labels,
                score=top,
                chance=np.where(known, chance[best], np.nan),
                p=[share_above(null[:, j], s) for j, s in zip(best, top, strict=True)],
                p_best=[share_above(best_null, s) for s in top],
                is_reference=[key in members.get(label, ()) for key, label in zip(keys, labels, strict=True)],
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["inchikey", "label", "score"])


def nearest_to_label(
    library: LibraryEffects, reference: Reference, label: str, kind: str = "moa", top: int = 100
) -> pd.DataFrame:
    """The `top` compounds nearest to a label, best first. Raises `UnknownName` for a label without sub-profile."""
    sub, null = _kind(reference, kind)
    called = [one for one, n in zip(sub.labels, sub.n_features, strict=True) if n >= 2]
    if label not in called:
        raise UnknownName(f"{kind} {label!r} has no sub-profile in the reference library: expected one of {called}")
    j = sub.labels.index(label)
    members = set(reference.members(kind).get(label, ()))
    parts = []
    for piece, values in library.on(reference):
        score = biosimilarity(values, sub, missing="pairwise")[:, j]
        keys = piece.column("InChIKey").astype(str)
        parts.append(_head(piece, library).assign(score=score, is_reference=[key in members for key in keys]))
    table = pd.concat(parts, ignore_index=True).dropna(subset="score")
    table = table.sort_values(["score", "inchikey"], ascending=[False, True], kind="stable").head(top)
    return table.reset_index(drop=True).assign(
        kind=kind,
        label=label,
        chance=float(_column_means(null[:, [j]])[0]),
        p=[share_above(null[:, j], s) for s in table["score"]],
    )


def share_above(null: Float[np.ndarray, " r"], score: float) -> float:
    """p: share of the null's scores, the score itself counted, that are at least as high."""
    present = null[np.isfinite(null)]
    if not np.isfinite(score) or not len(present):
        return float("nan")
    return float((1 + (present >= score).sum()) / (1 + len(present)))


def _kind(reference: Reference, kind: str) -> tuple[SubProfiles, Float[np.ndarray, "r l"]]:
    if kind not in KINDS:
        raise UnknownName(f"kind {kind!r} does not exist: expected one of {', '.join(KINDS)}")
    sub, null = reference.subprofiles[kind], reference.nulls[kind]
    return sub, null.scores[:, [null.labels.index(label) for label in sub.labels]]


def _column_means(null: Float[np.ndarray, "r l"]) -> Float[np.ndarray, " l"]:
    present = np.isfinite(null)
    count = present.sum(axis=0)
    total = np.where(present, null, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def _head(piece: Profiles, library: LibraryEffects) -> pd.DataFrame:
    meta = piece.meta
    evidence = meta["Metadata_Evidence"] if "Metadata_Evidence" in meta else library.manifest.get("evidence", "")
    return pd.DataFrame(
        {
            "evidence": evidence,
            "inchikey": meta["Metadata_InChIKey"].astype(str),
            "smiles": meta["Metadata_SMILES"].astype(str),
        }
    ).reset_index(drop=True)
