"""`dopaint benchmark real-pictures`: a model trained on real pictures, on wells that it never saw.

Held-out denoising loss, and effects of compounds in generated against real pictures of the same held-out wells; beside
both an unconditional model and shuffled compounds, beside the effects what the training wells of a compound say about
its held-out wells, which is about as well as anybody could do. Every contrast says how many (compound, batch) pairs
support it: with one, a batch effect and a compound effect cannot be told apart by any method.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from ldm.data import TrainingData, load_compounds, load_data
from ldm.features import NAME, textures
from ldm.grid import save_grid
from ldm.heldout import VARIANTS, denoising_losses, other_rows
from ldm.intensity import IntensityScale
from ldm.pipeline import CellPaintingPipeline
from service.bbbc021 import UNKNOWN, support
from service.errors import InvalidRequest, MissingModel
from service.rooms import DMSO_INCHIKEY

Progress = Callable[[int, int, str], None]
CLIP = 10.0  # features are clipped to ±CLIP standard deviations of real training pictures


@dataclass(frozen=True)
class PicturesConfig:
    """repeats: noises of each held-out row. draws: generated pictures of each held-out row. least: held-out pictures of
    a compound (and of its controls in the same batch) without which its effect is not judged. grid: rows to look at.
    threads: 0 takes the model folder's number.
    """

    repeats: int = 4
    draws: int = 2
    least: int = 3
    grid: int = 8
    steps: int = 15
    threads: int = 0
    resamples: int = 2000
    seed: int = 77


def contrasts(values: Float[np.ndarray, "n k"], rows: pd.DataFrame, least: int) -> dict[str, Float[np.ndarray, " k"]]:
    """Effect of each published name: its pictures minus the controls of the same batch (DMSO; where there is none, all
    other names of the batch), mean over batches weighted by its pictures. Batches in which it or its controls have
    fewer than `least` pictures do not count; the unknown token is no compound.
    """
    name, batch = rows["name"].to_numpy(), rows["batch"].to_numpy()
    control = (rows["compound"] == DMSO_INCHIKEY).to_numpy()
    found = {}
    for one in sorted(set(name[~control & (rows["compound"] != UNKNOWN).to_numpy()])):
        total, weight = np.zeros(values.shape[1]), 0
        for where in sorted(set(batch[name == one])):
            mine = (name == one) & (batch == where)
            others = (control if control.any() else name != one) & (batch == where)
            if mine.sum() >= least and others.sum() >= least:
                total += mine.sum() * (values[mine].mean(0) - values[others].mean(0))
                weight += int(mine.sum())
        if weight:
            found[one] = total / weight
    return found


def agreement(
    real: dict[str, np.ndarray], other: dict[str, np.ndarray], rng: np.random.Generator, resamples: int
) -> dict[str, float | int | None]:
    """Median over compounds of the correlation of two sets of effects, with a bootstrap interval over compounds, and
    the one-sided p of the mean correlation when effects are dealt to compounds at random. None without variation.
    """
    names = sorted(set(real) & set(other))
    a, b = (np.stack([effects[name] for name in names]) if names else np.zeros((0, 1)) for effects in (real, other))
    flat = not len(names) or bool((b.std(1) < 1e-12).all())
    if flat:
        return {"compounds": len(names), "median": None, "low": None, "high": None, "p": None}
    matrix = _correlations(a, b)
    own = np.diag(matrix)
    draws = np.median(own[rng.integers(0, len(own), (resamples, len(own)))], axis=1)
    dealt = np.array([matrix[np.arange(len(own)), rng.permutation(len(own))].mean() for _ in range(resamples)])
    return {
        "compounds": len(names),
        "median": round(float(np.median(own)), 4),
        "low": round(float(np.percentile(draws, 2.5)), 4),
        "high": round(float(np.percentile(draws, 97.5)), 4),
        "p": round(float((1 + (dealt >= own.mean() - 1e-12).sum()) / (1 + resamples)), 4),
    }


def _correlations(a: Float[np.ndarray, "m k"], b: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m m"]:
    """Pearson correlation of every row of a with every row of b; 0 where one does not vary."""
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    size = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    return np.asarray(np.divide(a @ b.T, size, out=np.zeros(size.shape), where=size > 0.0))


def loss_table(
    losses: dict[str, Float[np.ndarray, " n"]], wells: np.ndarray, rng: np.random.Generator, resamples: int
) -> dict[str, dict[str, float]]:
    """Mean loss of each variant, and how much worse than the conditional one it is, with a bootstrap over wells."""
    code = np.unique(wells, return_inverse=True)[1]
    n = int(code.max()) + 1
    size = np.bincount(code, minlength=n)
    pick = rng.integers(0, n, (resamples, n))
    found = {}
    for name in VARIANTS:
        worse = losses[name] - losses["conditional"]
        sums = np.bincount(code, weights=worse, minlength=n)
        draws = sums[pick].sum(1) / size[pick].sum(1)
        found[name] = {
            "loss": round(float(losses[name].mean()), 5),
            "worse_than_conditional": round(float(worse.mean()), 5),
            "low": round(float(np.percentile(draws, 2.5)), 5),
            "high": round(float(np.percentile(draws, 97.5)), 5),
        }
    return found


def run(
    model: Path,
    data: Path,
    out: Path,
    config: PicturesConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, object]:
    """Measure a model folder on the held-out rows of its training folder; writes real_pictures.json, support.csv and
    grid.png to `out`.

    Raises MissingModel, ModelFolderError, TrainingDataError, InvalidRequest for data without published names.
    """
    config, tell = config or PicturesConfig(), progress or (lambda *_: None)
    if not (model / "model_index.json").is_file():
        raise MissingModel(f"model: {model} has no model_index.json; give the folder `model` of `dopaint train`")
    pipeline, opened = CellPaintingPipeline.from_pretrained(model), load_data(data)
    if config.threads:
        pipeline.settings = replace(pipeline.settings, threads=config.threads)
    if "name" not in opened.rows.columns:
        raise InvalidRequest(f"data: {data} has no column name; make it with `dopaint data bbbc021`")
    tell(0, 5, "denoising held-out pictures")
    index, losses = denoising_losses(pipeline, data, config.repeats, config.seed)
    rows = opened.rows.iloc[index].reset_index(drop=True)
    rng = np.random.default_rng(config.seed)
    wells = (rows["plate"].astype(str) + "/" + rows["row"].astype(str) + "/" + rows["column"].astype(str)).to_numpy()
    tell(1, 5, "painting held-out wells")
    painted = _painted(pipeline, data, rows, config, tell)
    tell(4, 5, "comparing effects")
    effects = _effects(pipeline, opened, data, index, painted, config)
    scored = {
        name: agreement(effects["real"], effects[name], rng, config.resamples) for name in effects if name != "real"
    }
    table = support(opened.rows)
    known = table[table["compound"] != UNKNOWN]
    result: dict[str, object] = {
        "evidence": pipeline.settings.evidence,
        "conditions": pipeline.settings.conditions,
        "training_steps": pipeline.settings.training_steps,
        "training_minutes": pipeline.settings.training_minutes,
        "config": asdict(config),
        "held_out": {"pictures": len(rows), "wells": len(np.unique(wells)), "names": int(rows["name"].nunique())},
        "denoising": loss_table(losses, wells, rng, config.resamples),
        "effects": {"features": NAME, "against real held-out wells": scored},
        "support": {
            "names": len(table),
            "without structure": int((table["compound"] == UNKNOWN).sum()),
            "(compound, batch) pairs with controls, training": int(known["train_pairs"].sum()),
            "(compound, batch) pairs with controls, held out": int(known["val_pairs"].sum()),
            "names by pairs in training": {str(k): int(v) for k, v in known["train_pairs"].value_counts().items()},
            "pairs of each name": dict(zip(known["name"], known["train_pairs"].tolist(), strict=True)),
        },
    }
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "support.csv", index=False)
    _save_grid(pipeline, opened, data, index, painted["generated"], config, out / "grid.png")
    (out / "real_pictures.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    tell(5, 5, "done")
    return result


def _painted(
    pipeline: CellPaintingPipeline, data: Path, rows: pd.DataFrame, config: PicturesConfig, tell: Progress
) -> dict[str, Float[np.ndarray, "m c h w"]]:
    """Generated pictures of the rows, `draws` times: as they are, with shuffled compounds, without any condition."""
    vectors, keys = load_compounds(data)
    at = keys.get_indexer(rows["compound"].astype(str))
    other = other_rows(rows["compound"].astype(str).to_numpy(), np.random.default_rng([config.seed, 1]))
    many = pd.concat([rows] * config.draws, ignore_index=True)
    many["seed"] = np.random.default_rng([config.seed, 2]).integers(0, 2**63, len(many), dtype=np.uint64)
    found = {}
    kinds = (("generated", at, False), ("shuffled compounds", at[other], False), ("unconditional", at, True))
    for number, (name, place, blind) in enumerate(kinds):
        given = np.tile(vectors[place], (config.draws, 1))
        found[name] = pipeline.paint(given, many, steps=config.steps, unconditional=blind)
        tell(2 + number, 5, "painting held-out wells")
    return found


def _effects(
    pipeline: CellPaintingPipeline,
    opened: TrainingData,
    data: Path,
    index: np.ndarray,
    painted: dict[str, np.ndarray],
    config: PicturesConfig,
) -> dict[str, dict[str, np.ndarray]]:
    """Effects in real held-out wells, in generated pictures of them, and in real training wells."""
    scale = IntensityScale.load(data / "intensity.json")

    def real(at: np.ndarray) -> np.ndarray:
        parts = [at[i : i + 256] for i in range(0, len(at), 256)]
        sources = opened.rows["source"].astype(str)
        return np.concatenate(
            [textures(scale.to_camera(opened.read(part), sources.iloc[part].tolist())) for part in parts]
        )

    train = opened.indices("train")
    known, held = real(train), real(index)
    mean, sd = known.mean(0), np.maximum(known.std(0), 1e-9)

    def scaled(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((values - mean) / sd, -CLIP, CLIP))

    rows = opened.rows.iloc[index].reset_index(drop=True)
    many = pd.concat([rows] * config.draws, ignore_index=True)
    found = {"real": contrasts(scaled(held), rows, config.least)}
    for name, pictures in painted.items():
        found[name] = contrasts(scaled(textures(pictures)), many, config.least)
    trained_on = opened.rows.iloc[train].reset_index(drop=True)
    found["real training wells"] = contrasts(scaled(known), trained_on, config.least)
    return found


def _save_grid(
    pipeline: CellPaintingPipeline,
    opened: TrainingData,
    data: Path,
    index: np.ndarray,
    generated: Float[np.ndarray, "m c h w"],
    config: PicturesConfig,
    path: Path,
) -> None:
    """Held-out rows of different compounds: the real picture beside a generated one."""
    rows = opened.rows.iloc[index].reset_index(drop=True)
    first = rows.drop_duplicates("name").index.to_numpy()
    some = first[np.unique(np.linspace(0, len(first) - 1, min(config.grid, len(first))).round().astype(int))]
    scale = IntensityScale.load(data / "intensity.json")
    real = scale.to_camera(opened.read(index[some]), rows["source"].astype(str).iloc[some].tolist())
    save_grid(real, generated[some], list(pipeline.channels.names), path)
