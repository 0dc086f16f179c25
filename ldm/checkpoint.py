"""Checkpoints that are written whole or not at all, and that a run goes on from as if it had never stopped.

A checkpoint is one safetensors file: weights, their moving average, AdamW's moments and step counts, and the progress
as text in the header, with a sha256 of all tensors. It is written beside its final name and renamed, so a stopped or
full disk leaves the earlier one.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ldm.pieces import here, whole


class CheckpointError(ValueError):
    """Raised when a checkpoint cannot be read, belongs to another network, or cannot be written."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimiser steps done, seconds of training so far, and the configuration it runs under (as
    text, compared on resume).
    """

    step: int
    seconds: float
    config: str


class Ema:
    """Exponential moving average of the trainable weights: average <- decay * average + (1 - decay) * weight, with
    a warm-up (1 + n) / (10 + n).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimiser step `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        names = list(self.average)
        weights = dict(module.named_parameters())
        torch._foreach_lerp_(
            [here(self.average[n]) for n in names], [here(weights[n].detach()) for n in names], 1.0 - decay
        )

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into a module of the same shape."""
        for name, p in module.named_parameters():
            p.copy_(self.average[name])

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange averages and weights; calling it twice changes nothing."""
        for name, p in module.named_parameters():
            kept = p.detach().clone()
            p.copy_(self.average[name])
            self.average[name] = kept


def write_atomically(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file beside `path` and rename it. Raises CheckpointError when the disk refuses; the
    earlier file then stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, part, metadata=metadata)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint: {path} could not be written ({error}); the earlier checkpoint is untouched, free some disk "
            "and start the same command again"
        ) from error


def digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over names and bytes of tensors, in order of their names."""
    whole = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
        whole.update(name.encode() + flat.numpy().tobytes())
    return whole.hexdigest()


def save_checkpoint(
    path: Path,
    module: nn.Module,
    ema: Ema,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    write: bool = True,
) -> None:
    """Write the whole state of a run. Where it is cut over processes all of them must call this, and one must `write`.

    Raises CheckpointError when the disk refuses.
    """
    tensors: dict[str, Tensor] = {f"weights.{n}": whole(p) for n, p in module.state_dict().items()}
    tensors |= {f"ema.{n}": whole(t) for n, t in ema.average.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": whole(torch.as_tensor(value)) for key, value in state.items()}
    if not write:
        return
    write_atomically(tensors, path, {"progress": json.dumps(asdict(progress)), "sha256": digest(tensors)})


def load_checkpoint(path: Path, module: nn.Module, ema: Ema, optimiser: torch.optim.Optimizer, config: str) -> Progress:
    """Bring a run back to where its checkpoint left it; returns the progress.

    Raises CheckpointError, naming the file, when it is no whole safetensors file, when a bit of it is not what was
    written, when it was made under another configuration, or when a tensor is missing or has another shape.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint: {path} is not a whole safetensors file ({error}); delete it to start again, or bring back a "
            "copy"
        ) from error
    if "progress" not in metadata:
        raise CheckpointError(f"checkpoint: {path} holds no progress; expected a file written by dopaint train")
    if "sha256" in metadata and metadata["sha256"] != digest(tensors):
        raise CheckpointError(
            f"checkpoint: {path} is not what was written (the sha256 of its tensors differs); delete it to start "
            "again, or bring back a copy"
        )
    progress = Progress(**json.loads(metadata["progress"]))
    if progress.config != config:
        raise CheckpointError(
            f"checkpoint: {path} was made under another configuration; use its configuration or another output folder"
        )
    states: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        states[part][rest] = tensor
    for part, wanted in (("weights", dict(module.state_dict())), ("ema", ema.average)):
        have = states[part]
        wrong = sorted(n for n in set(wanted) ^ set(have)) or sorted(
            n for n in wanted if wanted[n].shape != have[n].shape
        )
        if wrong:
            raise CheckpointError(
                f"checkpoint: {path} does not fit the network at {wrong[0]} ({len(wrong)} tensors); use the "
                "configuration that it was made with"
            )
    module.load_state_dict(states["weights"])
    ema.average = {name: states["ema"][name].to(old.device, copy=True) for name, old in ema.average.items()}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in states["optimiser"].items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress
