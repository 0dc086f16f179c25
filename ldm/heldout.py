"""Held-out denoising loss of a finished model folder, row by row: does the network denoise pictures that it never saw
better when it is told their compound and context than when it is told wrong ones, or nothing?

v-loss at noise levels spread over the whole schedule; the same noise for every variant, so differences are paired.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from ldm.data import TrainingData, TrainingDataError, load_compounds, load_data, philox
from ldm.objective import uniform_steps
from ldm.pipeline import CellPaintingPipeline, fixed_threads
from ldm.schedule import add_noise, velocity
from ldm.unet import predict

VARIANTS = ("conditional", "compound_shuffled", "context_shuffled", "unconditional")


def other_rows(labels: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """For every row another one with another label, each row used once: rows sorted by label are turned round by the
    size of the largest label. Where one label holds more than half of all, some of its rows meet their own.
    """
    n = len(labels)
    mixed = rng.permutation(n)
    order = mixed[np.argsort(labels[mixed], kind="stable")]
    largest = int(np.unique(labels, return_counts=True)[1].max())
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, -largest)
    return other


def held_out_rows(data: TrainingData, batches: tuple[str, ...]) -> Int[np.ndarray, " n"]:
    """Rows of the split "val" whose batch the model knows. Raises TrainingDataError where there are none."""
    index = data.indices("val")
    index = index[data.rows["batch"].astype(str).iloc[index].isin(batches).to_numpy()]
    if not len(index):
        raise TrainingDataError(
            "training data: no row is held out in a batch of training; make the folder with a share"
        )
    return index


def denoising_losses(
    pipeline: CellPaintingPipeline, folder: Path, repeats: int = 4, seed: int = 1, batch: int = 64
) -> tuple[Int[np.ndarray, " n"], dict[str, Float[np.ndarray, " n"]]]:
    """Held-out rows of a training folder, and for each of `VARIANTS` their v-loss, mean over `repeats` draws of noise
    and noise level.

    Raises TrainingDataError: no held-out row, or a compound without a vector.
    """
    data = load_data(folder)
    index = held_out_rows(data, pipeline.condition.batches)
    rows = data.rows.iloc[index].reset_index(drop=True)
    vectors, keys = load_compounds(folder)
    at = keys.get_indexer(rows["compound"].astype(str))
    if (at < 0).any():
        raise TrainingDataError(f"training data: compound {rows['compound'][int(np.argmin(at))]} has no vector")
    given = pipeline.condition.conditions(vectors[at], rows)
    rng = philox(seed, 0, 5)
    other = given.rows(torch.from_numpy(other_rows(rows["compound"].astype(str).to_numpy(), rng)))
    place = rows["batch"].astype(str).to_numpy() if rows["batch"].nunique() > 1 else rows["row"].to_numpy()
    elsewhere = given.rows(torch.from_numpy(other_rows(place, rng)))
    variants = {
        "conditional": given,
        "compound_shuffled": replace(given, compound=other.compound),
        "context_shuffled": replace(elsewhere, compound=given.compound, given=given.given),
        "unconditional": given.keeping(),
    }
    losses = {name: np.zeros(len(rows)) for name in VARIANTS}
    with fixed_threads(pipeline.settings.threads), torch.no_grad():
        parts = [index[start : start + batch] for start in range(0, len(index), batch)]
        x0 = torch.cat([pipeline.autoencoder.encode(torch.from_numpy(data.read(part))) for part in parts])
        for repeat in range(repeats):
            rng = philox(seed, repeat + 1, 5)
            noise = torch.from_numpy(rng.standard_normal(tuple(x0.shape), dtype=np.float32))
            t = torch.from_numpy(uniform_steps(len(rows), pipeline.schedule.steps, rng))
            noisy, v = add_noise(x0, noise, t, pipeline.schedule), velocity(x0, noise, t, pipeline.schedule)
            for name, conditions in variants.items():
                for part in torch.arange(len(rows)).split(batch):
                    tokens, pooled = pipeline.condition(conditions.rows(part))
                    guess = predict(pipeline.unet, noisy[part], t[part], tokens, pooled)
                    losses[name][part.numpy()] += (guess - v[part]).pow(2).mean(dim=(1, 2, 3)).numpy() / repeats
    return index, losses
