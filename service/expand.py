"""Hit expansion: the compounds of a library most like a hit, by what they do to cells, by structure, or by both.

A query is a compound (SMILES or InChIKey) or a label's sub-profile ("moa:tubulin inhibitor", "target:EGFR").
biology: Biosimilarity of effects computed before: Pearson correlation over the features of the reference library (a
compound), or over those that a sub-profile keeps (a label). structure: Tanimoto similarity of Morgan fingerprints, for
a label the largest to its reference compounds. both: reciprocal rank fusion, 1 / (60 + rank) summed over the two
rankings (Cormack, Clarke and Buettcher 2009), so that neither scale rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8

from chem.bounded import standardise_within
from chem.fingerprint import morgan_bits, tanimoto
from chem.molecule import InvalidSmiles
from profiling.subprofile import SubProfiles, biosimilarity
from service.errors import InvalidRequest, UnknownName
from service.library_effects import LibraryEffects
from service.reference import KINDS, Reference

BIOLOGY, STRUCTURE, BOTH = "biology", "structure", "both"
WAYS = (BIOLOGY, STRUCTURE, BOTH)
FUSION = 60.0
_KEY = 27  # characters of an InChIKey


@dataclass(frozen=True, eq=False)
class Query:
    """What is looked for. `profile`: what effects are compared with, None where nothing is known; `bits`: packed
    fingerprints of the compounds it stands for; `own`: the InChIKey blocks that are the query itself."""

    name: str
    profile: SubProfiles | None
    bits: UInt8[np.ndarray, "q bytes"]
    own: frozenset[str]


def expand(
    text: str, library: LibraryEffects, reference: Reference, by: str = BOTH, top: int = 100, keep_own: bool = False
) -> pd.DataFrame:
    """The `top` compounds most like the query, best first.

    Columns: rank, evidence, inchikey, smiles, score (that of the way), biosimilarity with chance (its median over the
    library) and percentile, tanimoto, rank_biology, rank_structure. The query itself (same InChIKey block) is left out
    unless `keep_own`. Raises `InvalidRequest`, `UnknownName`, `InvalidSmiles`.
    """
    if by not in WAYS:
        raise UnknownName(f"by: got {by!r}, expected one of {', '.join(WAYS)}")
    if top < 1:
        raise InvalidRequest(f"top is {top}: expected at least 1")
    query = read_query(text, library, reference, needs_biology=by != STRUCTURE)
    parts = []
    for piece, values in library.on(reference):
        meta = piece.meta
        smiles = meta["Metadata_SMILES"].astype(str).tolist()
        columns: dict[str, Any] = {
            "evidence": meta.get("Metadata_Evidence", library.manifest.get("evidence", "")),
            "inchikey": meta["Metadata_InChIKey"].astype(str).to_numpy(),
            "smiles": smiles,
            "biosimilarity": _biology(values, query),
            "tanimoto": tanimoto(morgan_bits(smiles), query.bits).max(axis=1, initial=0.0),
        }
        parts.append(pd.DataFrame(columns))
    if not parts:
        raise InvalidRequest(f"library: {library.name} holds no effects")
    return ranked(pd.concat(parts, ignore_index=True), query, by, top, keep_own)


def ranked(table: pd.DataFrame, query: Query, by: str, top: int, keep_own: bool) -> pd.DataFrame:
    """The table with ranks, chance and percentiles, sorted by the way asked for."""
    own = table["inchikey"].str[:14].isin(query.own)
    table = table if keep_own else table[~own]
    table = table.reset_index(drop=True)
    known = table["biosimilarity"].notna()
    table["chance"] = table["biosimilarity"].median() if known.any() else np.nan
    table["percentile"] = 100.0 * table["biosimilarity"].rank(pct=True)
    for way, column in ((BIOLOGY, "biosimilarity"), (STRUCTURE, "tanimoto")):
        table[f"rank_{way}"] = table[column].rank(ascending=False, method="min", na_option="bottom")
    fused = 1.0 / (FUSION + table["rank_biology"]) + 1.0 / (FUSION + table["rank_structure"])
    table["score"] = {BIOLOGY: table["biosimilarity"], STRUCTURE: table["tanimoto"], BOTH: fused}[by]
    table = table.dropna(subset="score")
    table = table.sort_values(["score", "inchikey"], ascending=[False, True], kind="stable").head(top)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    first = ["rank", "evidence", "inchikey", "smiles", "score", "biosimilarity", "chance", "percentile", "tanimoto"]
    return table[[*first, "rank_biology", "rank_structure"]].reset_index(drop=True)


def read_query(text: str, library: LibraryEffects, reference: Reference, needs_biology: bool) -> Query:
    """A label ("moa:...", "target:..."), an InChIKey of the library, or a SMILES.

    Raises `UnknownName` for an unknown label or key, `InvalidRequest` where the compound has no effect in the library
    and biology needs one.
    """
    kind, sign, label = text.partition(":")
    if sign and kind in KINDS:
        return _label(label, kind, reference)
    if _is_key(text):
        found = _in_library(text, library, reference)
        if found is None:
            raise UnknownName(f"query: InChIKey {text} is not in the library: give its SMILES, or another compound")
        smiles, values = found
        return Query(text, as_profile(values, reference), morgan_bits([smiles]), frozenset([text[:14]]))
    try:
        molecule = standardise_within(text)
    except InvalidSmiles as error:
        raise InvalidRequest(
            f"query: {text!r} is no SMILES ({error.message}), no InChIKey and no label (moa:NAME, target:NAME)"
        ) from error
    found = _in_library(molecule.inchikey, library, reference) if needs_biology else None
    if needs_biology and found is None:
        raise InvalidRequest(
            f"query: {molecule.smiles} has no effect in the library: add it with `dopaint batch`, or ask --by structure"
        )
    profile = None if found is None else as_profile(found[1], reference)
    return Query(molecule.inchikey, profile, morgan_bits([molecule.smiles]), frozenset([molecule.block]))


def as_profile(values: Float[np.ndarray, " k"], reference: Reference) -> SubProfiles:
    """One compound's effect as a sub-profile that keeps every feature it has."""
    mask = np.isfinite(values)[None]
    return SubProfiles(
        ("query",),
        reference.profiles.names,
        np.nan_to_num(values)[None],
        mask,
        np.ones(1, dtype=np.int64),
        reference.effect.convention,
        reference.effect.agree,
        1,
    )


