"""Latents of all training pictures, computed once and kept on disk, and the statistics of them that a condition
should predict.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ldm.autoencoder import GroupAutoencoder
from ldm.data import TrainingData, TrainingDataError

log = logging.getLogger("dopaint.training")


def cache_key(autoencoder: GroupAutoencoder, data: TrainingData) -> str:
    """sha256 over the autoencoder's weights, its scale and the table of rows: latents of another autoencoder or of
    other rows are never taken.
    """
    digest = hashlib.sha256()
    for name, tensor in autoencoder.vae.state_dict().items():
        digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    mean, sd = autoencoder.scale()
    digest.update(
        mean.numpy().tobytes() + sd.numpy().tobytes() + repr((autoencoder.channels, data.pictures.shape)).encode()
    )
    digest.update(data.rows.to_csv(index=False).encode())
    return digest.hexdigest()


def cached_latents(
    autoencoder: GroupAutoencoder,
    data: TrainingData,
    folder: Path,
    batch: int = 16,
    report: int = 2000,
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n z y x"]:
    """Normalised latents of all rows, float16 [n, z, y, x], memory-mapped from `folder`/latents.npy, which is made
    if it is not there or does not fit.

    Raises TrainingDataError when the disk has no room for it.
    """
    path, note = folder / "latents.npy", folder / "latents.json"
    key = cache_key(autoencoder, data)
    if not (path.is_file() and note.is_file() and json.loads(note.read_text(encoding="utf-8"))["key"] == key):
        folder.mkdir(parents=True, exist_ok=True)
        height, width = data.pictures.shape[-2] // autoencoder.factor, data.pictures.shape[-1] // autoencoder.factor
        part = path.with_name("latents.part.npy")
        shape = (len(data.rows), autoencoder.latent_channels, height, width)
        try:
            out = np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
            with part.open("r+b") as handle:  # room now, or writing into the map would end the process without a word
                os.posix_fallocate(handle.fileno(), 0, part.stat().st_size)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise TrainingDataError(
                f"latents: {path} could not be made ({error}); {2 * np.prod(shape) / 2**30:.2f} GiB are needed, free "
                "some disk or give another output folder"
            ) from error
        # bfloat16 halves the time on a CPU; its error (a third of a per cent) is far below the noise of the first
        # time step
        kind = torch.device(device).type
        autoencoder.vae.to(device)
        with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16):
            for start in range(0, len(out), batch):
                index = np.arange(start, min(start + batch, len(out)))
                pictures = torch.from_numpy(data.read(index)).to(device)
                out[index] = autoencoder.encode(pictures).half().cpu().numpy()
                if start % report < batch:
                    log.info(f"latents {start} of {len(out)}")
        autoencoder.vae.to("cpu")
        out.flush()
        del out
        os.replace(part, path)
        note.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    stored: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return stored


def latent_statistics(z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s"]:
    """Mean, log sd, log mean-square difference of neighbours (texture: horizontal and vertical) and the lower
    triangle of the channel correlations: [b, 3 c + c (c - 1) / 2].
    """
    c = z.shape[1]
    mean = z.mean(dim=(2, 3))
    centred = z - mean[:, :, None, None]
    sd = centred.pow(2).mean(dim=(2, 3)).add(1e-4).sqrt()
    step = (z[..., 1:] - z[..., :-1]).pow(2).mean(dim=(2, 3)) + (z[..., 1:, :] - z[..., :-1, :]).pow(2).mean(dim=(2, 3))
    flat = (centred / sd[:, :, None, None]).flatten(2)
    correlation = flat @ flat.transpose(1, 2) / flat.shape[-1]
    low = torch.tril_indices(c, c, offset=-1)
    return torch.cat([mean, sd.log(), step.add(1e-4).log(), correlation[:, low[0], low[1]]], dim=1)


def all_statistics(latents: np.ndarray, fitted_on: np.ndarray) -> Float[Tensor, "n s"]:
    """Statistics of all rows, standardised by mean and sd over the rows `fitted_on` and clipped to +-5."""
    parts = [
        latent_statistics(torch.from_numpy(latents[start : start + 1024].astype(np.float32)))
        for start in range(0, len(latents), 1024)
    ]
    values = torch.cat(parts)
    known = values[torch.from_numpy(fitted_on)]
    return ((values - known.mean(dim=0)) / known.std(dim=0).clamp(min=1e-6)).clamp(-5.0, 5.0)
