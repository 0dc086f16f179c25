"""Anybody's tables of profiles: normalised by a TOML, scored by the paper's protocol, compared; tables and figures.

Compositions of `profiling`, and the one thing that room must not know: structures, for the baseline beside the scores.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from chem.fingerprint import morgan_bits, tanimoto
from chem.molecule import InvalidSmiles, standardise
from profiling.baselines import CELL_COUNT, STRUCTURE, by_cell_count
from profiling.compare import Comparison, compare, gather, same_folds
from profiling.heldout import hold_out
from profiling.library import build_from, summary_with_null, write_folder
from profiling.plots import Bar, Panel, bars, confusion_map, overlap_map, panels, save, subprofile_map
from profiling.profiles import META, Profiles
from profiling.protocol import KEY, OWN, ProtocolConfig, Report, Similarity, annotate, match_key, score
from profiling.statistics import t_interval
from profiling.steps import read_steps, run_steps
from profiling.tables import read_profiles, read_table, write_profiles
from service.errors import InvalidRequest

TITLES = {
    "map_per_label": "mAP, label ranks compounds",
    "map_per_sample": "mAP, compound ranks labels",
    "roc_auc": "ROC-AUC",
    "recall@5": "recall@5",
}
FOLDS_NOTE = (
    "Folds share compounds, which the ANOVA behind the letters does not know; mixed model and paired test: pairs.csv."
)
NO_STRUCTURE = -1.0  # below every Tanimoto similarity


def score_table(
    profiles: Path,
    labels: Path,
    out: Path,
    config: ProtocolConfig,
    smiles: str | None = None,
    training: Path | None = None,
    umap: bool = False,
) -> Report:
    """Score a file of profiles (normalised, control at 0) against a file of labels; tables and figures into `out`.

    Beside the profiles stand the cell count alone, where the file has one, and structure alone, where `smiles` names
    the column (of either file) that has it. `training` (compound and batch of every training picture) splits seen from
    unseen compounds, and leaves out the batches that training saw of the former.
    """
    table, annotation = read_profiles(profiles), read_table(labels)
    held = None
    if training is not None:
        held = hold_out(table, read_table(training), config.profile_key, inchikey=config.match != "exact")
        table = held.profiles
        config = replace(config, subset=config.subset or "Seen")
    beside: dict[str, Similarity] = {}
    if counted := by_cell_count(table, config):
        beside[CELL_COUNT] = counted
    if smiles is not None:
        beside[STRUCTURE] = _by_structure(structures(table, annotation, smiles, config))
    report = score(table, annotation, config, beside)
    report.write(out)
    if held is not None:
        held.funnel.to_csv(out / "held_out.csv", index=False)
        held.removed.to_csv(out / "removed.csv", index=False)
    asked = {
        "profiles": profiles.name,
        "labels": labels.name,
        "smiles": smiles,
        "training": training and training.name,
        "protocol": asdict(config),
    }
    (out / "request.json").write_text(json.dumps(asked, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _figures(report, out)
    if umap:
        _umap(table, annotation, config, out)
    return report


def structures(profiles: Profiles, labels: pd.DataFrame, column: str, config: ProtocolConfig) -> dict[str, str]:
    """Compound key -> SMILES, from the column of the labels or of the profiles' metadata that has this name.

    Raises `InvalidRequest` where neither has it.
    """
    full = column if column.startswith(META) else META + column
    if column in labels.columns:
        keys, words = labels[config.label_key], labels[column]
    elif full in profiles.meta.columns:
        keys, words = pd.Series(profiles.column(config.profile_key)), profiles.meta[full]
    else:
        raise InvalidRequest(f"smiles column {column!r} is neither in the labels nor in the profiles' metadata")
    found: dict[str, str] = {}
    for key, text in zip(match_key(keys, config.match), words, strict=True):
        if isinstance(text, str) and isinstance(key, str):
            found.setdefault(key, text)
    return found


def _by_structure(smiles: Mapping[str, str]) -> Similarity:
    def similarity(compounds: Profiles) -> Float[np.ndarray, "n n"]:
        keys = [str(key) for key in compounds.meta[KEY]]
        read = {key: parent for key in keys if (parent := _parent(smiles.get(key, "")))}
        out = np.full((len(keys), len(keys)), NO_STRUCTURE)
        at = [i for i, key in enumerate(keys) if key in read]
        if at:
            bits = morgan_bits([read[keys[i]] for i in at])
            out[np.ix_(at, at)] = tanimoto(bits, bits)
        return out

    return similarity


def _parent(text: str) -> str:
    try:
        return standardise(text).smiles
    except InvalidSmiles:
        return ""


def _figures(report: Report, out: Path) -> None:
    table = report.metrics
    methods = {str(name): own for name, own in table.groupby("method", sort=False)}
    folds = table["fold"].nunique()
    marks: dict[tuple[str, str, str], str] = {}
    if len(methods) > 1 and folds > 1:
        made = compare(gather(methods), np.random.default_rng(0))
        made.write(out / "methods")
        marks = _letters(made)
    grid = _grid(table, marks)
    save(bars(grid, _interval(folds), note=FOLDS_NOTE if marks else ""), out / "scores.png")
    first = report.subprofiles[0]
    if first.n_features.any():
        save(subprofile_map(first), out / "subprofiles.png")
        if len(first.labels) > 1:
            save(overlap_map(first), out / "overlap.png")
    if report.confusion.to_numpy().sum():
        counts = report.confusion.to_numpy(dtype=np.int64)
        save(confusion_map(counts, list(report.confusion.index), list(report.confusion.columns)), out / "confusion.png")


def _interval(folds: int) -> str:
    return f"95 % t interval over {folds} folds" if folds > 1 else "none (one fold)"


def _letters(made: Comparison) -> dict[tuple[str, str, str], str]:
    columns = ["subset", "metric", "method", "letters"]
    return {(s, m, name): word for s, m, name, word in made.methods[columns].itertuples(index=False)}


def _grid(table: pd.DataFrame, marks: Mapping[tuple[str, str, str], str]) -> dict[str, list[Bar]]:
    grid: dict[str, list[Bar]] = {}
    subsets = list(dict.fromkeys(table["subset"]))
    for metric, title in TITLES.items():
        for subset in subsets:
            rows = table[(table["metric"] == metric) & (table["subset"] == subset)]
            name = title if len(subsets) == 1 else f"{title}, {subset}"
            for method, own in rows.groupby("method", sort=False):
                low, high = np.clip(t_interval(own["value"].to_numpy(dtype=np.float64)), 0, 1)  # scores from 0 to 1
                letter = marks.get((subset, metric, str(method)), "")
                bar = Bar(
                    str(method),
                    float(own["value"].mean()),
                    float(low),
                    float(high),
                    float(own["chance"].mean()),
                    letter,
                )
                grid.setdefault(name, []).append(bar)
    return grid


def _umap(table: Profiles, labels: pd.DataFrame, config: ProtocolConfig, out: Path) -> None:
    from profiling.embedding import coordinates

    data = annotate(table, labels, config)
    complete = ~np.isnan(data.profiles.values).any(axis=0)
    points = coordinates(data.profiles.values[:, complete], config.seed)
    words = tuple("; ".join(np.array(data.labels)[t]) for t in data.truth)
    rows: list[tuple[str, Sequence[Panel]]] = [(config.label, [Panel("one point a compound", points, words)])]
    if config.subset:
        seen = tuple(str(v) for v in data.profiles.column(config.subset))
        rows.append((config.subset, [Panel("the same points", points, seen)]))
    save(panels(rows, size=4.0), out / "umap.png")


def compare_runs(runs: Sequence[str], out: Path) -> Comparison:
    """Several folders of `score_table`, each a method (FOLDER, or NAME=FOLDER): the paper's Tables 1 and 2, Figure 5.

    Raises `InvalidRequest` for a folder without metrics.csv or two methods of one name.
    """
    metrics: dict[str, pd.DataFrame] = {}
    folds: dict[str, pd.DataFrame] = {}
    for run in runs:
        name, _, place = run.rpartition("=")
        folder = Path(place)
        name = name or folder.name
        if not (folder / "metrics.csv").is_file():
            raise InvalidRequest(f"{place!r} has no metrics.csv: expected a folder made by `dopaint score`")
        if name in metrics:
            raise InvalidRequest(f"two runs are named {name!r}: give them as NAME=FOLDER")
        table = pd.read_csv(folder / "metrics.csv")
        metrics[name] = table[table["method"] == OWN]
        folds[name] = pd.read_csv(folder / "folds.csv", dtype={"key": str})
    table = gather(metrics)
    paired = same_folds(folds)
    made = compare(table, np.random.default_rng(0), paired)
    made.write(out)
    made.paper_table().to_csv(out / "tukey.csv", index=False)
    note = FOLDS_NOTE if paired else "The methods were scored in different folds: nothing is paired."
    save(bars(_grid(table, _letters(made)), _interval(table["fold"].nunique()), note=note), out / "scores.png")
    return made


def make_subprofiles(
    profiles: Path, labels: Path | None, out: Path, config: ProtocolConfig, permutations: int = 1000
) -> pd.DataFrame:
    """Sub-profiles of every label from all compounds that have it, with their nulls, overlap and figures, into `out`.

    Without `labels` the label is a column of the profiles' metadata. Gives the summary, one row a label.
    """
    table = read_profiles(profiles)
    if labels is None:
        key = config.profile_key
        own = pd.DataFrame({config.label_key: table.column(key), config.label: table.column(config.label)})
        annotation = own.drop_duplicates()
    else:
        annotation = read_table(labels)
    sub, funnel = build_from(table, annotation, config)
    data = annotate(table, annotation, config)
    summary = summary_with_null(sub, data.profiles.values, np.random.default_rng(config.seed), permutations)
    write_folder(sub, out, summary)
    funnel.to_csv(out / "funnel.csv", index=False)
    if sub.n_features.any():
        save(subprofile_map(sub), out / "subprofiles.png")
        if len(sub.labels) > 1:
            save(overlap_map(sub), out / "overlap.png")
    return summary


def normalise(profiles: Path, steps: Path, control: str, out: Path) -> pd.DataFrame:
    """The steps of a TOML on a file of profiles; `control` is COLUMN=VALUE, the wells to fit on. Writes the profiles
    and, beside them, what each step took and gave (`<name>.log.csv`) and the rows left out with their reason.

    Raises `InvalidRequest` for a control that is not there.
    """
    table = read_profiles(profiles)
    column, mark, value = control.partition("=")
    if not mark:
        raise InvalidRequest(f"control is {control!r}: expected COLUMN=VALUE, such as pert_type=negcon")
    rows = np.asarray(pd.Series(table.column(column)).astype(str) == value, dtype=bool)
    if not rows.any():
        known = sorted(set(map(str, table.column(column).tolist())))[:5]
        raise InvalidRequest(f"no row has {column} = {value!r}: it has {known} and perhaps others")
    made = run_steps(table, read_steps(steps), rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_profiles(made.profiles, out)
    stem = out.name.split(".")[0]
    made.log.to_csv(out.with_name(f"{stem}.log.csv"), index=False)
    if len(made.excluded):
        made.excluded.to_csv(out.with_name(f"{stem}.excluded.csv"), index=False)
    return made.log


def config_from(values: Mapping[str, Any], path: Path | None) -> ProtocolConfig:
    """A protocol from a TOML file, its keys overridden by those given on the command line (None: not given)."""
    table = tomllib.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    return ProtocolConfig.from_mapping({**table, **{k: v for k, v in values.items() if v is not None}})