def _label(label: str, kind: str, reference: Reference) -> Query:
    sub = reference.subprofiles[kind]
    called = [one for one, n in zip(sub.labels, sub.n_features, strict=True) if n >= 2]
    if label not in called:
        raise UnknownName(f"query: {kind} {label!r} has no sub-profile: expected one of {', '.join(called)}")
    j = sub.labels.index(label)
    one = SubProfiles(
        (label,),
        sub.names,
        sub.values[[j]],
        sub.mask[[j]],
        sub.n_references[[j]],
        sub.convention,
        sub.agree,
        sub.min_references,
    )
    keys = [str(key) for key in reference.profiles.column("InChIKey")]
    members = set(reference.members(kind).get(label, ()))
    rows = np.array([key in members for key in keys], dtype=bool)
    return Query(f"{kind}:{label}", one, reference.fingerprints[rows], frozenset(key[:14] for key in members))


def _biology(values: Float[np.ndarray, "n k"], query: Query) -> Float[np.ndarray, " n"]:
    if query.profile is None:
        return np.full(len(values), np.nan)
    return np.asarray(biosimilarity(values, query.profile, missing="pairwise")[:, 0])


def _in_library(key: str, library: LibraryEffects, reference: Reference) -> tuple[str, Float[np.ndarray, " k"]] | None:
    """SMILES and effect of the compound with this InChIKey, the first of tautomers; None where it is not."""
    for piece, values in library.on(reference):
        at = np.flatnonzero(piece.column("InChIKey").astype(str) == key)
        if len(at):
            return str(piece.column("SMILES")[at[0]]), values[at[0]]
    return None


def _is_key(text: str) -> bool:
    return len(text) == _KEY and text[14] == text[25] == "-" and text.replace("-", "").isalpha() and text.isupper()
