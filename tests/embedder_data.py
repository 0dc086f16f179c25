"""A tiny training folder for embedders (blobs whose width is the compound's) and recipes that train in a second."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.embedders.cells import CropConfig
from profiling.embedders.methods import METHODS
from profiling.embedders.networks.build import NetworkConfig
from profiling.embedders.networks.phenoprofiler import PhenoConfig
from profiling.embedders.train import EmbedderConfig, Recipe, TrainingConfig

CHANNELS = ("DNA", "ER", "RNA")
SIZE = 48
CROPS = CropConfig(diameter=(4.0, 20.0), scales=(16, 24), read=16, most=6)
NETWORK = NetworkConfig(image=16, patch=4, dim=16, depth=2, heads=2)


def paint(width: float, gain: float, rng: np.random.Generator) -> np.ndarray:
    """One picture [3, 48, 48] in [0, 1]: six nuclei of this width, cells around them."""
    y, x = np.mgrid[:SIZE, :SIZE]
    out = np.zeros((len(CHANNELS), SIZE, SIZE), np.float32)
    for row, column in ((11, 11), (11, 24), (11, 37), (36, 11), (36, 24), (36, 37)):
        cy, cx = row + rng.uniform(-2, 2), column + rng.uniform(-2, 2)
        far = (y - cy) ** 2 + (x - cx) ** 2
        for c, spread in enumerate((width, 1.5 * width, 2.0 * width)):
            out[c] += np.exp(-far / (2 * spread**2)).astype(np.float32)
    noise = rng.normal(0, 0.01, out.shape).astype(np.float32)
    return np.clip(gain * 0.3 * out + 0.05 + noise, 0.0, 1.0).astype(np.float32)


def make(folder: Path, pictures: int = 32, seed: int = 0, targets: int = 0) -> Path:
    """pictures.npy, rows.parquet, intensity.json; `targets`: columns of targets.npy."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    compound = np.arange(pictures) % 4
    batch = np.arange(pictures) // 4 % 2
    shown = [paint(1.8 + 0.4 * c, 1.0 + 0.5 * b, rng) for c, b in zip(compound, batch, strict=True)]
    np.save(folder / "pictures.npy", (2 * np.stack(shown) - 1).astype(np.float16))
    rows = pd.DataFrame(
        {
            "compound": [f"C{c}" for c in compound],
            "batch": [f"B{b}" for b in batch],
            "plate": [f"B{b}P1" for b in batch],
            "split": np.where(np.arange(pictures) < 4, "val", "train"),
        }
    )
    rows.to_parquet(folder / "rows.parquet")
    (folder / "intensity.json").write_text(json.dumps({"channels": list(CHANNELS)}))
    if targets:
        values = compound[:, None] + rng.normal(0, 0.1, (pictures, targets))
        np.save(folder / "targets.npy", values.astype(np.float32))
        (folder / "targets.json").write_text(json.dumps([f"f{i}" for i in range(targets)]))
    return folder


def recipe(kind: str, network: str = "boc", steps: int = 3, engine: str = "", **objective: object) -> Recipe:
    """A recipe of this objective that takes a second."""
    training = TrainingConfig(batch=8, steps=steps, warmup_steps=1, threads=1, log_every=1)
    known = {"dino": {"prototypes": 32, "hidden": 32, "bottleneck": 32, "local_crops": 2, "local_size": 8}}
    known["simclr"] = known["supcon"] = {"hidden": 16, "out": 8}
    known["mae"] = known["cha_mae"] = {"decoder_dim": 16, "decoder_heads": 2, "decoder_depth": 1}
    made = METHODS[kind][0](kind=kind, **{**known.get(kind, {}), **objective})
    if kind == "phenoprofiler":
        fields = PhenoConfig(kind=network, side=32, width=4, blocks=(1, 1), stem=1, heads=2, scale=0.1, branch=2)
        return Recipe(EmbedderConfig(engine or network), fields, CROPS, made, training)
    cells = replace(NETWORK, kind=network, memory=2 if kind == "cha_mae" else 0)
    return Recipe(EmbedderConfig(engine or f"{kind}_{network}"), cells, CROPS, made, training)
