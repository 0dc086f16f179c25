"""Low-rank fine-tuning of a trained model to a new laboratory or batch (Hu et al. 2021, arXiv:2106.09685), by peft.

A new batch has no embedding and no weights of its own. It gets a row in the vocabulary, begun at the mean of its
source's batches (of all batches for a new source); that row and low-rank changes of the U-Net's linear layers are all
that trains, on the few wells that there are. Everything else stays, so compounds that the new batch never saw keep what
the model knows of them. The result is a whole model folder, changes merged, and the adapter alone beside it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from ldm.autoencoder import GroupAutoencoder
from ldm.checkpoint import write_atomically
from ldm.condition import ConditionEncoder
from ldm.config import ConfigError, read_table
from ldm.data import TrainingData, load_data
from ldm.folder import carry_over
from ldm.intensity import IntensityScale
from ldm.latents import cached_latents
from ldm.objective import DiffusionTraining, TrainingSet, best_device, diffusion_loss
from ldm.pipeline import CellPaintingPipeline
from ldm.prepare import prepare
from ldm.progress import training_bar
from ldm.train_autoencoder import TrainingStopped, learning_rate
from ldm.unet import Denoiser

log = logging.getLogger("dopaint.training")
ADAPTER = "lora.safetensors"


@dataclass(frozen=True)
class LoraTraining:
    """The recipe. base: the model folder that is adapted. rank, alpha: of the low-rank changes, scaled by alpha / rank.
    layers: ends of the names of linear layers that get one. embedding_rate: of the new rows of the vocabularies.
    """

    base: str = "models/simulation-128"
    rank: int = 8
    alpha: float = 8.0
    layers: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "time_emb_proj", "class_embedding.linear_1")
    seed: int = 1
    batch: int = 32
    steps: int = 300
    learning_rate: float = 1e-3
    embedding_rate: float = 1e-2
    warmup_steps: int = 20
    clip: float = 1.0
    threads: int = 0
    log_every: int = 25


def extended(condition: ConditionEncoder, rows: pd.DataFrame) -> ConditionEncoder:
    """The encoder with rows for the sources, batches and plate formats of `rows` that it lacks; what it gives for known
    contexts does not change.

    Raises ConfigError when a known batch stands under another source.
    """
    nested = rows[["source", "batch"]].astype(str).drop_duplicates().sort_values(["source", "batch"])
    known = dict(zip(condition.batches, condition.batch_sources, strict=True))
    for source, batch in nested.itertuples(index=False):
        if known.get(batch, source) != source:
            raise ConfigError(
                f"batch: {batch} under source {source}, the model knows it under {known[batch]}; rename it"
            )
    new = nested[~nested["batch"].isin(condition.batches)]
    sources = (*condition.sources, *sorted(set(new["source"]) - set(condition.sources)))
    formats = (*condition.plate_formats, *sorted(set(rows["plate_format"]) - set(condition.plate_formats)))
    config = dict(condition.config)
    made = ConditionEncoder(
        **{name: value for name, value in config.items() if not name.startswith("_") and name not in _CHANGED},
        sources=sources,
        batches=(*condition.batches, *new["batch"]),
        batch_sources=(*condition.batch_sources, *new["source"]),
        plate_formats=tuple(int(one) for one in formats),
    )
    state = condition.state_dict()
    for name, size, owners in (
        ("source", len(sources), None),
        ("batch", len(made.batches), new["source"].tolist()),
        ("plate_format", len(formats), None),
    ):
        state[f"{name}.weight"] = _grown(state[f"{name}.weight"], size, owners, condition.batch_sources)
    made.load_state_dict(state)
    return made


_CHANGED = ("sources", "batches", "batch_sources", "plate_formats")


def _grown(weight: Tensor, size: int, owners: Sequence[str] | None, sources: Sequence[str]) -> Tensor:
    """Rows added at the end: each the mean of the rows of its owner, or of all rows."""
    rows = [weight]
    for k in range(size - len(weight)):
        siblings = [i for i, s in enumerate(sources) if owners is not None and s == owners[k]]
        rows.append((weight[siblings] if siblings else weight).mean(0, keepdim=True))
    return torch.cat(rows)


def new_rows_only(embedding: nn.Embedding, known: int) -> None:
    """Let only rows from `known` on learn."""
    mask = (torch.arange(embedding.num_embeddings) >= known).float()[:, None]
    embedding.weight.requires_grad_(True)
    embedding.weight.register_hook(lambda grad: grad * mask.to(grad))


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Adapt as the table [lora] of a TOML file says, to the training rows of the data folder; returns `out`/model.
    `start_from` goes before the recipe's base.

    Raises ConfigError, ModelFolderError, TrainingDataError, TrainingStopped.
    """
    config = read_table(config_path, "lora", LoraTraining)
    return run(replace(config, base=str(start_from)) if start_from else config, data, out)


