"""The one trainer of all embedders: `dopaint train configs/embedders/X.toml --data FOLDER --out RUN`.

A recipe has tables [embedder], [network], [crops], [objective] and [training]. All random numbers of a step are
functions of (seed, step), so a run that is interrupted and given again ends with the same weights. The result is the
folder `RUN/model` (`weights`), which `dopaint profile --engine NAME --weights RUN/model` reads.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from profiling.embedders.ablation import DataConfig, part
from profiling.embedders.cells import CropConfig
from profiling.embedders.data import Cells, InvalidTrainingData, TrainingPictures, find_cells, load_pictures, philox
from profiling.embedders.embedding import InvalidEmbedder
from profiling.embedders.methods import METHODS, Method
from profiling.embedders.methods.method import Batch, Sources, sources
from profiling.embedders.networks.build import NetworkConfig, build_encoder, n_parameters
from profiling.embedders.networks.phenoprofiler import KINDS as FIELD_KINDS
from profiling.embedders.networks.phenoprofiler import PhenoConfig, PhenoNetwork
from profiling.embedders.recipe import InvalidRecipe, as_table, read_recipe, table_of
from profiling.embedders.weights import (
    Progress,
    load_checkpoint,
    load_into,
    read_card,
    save_checkpoint,
    save_folder,
)

log = logging.getLogger("dopaint.training")
FREE = ("max_minutes", "threads", "log_every", "save_minutes")  # what may change while a run goes on


class TrainingStopped(InvalidEmbedder):
    """Training cannot go on, for instance because the loss is not a number."""


@dataclass(frozen=True)
class EmbedderConfig:
    """`engine`: the name in `EMBEDDERS`. `read`: channels that a bag of channels reads, where these are focal planes
    ("" and "any": all). `pool`: "concat" puts channels side by side, "mean" averages them (focal planes)."""

    engine: str = "dino_boc"
    read: str = ""
    pool: str = "concat"

    def __post_init__(self) -> None:
        if self.pool not in ("concat", "mean"):
            raise InvalidRecipe(f"embedder: pool is {self.pool!r}, expected concat or mean")


@dataclass(frozen=True)
class TrainingConfig:
    """`steps`, or `epochs` over the training pictures if above 0, or until `max_minutes` if above 0, whichever ends
    first. The learning rate warms up over `warmup_steps`, then falls along half a cosine to a hundredth; with
    `drop_at` it is instead `rates[i]` from the i-th share of the run. `last_weight_decay`: weight decay at the end."""

    seed: int = 1
    batch: int = 32
    steps: int = 1000
    epochs: float = 0.0
    max_minutes: float = 0.0
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    weight_decay: float = 0.04
    last_weight_decay: float = 0.04
    drop_at: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    clip: float = 3.0
    precision: str = "no"
    threads: int = 1
    log_every: int = 20
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.batch < 2 or self.steps < 0 or len(self.rates) not in (0, len(self.drop_at) + 1):
            raise InvalidRecipe(
                f"training: batch {self.batch}, steps {self.steps}, rates {self.rates} for drop_at {self.drop_at}; "
                "expected at least 2, at least 0, and one rate more than drops"
            )

    def rate(self, fraction: float, step: int) -> float:
        """Learning rate when `fraction` of the run is done."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        if self.rates:
            return warm * self.rates[int(np.searchsorted(self.drop_at, fraction, side="right"))]
        cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
        return warm * self.learning_rate * cosine


@dataclass(frozen=True)
class Recipe:
    """A whole recipe; `network` is of cells or of fields, `objective` of one of `METHODS`."""

    embedder: EmbedderConfig
    network: NetworkConfig | PhenoConfig
    crops: CropConfig
    objective: Any
    training: TrainingConfig
    data: DataConfig = field(default_factory=DataConfig)

    @property
    def of_fields(self) -> bool:
        """Whether whole pictures are read instead of cells."""
        return isinstance(self.network, PhenoConfig)

    def described(self) -> str:
        """As text, without what may change on the way."""
        training = {k: v for k, v in as_table(self.training).items() if k not in FREE}
        parts = [as_table(own) for own in (self.embedder, self.network, self.crops, self.data)]
        return repr([*parts, repr(self.objective), training])


