"""Training the decoder of a finished autoencoder again, its encoder frozen: latents, and every U-Net trained on them,
stay valid.

The losses stand on the decoder's pictures with the camera's noise (`ldm.texture_losses`, `ldm.sensor.camera_noise`), so
that it need not paint noise. Whoever writes a model folder measures anew what the refined decoder still lacks.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ldm.autoencoder import GroupAutoencoder
from ldm.config import described, read_table
from ldm.data import TrainingData, load_data, philox
from ldm.fit import Budget, fit
from ldm.intensity import IntensityScale
from ldm.latents import cached_latents
from ldm.sensor import camera_noise, fit_grain
from ldm.texture_losses import covariance_loss, granular_loss, with_grain
from ldm.train_autoencoder import contrast_loss, gradient_loss

log = logging.getLogger("dopaint.training")


@dataclass(frozen=True)
class DecoderRefinement(Budget):
    """The recipe. autoencoder: folder of the finished autoencoder. batch: whole pictures. windows: sides, in pixels, of
    the windows whose covariances are compared. grains: erosions of the granular spectrum. *_weight: shares of the loss
    beside L1, which has 1.
    """

    autoencoder: str = "models/simulation-128/vae"
    batch: int = 8
    steps: int = 20000
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    weight_decay: float = 1e-4
    ema_decay: float = 0.995
    threads: int = 2
    gradient_weight: float = 0.5
    contrast_weight: float = 1.0
    covariance_weight: float = 0.1
    granular_weight: float = 1.0
    scales: int = 3
    windows: tuple[int, ...] = (8, 16)
    grains: tuple[int, ...] = (1, 2, 4)
    bfloat16: bool = True


@dataclass(frozen=True)
class Camera:
    """What makes network units of camera units and grain, [sources, channels, 1, 1] each; see IntensityScale."""

    sources: tuple[str, ...]
    low: Float[Tensor, "s c 1 1"]
    high: Float[Tensor, "s c 1 1"]
    floor: Float[Tensor, "s c 1 1"]
    slope: Float[Tensor, "s c 1 1"]

    @classmethod
    def of(cls, scale: IntensityScale) -> Camera:
        """Of an intensity scale with grain."""
        parts = (
            torch.from_numpy(np.asarray(getattr(scale, name), np.float32))[:, :, None, None]
            for name in ("low", "high", "floor", "slope")
        )
        return cls(scale.sources, *parts)

    def grainy(
        self, pictures: Float[Tensor, "b c h w"], sources: list[str], noise: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Pictures in [-1, 1] with the grain of their sources."""
        at = [self.sources.index(name) for name in sources]
        return with_grain(pictures, self.low[at], self.high[at], self.floor[at], self.slope[at], noise)


def refinement_losses(
    x: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    grainy: Float[Tensor, "b c h w"],
    config: DecoderRefinement,
) -> dict[str, Float[Tensor, ""]]:
    """All parts of the loss between pictures x and decoded ones, y without and `grainy` with noise; "loss" is their
    weighted sum.
    """
    parts = {
        "l1": (x - y).abs().mean(),
        "gradient": gradient_loss(x, y, config.scales),
        "contrast": contrast_loss(x, grainy, config.scales),
        "covariance": covariance_loss(x, grainy, config.windows),
        "granular": granular_loss(x, grainy, config.grains),
    }
    parts["loss"] = (
        parts["l1"]
        + config.gradient_weight * parts["gradient"]
        + config.contrast_weight * parts["contrast"]
        + config.covariance_weight * parts["covariance"]
        + config.granular_weight * parts["granular"]
    )
    return parts


def freeze_encoder(autoencoder: GroupAutoencoder) -> list[torch.nn.Parameter]:
    """Leave gradients to the decoder alone; returns its parameters."""
    vae = autoencoder.vae
    vae.requires_grad_(False)
    parts = (vae.decoder, *([] if vae.post_quant_conv is None else [vae.post_quant_conv]))
    return [p.requires_grad_(True) for part in parts for p in part.parameters()]


def batch_losses(
    autoencoder: GroupAutoencoder,
    data: TrainingData,
    latents: np.ndarray,
    rows: np.ndarray,
    camera: Camera,
    config: DecoderRefinement,
    rng: np.random.Generator,
) -> dict[str, Float[Tensor, ""]]:
    """Losses of these rows; `rng` makes the grain."""
    x = torch.from_numpy(data.read(rows))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.bfloat16):
        y = autoencoder.decode(torch.from_numpy(latents[rows].astype(np.float32)))
    y = y.float()
    noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    sources = data.rows["source"].astype(str).iloc[rows].tolist()
    return refinement_losses(x, y, camera.grainy(y, sources, noise), config)


