"""Worked example: the shipped model meets a batch that no training picture came from, and is adapted to it from a few
control wells. Measured on wells that were held out, drugs among them: the denoising loss, and how far the painted
pictures are from the true ones, before (the batch's token at the mean of its source's) and after.

    python benchmarks/lora_new_batch.py [--controls 24] [--held-out 96] [--steps 300] [--out out/lora]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from causal.phenotype import DMSO
from ldm import lora
from ldm.config import read_table
from ldm.data import load_data
from ldm.features import textures
from ldm.fidelity import Moments, fid, standardised
from ldm.latents import cached_latents
from ldm.objective import DiffusionTraining, held_out
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import prepare
from ldm.unet import Denoiser
from service.benchmark_gate import actives
from service.engine import find_model, load_room
from service.library import world


def new_batch(controls: int, wells: int, seed: int) -> pd.DataFrame:
    """Wells of one held-out batch: `controls` DMSO wells to adapt to, then `wells` others, half of them drugs."""
    plates = world().plates
    batch = plates[plates["held_out"]]["batch"].iloc[0]
    mine = plates[plates["batch"] == batch]
    drugs = actives(wells // 2, seed)
    n = controls + wells
    rng = np.random.default_rng(seed)
    rows = mine.iloc[rng.integers(0, len(mine), n)][["source", "batch", "plate", "plate_format"]].reset_index(drop=True)
    size = rows["plate_format"].map({384: 16, 1536: 32}).to_numpy()
    return rows.assign(
        compound=[DMSO] * (n - len(drugs)) + drugs,
        row=(rng.random(n) * size).astype(int),
        column=(rng.random(n) * size * 1.5).astype(int),
        seed=rng.integers(0, 2**63, n, dtype=np.uint64),
        split=["train"] * controls + ["val"] * wells,
    )


def write_folder(model: Path, rows: pd.DataFrame, vectors: pd.DataFrame, folder: Path) -> None:
    """The batch in the layout that training reads, on the model's own intensity scale of the source."""
    scale = CellPaintingPipeline.from_pretrained(model).intensity
    folder.mkdir(parents=True, exist_ok=True)
    pictures = scale.to_network(world().paint(rows), rows["source"].tolist())
    np.save(folder / "pictures.npy", pictures.astype(np.float16))
    rows.to_parquet(folder / "rows.parquet")
    vectors.index.to_frame(name="compound").to_parquet(folder / "compounds.parquet", index=False)
    np.save(folder / "compounds.npy", vectors.to_numpy(np.float32))
    scale.save(folder / "intensity.json")


def judge(model: Path, folder: Path, out: Path) -> dict[str, float]:
    """Held-out loss, and the distance of painted to true pictures of the same wells."""
    pipeline, data = CellPaintingPipeline.from_pretrained(model), load_data(folder)
    held = prepare(pipeline.condition, data, folder, cached_latents(pipeline.autoencoder, data, out))
    net = Denoiser(pipeline.unet, pipeline.condition, held.statistics.shape[1])
    losses = held_out(net, held, pipeline.schedule, DiffusionTraining(validate_rows=10_000), unet=True)
    index = data.indices("val")
    rows = data.rows.iloc[index].reset_index(drop=True)
    true = world().paint(rows)
    painted = pipeline.paint(held.conditions.compound[torch.from_numpy(index)].numpy(), rows)
    one, other = standardised(textures(true), textures(painted))
    sums = [Moments(), Moments()]
    for moments, values in zip(sums, (one, other), strict=True):
        moments.add(values)
    return {
        "v_loss": losses["v_conditional"],
        "v_loss_unconditional": losses["v_unconditional"],
        "fid": fid(*sums),
        "mean_shift": float(np.abs(other.mean(0)).mean()),  # of features, in sd of the true pictures
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="simulation-128")
    parser.add_argument("--controls", type=int, default=24)
    parser.add_argument("--held-out", type=int, default=96)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/lora"))
    options = parser.parse_args()
    model = find_model(options.model)
    rows = new_batch(options.controls, options.held_out, options.seed)
    with load_room(model) as room:
        names = sorted(rows["compound"].unique())
        vectors = pd.DataFrame(room.vectors(names), index=names)
    folder = options.out / "data"
    write_folder(model, rows, vectors, folder)
    recipe = read_table(Path("configs/ldm/lora.toml"), "lora", lora.LoraTraining)
    found = {}
    for name, steps in (("before", 0), ("after", options.steps)):
        adapted = lora.run(replace(recipe, base=str(model), steps=steps), folder, options.out / name)
        found[name] = judge(adapted, folder, options.out / name)
        print(name, " ".join(f"{key} {value:.4f}" for key, value in found[name].items()))
    result = {
        "benchmark": "lora_new_batch",
        "evidence": "simulation",
        "batch": str(rows["batch"].iloc[0]),
        "controls": options.controls,
        "held_out": int((rows["split"] == "val").sum()),
        "steps": options.steps,
        **{name: {key: round(value, 5) for key, value in numbers.items()} for name, numbers in found.items()},
    }
    (options.out / "lora.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