def load_recipe(path: Path) -> Recipe:
    """Read a TOML file of configs/embedders. Raises InvalidRecipe."""
    tables = read_recipe(path)
    if unknown := sorted(set(tables) - {"embedder", "network", "crops", "objective", "training", "data"}):
        raise InvalidRecipe(f"recipe: {path} has an unknown table [{unknown[0]}]")
    kind = tables.get("objective", {}).get("kind", "dino")
    if kind not in METHODS:
        raise InvalidRecipe(f"recipe: objective.kind is {kind!r}, expected one of {', '.join(METHODS)}")
    fields = tables.get("network", {}).get("kind") in FIELD_KINDS
    if fields != (kind == "phenoprofiler"):
        raise InvalidRecipe(f"recipe: {path} joins a network and an objective that do not fit (fields and cells)")
    where = str(path)
    network: NetworkConfig | PhenoConfig
    if fields:
        network = table_of(tables, "network", PhenoConfig, where)
    else:
        network = table_of(tables, "network", NetworkConfig, where)
    return Recipe(
        table_of(tables, "embedder", EmbedderConfig, where),
        network,
        table_of(tables, "crops", CropConfig, where),
        table_of(tables, "objective", METHODS[kind][0], where),
        table_of(tables, "training", TrainingConfig, where),
        table_of(tables, "data", DataConfig, where),
    )


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Train what the recipe describes; returns the folder of the trained embedder.

    The same command goes on after an interruption. `start_from`: a trained folder whose weights a new run begins with.
    Raises InvalidRecipe, InvalidTrainingData, InvalidWeights, TrainingStopped.
    """
    tables = read_recipe(config_path)
    if "trex" in tables:
        from profiling.embedders.trex.train import train as adapt

        return adapt(config_path, data, out)
    return run(load_recipe(config_path), load_pictures(data), out, start_from)


def build(recipe: Recipe, material: Sources) -> Method:
    """The method with a fresh encoder; random numbers come from the recipe's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        if isinstance(recipe.network, PhenoConfig):
            network = recipe.network
            if not material.data.targets.shape[1]:
                raise InvalidTrainingData(
                    "training data: no targets.npy, the profile of each picture; make it with dopaint embedders targets"
                )
            if network.out == 0:
                network = type(network)(**{**network.__dict__, "out": material.data.targets.shape[1]})
            encoder: Any = PhenoNetwork(network, len(material.data.learned))
            size = network.side
        else:
            encoder, size = build_encoder(recipe.network, material.data.learned), recipe.network.image
        made: Method = METHODS[recipe.objective.kind][1](encoder, recipe.objective, material, size)
    return made


def whole(data: TrainingPictures) -> Cells:
    """One centre a picture, for methods that read whole pictures."""
    n = len(data)
    return Cells(np.tile(np.array(data.pictures.shape[2:]) / 2.0, (n, 1)), np.arange(n + 1, dtype=np.int64))


def run(
    recipe: Recipe, data: TrainingPictures, out: Path, start_from: Path | None = None, stop_at: int | None = None
) -> Path:
    """Train on opened data; `stop_at` ends the run after that many steps, as an interruption would."""
    torch.set_num_threads(recipe.training.threads)
    out.mkdir(parents=True, exist_ok=True)
    cells = whole(data) if recipe.of_fields else find_cells(data, recipe.crops, out / "cells.parquet", told)
    material = sources(part(data, recipe.data), cells, "train", recipe.crops)
    accelerator = Accelerator(mixed_precision=recipe.training.precision)
    method = build(recipe, material)
    if start_from is not None:
        read_card(start_from)
        load_into(start_from, method.encoder)
    method.to(accelerator.device)
    config = recipe.training
    optimiser = torch.optim.AdamW(method.learned(), lr=config.learning_rate, weight_decay=config.weight_decay)
    checkpoint, step, seconds = out / "checkpoint.safetensors", 0, 0.0
    if checkpoint.is_file():
        progress = load_checkpoint(checkpoint, method, optimiser, recipe.described())
        step, seconds = progress.step, progress.seconds
        log.info(f"going on from step {step} ({seconds / 60:.1f} min)")
    step, seconds = loop(recipe, material, method, optimiser, accelerator, out, step, seconds, stop_at)
    folder = out / "model"
    if accelerator.is_main_process:
        method.to("cpu")
        save_folder(folder, method.encoder, card(recipe, material, method, step, seconds))
    return folder