def train(config_path: Path, data: Path, out: Path, start_from: Path | None = None) -> Path:
    """Refine as the table [decoder_refinement] of a TOML file says; returns the folder `out`/vae. `start_from` goes
    before the recipe's autoencoder.

    The same command goes on after an interruption. Raises ConfigError, AutoencoderError, TrainingDataError,
    CheckpointError, TrainingStopped.
    """
    config = read_table(config_path, "decoder_refinement", DecoderRefinement)
    return run(replace(config, autoencoder=str(start_from)) if start_from else config, data, out)


def run(config: DecoderRefinement, folder: Path, out: Path, stop_at: int | None = None) -> Path:
    """Train; `stop_at` ends the run after that many steps, as an interruption would."""
    if config.threads:
        torch.set_num_threads(config.threads)
    out.mkdir(parents=True, exist_ok=True)
    autoencoder, data = GroupAutoencoder.load(Path(config.autoencoder)), load_data(folder)
    latents = cached_latents(autoencoder, data, out)
    camera = Camera.of(camera_noise(data, IntensityScale.load(folder / "intensity.json")))
    index, held = data.indices("train"), data.indices("val")[: 4 * config.batch]

    def loss(step: int) -> Float[Tensor, ""]:
        rng = philox(config.seed, step, 7)
        rows = rng.choice(index, config.batch)
        return batch_losses(autoencoder, data, latents, rows, camera, config, rng)["loss"]

    @torch.no_grad()
    def report(step: int) -> str:
        told = [
            batch_losses(autoencoder, data, latents, some, camera, config, philox(config.seed, k, 8))
            for k, some in enumerate(np.array_split(held, 4))
            if len(some)
        ]
        if not told:
            return ""
        return ", held out: " + " ".join(f"{n} {np.mean([float(one[n]) for one in told]):.4f}" for n in told[0])

    done = fit(
        "decoder",
        autoencoder.vae,
        freeze_encoder(autoencoder),
        loss,
        config,
        out / "refinement.safetensors",
        described(config),
        stop_at,
        report=report,
    )
    if not done:
        return out
    autoencoder.vae.eval().requires_grad_(False)
    autoencoder.save(out / "vae")
    return out / "vae"


def install(model: Path, refined: Path, data: Path, out: Path) -> Path:
    """A copy of a model folder with the refined decoder and its grain, measured on the training folder `data`.

    Raises ModelFolderError for a model that is damaged, AutoencoderError for an autoencoder that is missing or has
    another encoder than the model.
    """
    from ldm.autoencoder import AutoencoderError
    from ldm.folder import carry_over
    from ldm.pipeline import CellPaintingPipeline

    pipeline, autoencoder = CellPaintingPipeline.from_pretrained(model), GroupAutoencoder.load(refined)
    ours, theirs = autoencoder.vae.state_dict(), pipeline.vae.state_dict()
    for name, tensor in theirs.items():
        frozen = not name.startswith(("decoder.", "post_quant_conv."))
        # model folders hold half precision, whose spacing is 5e-4 of a number
        if name not in ours or (frozen and not torch.allclose(ours[name], tensor, rtol=1e-3, atol=1e-6)):
            raise AutoencoderError(
                f"autoencoder: {refined} differs from the model's at {name}; refine the decoder of the model's own "
                "autoencoder"
            )
    pipeline.register_modules(vae=autoencoder.vae)
    scale = IntensityScale.load(data / "intensity.json")
    pipeline.intensity = fit_grain(autoencoder, load_data(data), scale)
    carry_over(model, out)
    pipeline.save_pretrained(out)
    return out


def main() -> None:
    """python -m ldm.refine_decoder MODEL REFINED --data DIR --out DIR"""
    parser = argparse.ArgumentParser(description="Put a refined decoder into a copy of a model folder.")
    parser.add_argument("model", type=Path)
    parser.add_argument("refined", type=Path, help="folder of the refined autoencoder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    log.info("%s", install(args.model, args.refined, args.data, args.out))


if __name__ == "__main__":
    main()
