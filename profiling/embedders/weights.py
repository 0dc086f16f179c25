"""The folder of a trained embedder, and the checkpoint of its training: safetensors, a hash, nothing pickled.

embedder.json         engine, network, crops, channels, what it was trained on; sha256 of the weights; free facts
weights.safetensors   what is needed to read pictures, and no more

Both are written beside their final name and renamed, so a full disk leaves the earlier one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from profiling.embedders.embedding import InvalidEmbedder

CARD, WEIGHTS = "embedder.json", "weights.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz")


class InvalidWeights(InvalidEmbedder):
    """Weights that are missing, damaged, changed, not safetensors, or of another network."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: optimiser steps, seconds of training, the recipe it runs under as text."""

    step: int
    seconds: float
    recipe: str


def write_whole(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file beside `path` and rename it. Raises InvalidWeights when the disk refuses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(own, part, metadata=dict(metadata))
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise InvalidWeights(f"weights: {path} could not be written ({error}); free some disk and try again") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises InvalidWeights for anything else."""
    if path.suffix in PICKLES:
        raise InvalidWeights(f"weights: {path} is not safetensors and is never opened; convert it first")
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InvalidWeights(f"weights: {path} is not a whole safetensors file ({error}); get it again") from error


def fit(module: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Load tensors into a module of exactly these names and shapes. Raises InvalidWeights naming the first misfit."""
    wanted = module.state_dict()
    if odd := sorted(set(wanted) ^ set(tensors)):
        kind = "lacks" if odd[0] in wanted else "has, and the network does not,"
        raise InvalidWeights(f"weights: {where} {kind} {odd[0]} ({len(odd)} names differ); it is of another network")
    for name, t in tensors.items():
        if wanted[name].shape != t.shape:
            raise InvalidWeights(
                f"weights: {name} of {where} is {list(t.shape)}, the network wants {list(wanted[name].shape)}; it is "
                "of another size"
            )
    module.load_state_dict(dict(tensors))


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def save_folder(folder: Path, module: nn.Module, card: Mapping[str, Any]) -> None:
    """Write the folder of a trained embedder; `card` is what embedder.json says beside the hash."""
    write_whole(module.state_dict(), folder / WEIGHTS, {"engine": str(card["engine"])})
    content = {**card, "sha256": file_hash(folder / WEIGHTS)}
    part = folder / (CARD + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(part, folder / CARD)


def read_card(folder: Path, engine: str | None = None) -> dict[str, Any]:
    """embedder.json of a folder whose weights are what was written.

    Raises InvalidWeights when a file is missing or changed, or when it is the folder of another engine.
    """
    for name in (CARD, WEIGHTS):
        if not (folder / name).is_file():
            raise InvalidWeights(f"weights: {folder} has no {name}; give a folder that `dopaint train` made")
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InvalidWeights(f"weights: {folder / CARD} is not JSON ({error}); get the folder again") from error
    if card.get("sha256") != file_hash(folder / WEIGHTS):
        raise InvalidWeights(f"weights: {folder / WEIGHTS} is not what {CARD} describes; get the folder again")
    if engine is not None and card.get("engine") != engine:
        raise InvalidWeights(
            f"weights: {folder} is of engine {card.get('engine')!r}, not {engine!r}; name the other engine, or give "
            "another folder"
        )
    return card


def load_into(folder: Path, module: nn.Module) -> None:
    """Weights of a folder into a module of their shape."""
    tensors, _ = read_tensors(folder / WEIGHTS)
    fit(module, tensors, folder / WEIGHTS)


def folder_hash(card: Mapping[str, Any], revision: int) -> str:
    """sha256 of everything that determines a number: weights, network, crops, channels, and the code's revision."""
    content = {k: card[k] for k in ("engine", "network", "crops", "channels", "reading", "sha256") if k in card}
    return hashlib.sha256(json.dumps([revision, content], sort_keys=True).encode()).hexdigest()


def save_checkpoint(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """The whole state of a run: weights, buffers, the optimiser's moments, progress."""
    tensors = {f"module.{name}": t for name, t in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    write_whole(tensors, path, {"progress": json.dumps(asdict(progress))})


def load_checkpoint(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, recipe: str) -> Progress:
    """Bring a run back to where its checkpoint left it. Raises InvalidWeights, also for another recipe."""
    tensors, metadata = read_tensors(path)
    if "progress" not in metadata:
        raise InvalidWeights(f"checkpoint: {path} holds no progress; expected a file written by dopaint train")
    progress = Progress(**json.loads(metadata["progress"]))
    if progress.recipe != recipe:
        raise InvalidWeights(
            f"checkpoint: {path} was made under another recipe; use that one, or another output folder"
        )
    fit(module, {n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")}, path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return progress