def told(done: int, total: int) -> None:
    """Says how far the detection of cells is, now and then."""
    if done % 2000 == 0 or done == total:
        log.info(f"cells found in {done} of {total} pictures")


def card(recipe: Recipe, material: Sources, method: Method, step: int, seconds: float) -> dict[str, Any]:
    """What embedder.json says."""
    data = material.data
    network = method.encoder.config if recipe.of_fields else recipe.network
    said = hashlib.sha256(data.rows.to_csv(index=False).encode()).hexdigest()
    return {
        "engine": recipe.embedder.engine,
        "network": as_table(network),
        "crops": as_table(recipe.crops),
        "channels": list(data.learned),
        "reading": as_table(recipe.embedder),
        "objective": recipe.objective.kind,
        "data": as_table(recipe.data),
        "parameters": n_parameters(method.encoder),
        "training": {
            "steps": step,
            "minutes": round(seconds / 60, 2),
            "pictures": len(material.rows),
            "rows_sha256": said,
            "seed": recipe.training.seed,
            "compounds": sorted(map(str, data.rows.iloc[material.rows]["compound"].unique()))[:20000],
        },
    }


def loop(
    recipe: Recipe,
    material: Sources,
    method: Method,
    optimiser: torch.optim.Optimizer,
    accelerator: Accelerator,
    out: Path,
    step: int,
    seconds: float,
    stop_at: int | None,
) -> tuple[int, float]:
    """From `step` to the end of the budget; returns steps and seconds done."""
    config = recipe.training
    steps = math.ceil(config.epochs * len(material.rows) / config.batch) if config.epochs else config.steps
    model, prepared = accelerator.prepare(method, optimiser)
    model.train()
    began = saved = time.monotonic()
    began -= seconds
    budget = config.max_minutes * 60.0
    checkpoint = out / "checkpoint.safetensors"
    share = config.batch // accelerator.num_processes
    while True:
        seconds = time.monotonic() - began
        done = 1.0 if steps == 0 else step / steps
        fraction = max(done, seconds / budget if budget else 0.0)
        if fraction >= 1.0 or (stop_at is not None and step >= stop_at):
            break
        decay = config.weight_decay + (config.last_weight_decay - config.weight_decay) * 0.5 * (
            1.0 - math.cos(math.pi * fraction)
        )
        for group in prepared.param_groups:
            group["lr"], group["weight_decay"] = config.rate(fraction, step), decay
        rng = philox(config.seed, step, accelerator.process_index)
        batch, channels = method.batch(material, share, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(0, 2**62)))  # dropped branches and dropout
            parts: dict[str, Tensor] = model(moved(batch, accelerator.device), channels, fraction)
        loss = parts["loss"]
        if not torch.isfinite(loss.detach()):
            raise TrainingStopped(
                f"training: the loss is {loss.item()} at step {step}; the last checkpoint is {checkpoint}: lower "
                "training.learning_rate"
            )
        prepared.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(method.learned(), config.clip)
        prepared.step()
        step += 1
        method.followed(fraction)
        if accelerator.is_main_process and step % config.log_every == 0:
            record(out, step, seconds, config.rate(fraction, step), parts)
        if accelerator.is_main_process and time.monotonic() - saved > config.save_minutes * 60.0:
            save_checkpoint(checkpoint, method, optimiser, Progress(step, seconds, recipe.described()))
            saved = time.monotonic()
    if accelerator.is_main_process:
        save_checkpoint(checkpoint, method, optimiser, Progress(step, seconds, recipe.described()))
    return step, seconds


def moved(batch: Batch, device: torch.device) -> Batch:
    """The tensors of a batch on a device."""
    return {name: t.to(device) for name, t in batch.items()}


def record(out: Path, step: int, seconds: float, rate: float, parts: dict[str, Tensor]) -> None:
    """One line in the log and in log.csv."""
    numbers = {name: float(value.detach()) for name, value in parts.items()}
    log.info(
        f"step {step} {seconds / 60:.1f} min, lr {rate:.1e}, " + " ".join(f"{k} {v:.4f}" for k, v in numbers.items())
    )
    path = out / "log.csv"
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        if fresh:
            writer.writerow(["step", "seconds", "learning_rate", "losses"])
        losses = " ".join(f"{name}={value:.6f}" for name, value in numbers.items())
        writer.writerow([step, f"{seconds:.1f}", f"{rate:.3e}", losses])
