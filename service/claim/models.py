"""The diffusion models of the claim: where they begin, how they are trained, what they paint."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ldm.condition import ConditionEncoder
from ldm.config import read_table
from ldm.objective import DiffusionTraining
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import ConditionConfig
from ldm.train import run
from ldm.unet import UNetConfig
from service.claim.config import Claim
from service.claim.design import encoded_compounds
from service.claim.pictures import Tell, block_file, blocks, share_latents, vectors
from service.errors import InvalidRequest

CHECKPOINT = "diffusion.safetensors"


def forget_conditions(model: Path, out: Path, seed: int) -> None:
    """A copy of a model folder whose condition encoder is untrained: its U-Net knows what pictures look like, and no
    longer what any compound or context does to them.
    """
    pipeline = CellPaintingPipeline.from_pretrained(model)
    settings = {k: v for k, v in dict(pipeline.condition.config).items() if not k.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = ConditionEncoder(**settings)
    pipeline.condition.load_state_dict(fresh.state_dict())
    pipeline.save_pretrained(out)


def recipe_of(claim: Claim, variant: str, seed: int) -> tuple[UNetConfig, ConditionConfig, DiffusionTraining]:
    """The three tables of a recipe, under a seed. Raises InvalidRequest for a budget in minutes."""
    path = claim.recipes[variant]
    training = read_table(path, "diffusion_training", DiffusionTraining)
    if training.max_minutes > 0.0:
        raise InvalidRequest(
            f"recipe: {path.name} has max_minutes {training.max_minutes}: give steps alone, equal minutes are no equal "
            "budget"
        )
    return (
        read_table(path, "unet", UNetConfig),
        read_table(path, "condition", ConditionConfig),
        replace(training, seed=seed),
    )


def pretrain(claim: Claim, data: Path, out: Path, start: Path | None) -> None:
    """Steps without any condition on an observed screen: what a picture looks like, for both models."""
    unet, condition, training = recipe_of(claim, "aware", claim.config.seed)
    free = replace(training, steps=claim.config.pretrain_steps, statistics_steps=0, drop_everything=1.0)
    _train(unet, condition, free, data, out, claim.autoencoder, start)


def train(claim: Claim, variant: str, seed: int, data: Path, out: Path, start: Path | None) -> None:
    """One model; the same command goes on where it was stopped."""
    _train(*recipe_of(claim, variant, seed), data, out, claim.autoencoder, start)


def _train(
    unet: UNetConfig,
    condition: ConditionConfig,
    training: DiffusionTraining,
    data: Path,
    out: Path,
    autoencoder: Path,
    start: Path | None,
) -> None:
    share_latents(data, out)
    run(unet, condition, training, data, out, autoencoder, start)


def paint(claim: Claim, trained: Path, rows: pd.DataFrame, out: Path, home: Path, tell: Tell) -> None:
    """Blocks of painted pictures (float16, camera units) to `out`; those that are there stay.

    trained: what `train` was given as `out`; its checkpoint and latents are removed first. home: folder of the
    compound vectors.
    """
    for name in (CHECKPOINT, "latents.npy", "latents.json"):  # hundreds of megabytes a model, not needed any more
        (trained / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    pipeline = CellPaintingPipeline.from_pretrained(trained / "model")
    threads = recipe_of(claim, "aware", claim.config.seed)[2].threads
    pipeline.settings = replace(pipeline.settings, threads=threads or pipeline.settings.threads)
    place = pd.Index(encoded_compounds(claim)["compound"])
    known = vectors(claim, home)[place.get_indexer(pd.Index(rows["compound"]))]
    for number, part in enumerate(blocks(len(rows))):
        path = block_file(out, number)
        if not path.is_file():
            made = pipeline.paint(known[part], rows.iloc[part], steps=claim.config.sampler_steps)
            with path.with_suffix(".part").open("wb") as handle:
                np.save(handle, made.astype(np.float16), allow_pickle=False)
            os.replace(path.with_suffix(".part"), path)
        tell(part.stop, len(rows))


def forget_pictures(out: Path) -> None:
    """Remove painted blocks that have been measured."""
    shutil.rmtree(out, ignore_errors=True)


def budget(claim: Claim) -> dict[str, Any]:
    """What each of the diffusion models was given, for the report."""
    unet, _, training = recipe_of(claim, "aware", claim.config.seeds[0])
    return {
        "unet widths": list(unet.widths),
        "steps": training.steps,
        "batch": training.batch,
        "steps of the condition encoder": training.statistics_steps,
        "unconditional steps before": claim.config.pretrain_steps,
        "U-Net begins with": claim.config.warm_start or "nothing",
        "seeds": list(claim.config.seeds),
    }
