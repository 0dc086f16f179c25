"""The annotation join: how many JUMP compounds, mechanisms and targets survive each rule and match key?

The paper reports 525 compounds of 26 mechanisms and 465 compounds of 446 targets, from 107,289 training compounds
annotated for both, "associated with at least 10 compounds", with a single mechanism. It does not say by which key
compounds were matched, and the key alone changes the count severalfold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from service.real.study import Study

PAPER = {"moa_compounds": 525, "moas": 26, "target_compounds": 465, "targets": 446}
KEYS = {
    "full InChIKey": "the Hub's key with its stereochemistry; JUMP's structures carry none",
    "standardised InChIKey": "the Hub's key after the same standardisation as JUMP's",
    "first block": "the 14 characters of the skeleton",
}
SOURCES = {"all sources": None, "sources 2, 3 or 11": ("in_source_2", "in_source_3", "in_source_11")}
LEAST = 10


@dataclass(frozen=True)
class Rules:
    """`both`: only compounds with a mechanism and a target; `single`: only with one mechanism (for mechanisms)."""

    both: bool
    single: bool


def read(data: Path) -> pd.DataFrame:
    """One row a pair (JUMP compound, Hub name) that shares the first block, with the Hub's standardised keys."""
    folder = data / "repurposing_hub"
    pairs = pd.read_csv(folder / "jump_x_repurposing_hub.csv.gz")
    samples = pd.read_csv(folder / "repurposing_samples_20200324_standardized.csv.gz", dtype=str)
    keys = samples.dropna(subset=["InChIKey_standardized"]).groupby("pert_iname")["InChIKey_standardized"].agg(set)
    standard = pairs["pert_iname"].map(keys)
    found = [isinstance(own, set) and key in own for key, own in zip(pairs["InChIKey"], standard, strict=True)]
    return pairs.assign(full=pairs["match"] == "full", standardised=found)


def matched(pairs: pd.DataFrame, key: str) -> pd.DataFrame:
    """The pairs that agree by this key."""
    if key == "full InChIKey":
        return pairs[pairs["full"]]
    return pairs[pairs["standardised"] | pairs["full"]] if key == "standardised InChIKey" else pairs


def labels(pairs: pd.DataFrame, column: str) -> pd.Series:
    """JUMP compound -> set of its labels over all Hub names that match."""
    known = pairs.dropna(subset=[column])
    return known.groupby("Metadata_JCP2022")[column].agg(lambda words: frozenset("|".join(words).split("|")))


def big(sets: pd.Series) -> tuple[pd.Index, int]:
    """Compounds, and the number of labels, left where a label must have `LEAST` compounds."""
    counts = pd.Series([label for own in sets for label in own], dtype=object).value_counts()
    kept = frozenset(counts[counts >= LEAST].index)
    return sets.index[[bool(own & kept) for own in sets]], len(kept)


def counted(pairs: pd.DataFrame, rules: Rules) -> dict[str, int]:
    """What the rules leave, one after another."""
    moa, target = labels(pairs, "moa"), labels(pairs, "target")
    shared = moa.index.intersection(target.index)
    made = {"with a mechanism": len(moa), "with a target": len(target), "with both": len(shared)}
    if rules.both:
        moa, target = moa[shared], target[shared]
    single = moa[moa.map(len) == 1] if rules.single else moa
    made["with a single mechanism"] = len(single)
    compounds, made["moas"] = big(single)
    made["moa_compounds"] = len(compounds)
    beside = target[target.index.intersection(compounds)]
    made["of these, with a target"] = len(beside)
    made["their targets"] = len({label for one in beside for label in one})
    # the single-mechanism rule is read as one for mechanisms only, or for targets too
    own = target[target.index.intersection(single.index)] if rules.single else target
    compounds, made["targets"] = big(own)
    made["target_compounds"] = len(compounds)
    return made


def study(data: Path, permutations: int = 0) -> Study:
    """Every key, set of sources and reading of the rules, beside the paper's numbers. Nothing random."""
    pairs = read(data)
    rows = []
    for key in KEYS:
        for sources, columns in SOURCES.items():
            chosen = matched(pairs, key)
            if columns is not None:
                chosen = chosen[chosen[list(columns)].any(axis=1)]
            for rules in (Rules(True, True), Rules(False, True), Rules(True, False)):
                words = ("annotated for both" if rules.both else "either", "single" if rules.single else "several")
                head = {"match key": key, "sources": sources, "annotation": words[0], "mechanisms": words[1]}
                rows.append(head | {"matched": chosen["Metadata_JCP2022"].nunique()} | counted(chosen, rules))
    paper = {"match key": "paper: not stated", "sources": "its training set", "annotation": "annotated for both",
             "mechanisms": "single", **PAPER, "of these, with a target": "", "their targets": ""}  # fmt: skip
    table = pd.DataFrame([paper, *rows]).astype("object")
    table = table.where(table.notna(), "")
    table = table[[c for c in rows[0] if c in table.columns]]
    names = {"moa_compounds": f"compounds of mechanisms with {LEAST}", "moas": f"mechanisms with {LEAST}",
             "target_compounds": f"compounds of targets with {LEAST}", "targets": f"targets with {LEAST}"}  # fmt: skip
    table = table.rename(columns=names)
    keys = pd.DataFrame(KEYS.items(), columns=["match key", "meaning"])
    closest = min(rows, key=lambda r: abs(r["moa_compounds"] - 525) / 525 + abs(r["moas"] - 26) / 26)
    text = (
        "Which compounds of JUMP-CP carry an annotation of the Drug Repurposing Hub (2020-03-24) depends on the key "
        "and on the order of the rules. The paper's numbers stand in the first line.",
        f"Closest to its 525 compounds and 26 mechanisms: {closest['match key']}, {closest['sources']}, "
        f"{closest['annotation']}, {closest['mechanisms']}: {closest['moa_compounds']} compounds, {closest['moas']} "
        f"mechanisms. 'All sources' means every compound of JUMP's compound table.",
        "With a smallest size of ten no reading comes near 446 targets; the compounds of the kept mechanisms that have "
        "a target, and their targets without a smallest size, are of the order of the paper's 465 and 446. Its rule "
        "of ten may have been applied to mechanisms only.",
    )
    return Study("hub", "Repurposing Hub: what each rule leaves", text, tables={
        "Compounds, mechanisms and targets left": table, "Match keys": keys})  # fmt: skip