def run(config: LoraTraining, folder: Path, out: Path) -> Path:
    """Adapt and write the model folder and `out`/lora.safetensors."""
    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    pipeline, data = CellPaintingPipeline.from_pretrained(config.base), load_data(folder)
    old = pipeline.condition
    condition = extended(old, data.rows[data.rows["split"] == "train"])
    autoencoder = GroupAutoencoder(pipeline.vae, pipeline.channels)
    device = best_device()
    held = prepare(condition, data, folder, cached_latents(autoencoder, data, out, device=device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        targets = LoraConfig(
            r=config.rank, lora_alpha=config.alpha, target_modules=_layers(pipeline.unet, config.layers)
        )
        adapted = get_peft_model(pipeline.unet, targets)
        net = Denoiser(adapted.base_model.model, condition, held.statistics.shape[1])
    net.to(device)
    condition.requires_grad_(False)
    net.head.requires_grad_(False)
    for name in ("source", "batch", "plate_format"):
        new_rows_only(getattr(condition, name), getattr(old, name).num_embeddings)
    low_rank = [p for p in adapted.parameters() if p.requires_grad]
    rows = [getattr(condition, name).weight for name in ("source", "batch", "plate_format")]
    optimiser = torch.optim.AdamW(
        [{"params": low_rank, "lr": config.learning_rate}, {"params": rows, "lr": config.embedding_rate}],
        weight_decay=0.0,
    )
    log.info(f"{sum(p.numel() for p in low_rank)} low-rank numbers, {len(held.train)} rows, {config.steps} steps")
    _learn(net, held, pipeline, config, optimiser, low_rank + rows)
    net.to("cpu")
    write_atomically(get_peft_model_state_dict(adapted), out / ADAPTER, {"base": config.base})
    pipeline.register_modules(
        unet=adapted.merge_and_unload().requires_grad_(False).eval(), condition=condition.requires_grad_(False).eval()
    )
    pipeline.intensity = joined(pipeline.intensity, IntensityScale.load(folder / "intensity.json"))
    pipeline.known_contexts = _contexts(pipeline.known_contexts, data)
    carry_over(Path(config.base), out / "model")
    pipeline.save_pretrained(out / "model")
    return out / "model"


def _learn(
    net: Denoiser,
    held: TrainingSet,
    pipeline: CellPaintingPipeline,
    config: LoraTraining,
    optimiser: torch.optim.Optimizer,
    parameters: list[Tensor],
) -> None:
    recipe = DiffusionTraining(
        seed=config.seed,
        batch=config.batch,
        statistics_weight=0.0,
        drop_context=0.0,
        drop_everything=0.0,
        drop_each=0.0,
    )
    peak = [group["lr"] for group in optimiser.param_groups]
    with training_bar("adapting") as bar:
        for step in range(config.steps):
            for group, rate in zip(optimiser.param_groups, peak, strict=True):
                group["lr"] = learning_rate(step / config.steps, step, rate, config.warmup_steps)
            optimiser.zero_grad(set_to_none=True)
            loss, _ = diffusion_loss(net, held, pipeline.schedule, recipe, step)
            if not math.isfinite(loss.item()):
                raise TrainingStopped(f"adapting: the loss is {loss.item()} at step {step}; lower learning_rate")
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
            optimiser.step()
            bar((step + 1) / config.steps, 0.0, 0.0, loss.item())
            if (step + 1) % config.log_every == 0:
                log.info(f"step {step + 1} of {config.steps}: loss {loss.item():.4f}")


def _layers(unet: nn.Module, ends: Sequence[str]) -> list[str]:
    """Full names of the linear layers with these ends. Raises ConfigError when there is none."""
    found = [n for n, m in unet.named_modules() if isinstance(m, nn.Linear) and any(n.endswith(end) for end in ends)]
    if not found:
        raise ConfigError(f"layers: no linear layer of the U-Net ends in one of {', '.join(ends)}; name others")
    return found


def joined(model: IntensityScale, data: IntensityScale) -> IntensityScale:
    """The model's scales, with those of sources that only the data have; their grain is the mean of the model's.

    Raises ConfigError for other channels.
    """
    if model.channels != data.channels:
        raise ConfigError(f"channels: the data have {data.channels}, the model {model.channels}; give the same")
    new = [i for i, source in enumerate(data.sources) if source not in model.sources]

    def rows(name: str) -> Tensor:
        theirs = torch.from_numpy(getattr(data, name)[new])
        mine = torch.from_numpy(getattr(model, name))
        if name in ("floor", "slope") and len(new):
            theirs = mine.mean(0, keepdim=True).expand(len(new), -1)
        return torch.cat([mine, theirs])

    return IntensityScale(
        (*model.sources, *(data.sources[i] for i in new)),
        model.channels,
        *(rows(name).numpy() for name in ("low", "high", "floor", "slope")),
    )


def _contexts(known: pd.DataFrame, data: TrainingData) -> pd.DataFrame:
    columns = ["source", "batch", "plate", "plate_format"]
    rows = data.rows[data.rows["split"] == "train"][columns]
    return pd.concat([known[columns], rows]).drop_duplicates().reset_index(drop=True)
