"""The pipeline that paints: compound vectors and contexts in, pictures in camera units out, and the folder that it is
kept in.

A row of the design determines its picture: the network always runs at one micro-batch and thread count that are
stored in the folder, short batches are padded, no layer mixes rows, and noise comes from the row's seed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from jaxtyping import Float, UInt64
from torch import Tensor

from ldm.autoencoder import GroupAutoencoder
from ldm.cached_attention import cached_attention
from ldm.channels import ChannelGroups
from ldm.condition import ConditionEncoder, Conditions, UnknownContext
from ldm.folder import (
    DECODER,
    ModelFolderError,
    PipelineSettings,
    check_folder,
    forget_origin,
    model_hash,
    read_settings,
    write_settings,
)
from ldm.intensity import IntensityScale
from ldm.sampler import get_sampler, row_noise
from ldm.schedule import Schedule, time_steps
from ldm.sensor import STREAM
from ldm.small_decoder import SmallDecoder
from ldm.unet import predict

__all__ = ["CellPaintingPipeline", "ModelFolderError", "PipelineSettings", "UnknownContext", "model_hash"]

SHARD = "14MB"


@contextmanager
def without_bars() -> Iterator[None]:
    """Load shards without diffusers' progress bars on standard error, which belong to nobody's request."""
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextmanager
def fixed_threads(n: int) -> Iterator[None]:
    """Run torch with n threads, and give back the number that was set before; n = 0 changes nothing."""
    before = torch.get_num_threads()
    if n:
        torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class CellPaintingPipeline(DiffusionPipeline):
    """Conditional latent diffusion of named-channel pictures.

    vae: AutoencoderKL of three-channel groups. unet: the denoiser. condition: tokens of compounds and contexts.
    scheduler: diffusers' record of the schedule. channels, intensity, known_contexts, settings: see their classes;
    known_contexts has the columns source, batch, plate, plate_format. small: the distilled decoder, used when the
    settings say so.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        condition: ConditionEncoder,
        scheduler: DDPMScheduler,
        channels: ChannelGroups,
        intensity: IntensityScale,
        known_contexts: pd.DataFrame,
        settings: PipelineSettings,
        small: SmallDecoder | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, condition=condition, scheduler=scheduler)
        self.channels, self.intensity, self.known_contexts, self.settings = (
            channels,
            intensity,
            known_contexts,
            settings,
        )
        self.schedule = schedule_of(scheduler)
        self.small = small
        self.autoencoder = GroupAutoencoder(vae, channels, small if settings.decoder == "small" else None)
        for module in (vae, unet, condition, *([] if small is None else [small])):
            module.eval().requires_grad_(False)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        side = int(self.unet.config["sample_size"]) * self.autoencoder.factor
        return len(self.channels.names), side, side

    def paint(
        self,
        compound_vectors: Float[np.ndarray, "n d"],
        design_rows: pd.DataFrame,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float = 1.0,
        unconditional: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "n c h w"]:
        """Paint one picture for each row, float32 [n, c, h, w] in camera units [0, 1].

        compound_vectors: one row each. design_rows: source, batch, plate_format, row, column and seed (uint64).
        steps, sampler: None = those of the folder.
        guidance: 1 paints p(picture | compound, context); other scales are for pictures only, not for effects.
        unconditional: ignore compound and context (their null tokens), keep the source's intensity scale. progress:
        called with the number of pictures done so far.

        Raises UnknownContext, ScheduleError (steps or sampler), IntensityError.
        """
        parts = list(
            self.stream(
                compound_vectors,
                design_rows,
                steps=steps,
                sampler=sampler,
                guidance=guidance,
                unconditional=unconditional,
                progress=progress,
            )
        )
        return np.concatenate(parts) if parts else np.zeros((0, *self.picture_shape), dtype=np.float32)

    def stream(
        self,
        compound_vectors: Float[np.ndarray, "n d"],
        design_rows: pd.DataFrame,
        *,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float = 1.0,
        unconditional: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Float[np.ndarray, "m c h w"]]:
        """The same as `paint`, one micro-batch after the other, so that memory does not grow with the design. Rows
        are checked before the first is painted.
        """
        conditions = self.condition.conditions(compound_vectors, design_rows)
        if unconditional:
            conditions = conditions.keeping()
        sources, seeds = design_rows["source"].astype(str).tolist(), design_rows["seed"].to_numpy().astype(np.uint64)
        run = get_sampler(sampler or self.settings.sampler)
        times = time_steps(self.schedule, self.settings.steps if steps is None else steps, self.settings.spacing)
        size = self.settings.micro_batch
        for start in range(0, len(seeds), size):
            index = np.arange(start, min(start + size, len(seeds)))
            padded = np.concatenate([index, np.full(size - len(index), index[0])])
            with fixed_threads(self.settings.threads), torch.no_grad():
                x = self._latents(conditions.rows(torch.from_numpy(padded)), seeds[padded], run, times, guidance)
                pictures = self.autoencoder.decode(x).float().cpu().numpy()[: len(index)]
            yield self._camera(pictures, [sources[i] for i in index], seeds[index])
            if progress is not None:
                progress(int(index[-1]) + 1)

    def compress(self, pictures: Float[np.ndarray, "n c h w"], sources: list[str]) -> Float[np.ndarray, "n c h w"]:
        """Pictures in camera units [0, 1] after the autoencoder alone: encoded, decoded and brought back with the
        camera's grain (noise streams 0, 1, 2, ...), float32.

        What no denoiser of this folder can exceed. Raises IntensityError for an unknown source, ChannelError for
        another number of channels.
        """
        scaled = self.intensity.to_network(pictures, sources)
        parts = []
        for start in range(0, len(scaled), self.settings.micro_batch):
            with fixed_threads(self.settings.threads), torch.no_grad():
                part = torch.from_numpy(scaled[start : start + self.settings.micro_batch]).to(self.device)
                parts.append(self.autoencoder.decode(self.autoencoder.encode(part)).cpu().numpy())
        decoded = np.concatenate(parts) if parts else scaled
        return self._camera(decoded, sources, np.arange(len(decoded), dtype=np.uint64))

    def _camera(
        self, pictures: Float[np.ndarray, "n c h w"], sources: list[str], seeds: UInt64[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n c h w"]:
        """Decoded pictures in camera units, with the grain of the source's camera from each row's own noise."""
        camera = self.intensity.to_camera(pictures, sources)
        if not self.intensity.grainy or not len(camera):
            return camera
        return self.intensity.grain(camera, sources, row_noise(seeds, camera.shape[1:], STREAM).numpy())

    def _latents(
        self, conditions: Conditions, seeds: np.ndarray, run: Any, times: np.ndarray, guidance: float
    ) -> Float[Tensor, "b z y x"]:
        """Sample the latents of one padded micro-batch."""
        side, depth = int(self.unet.config["sample_size"]), int(self.unet.config["in_channels"])
        device = self.device
        conditions = conditions.to(device)
        tokens, pooled = self.condition(conditions)
        free = self.condition(conditions.keeping()) if guidance != 1.0 else None

        def velocity(x: Tensor, t: int) -> Tensor:
            times = torch.full((len(x),), t, dtype=torch.int64, device=device)
            v = predict(self.unet, x, times, tokens, pooled)
            if free is None:
                return v
            plain = predict(self.unet, x, times, *free)
            return plain + guidance * (v - plain)

        def noise(stream: int) -> Tensor:
            return row_noise(seeds, (depth, side, side), stream).to(device)

        with cached_attention(self.unet):
            latents: Tensor = run(velocity, noise(0), self.schedule, times, lambda i: noise(i + 1))
        return latents

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write the model folder: half-precision safetensors in shards of at most 14 MB, configurations,
        intensity.json, contexts.parquet, dopaint.json with the sha256 of each file.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("vae", "unet", "condition"):
            for old in (folder / name).glob("*.safetensors*"):
                old.unlink()
        parts = {"vae": self.vae, "unet": self.unet, "condition": self.condition}
        for name, module in (parts if self.small is None else parts | {DECODER: self.small}).items():
            half = copy.deepcopy(module).cpu().half()
            half.save_pretrained(folder / name, safe_serialization=True, max_shard_size=SHARD)
        self.scheduler.save_pretrained(folder / "scheduler")
        self.save_config(folder)
        for written in (*folder.glob("*/*config.json"), folder / "model_index.json"):
            forget_origin(written)
        self.intensity.save(folder / "intensity.json")
        self.known_contexts.to_parquet(folder / "contexts.parquet", index=False)
        write_settings(folder, self.settings, self.channels)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_: Any) -> CellPaintingPipeline:
        """Read a model folder; weights are stored in half precision and computed with in float32.

        Raises ModelFolderError, naming the file, when the folder or a file is missing, a file is damaged or changed,
        does not fit its configuration, or is not safetensors.
        """
        folder = Path(folder)
        check_folder(folder)
        settings, channels = read_settings(folder)
        modules: dict[str, Any] = {}
        kinds = [("vae", AutoencoderKL), ("unet", UNet2DConditionModel), ("condition", ConditionEncoder)]
        if (folder / DECODER).is_dir():
            kinds.append((DECODER, SmallDecoder))
        elif settings.decoder == "small":
            raise ModelFolderError(
                f"model folder: {folder} lacks {DECODER}, which its settings name; get the folder again"
            )
        for name, kind in kinds:
            try:
                with without_bars():
                    modules[name] = kind.from_pretrained(
                        folder / name, use_safetensors=True, torch_dtype=torch.float32, low_cpu_mem_usage=False
                    )
            except (RuntimeError, ValueError, OSError, KeyError) as error:
                reason = str(error).strip().splitlines()[0]
                raise ModelFolderError(
                    f"model folder: {folder / name} cannot be loaded ({reason}); get the folder again"
                ) from error
        small = modules.pop(DECODER, None)
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        contexts = pd.read_parquet(folder / "contexts.parquet")
        return cls(
            **modules,
            scheduler=scheduler,
            channels=channels,
            intensity=IntensityScale.load(folder / "intensity.json"),
            known_contexts=contexts,
            settings=settings,
            small=small,
        )


def schedule_of(scheduler: DDPMScheduler) -> Schedule:
    """Our schedule from diffusers' record. Raises ModelFolderError when it is not scaled-linear v-prediction."""
    kind = (scheduler.config["beta_schedule"], scheduler.config["prediction_type"])
    if kind != ("scaled_linear", "v_prediction"):
        raise ModelFolderError(
            f"scheduler: got {kind}, expected ('scaled_linear', 'v_prediction'); this room knows no other"
        )
    return Schedule(
        int(scheduler.config["num_train_timesteps"]),
        float(scheduler.config["beta_start"]),
        float(scheduler.config["beta_end"]),
    )


def scheduler_of(schedule: Schedule) -> DDPMScheduler:
    """Diffusers' record of our schedule."""
    return DDPMScheduler(
        num_train_timesteps=schedule.steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
