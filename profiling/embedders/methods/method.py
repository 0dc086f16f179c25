"""What every way of training shares: it samples cells, has a loss, and keeps an encoder that reads pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from profiling.embedders.cells import CropConfig
from profiling.embedders.data import Cells, InvalidTrainingData, TrainingPictures
from profiling.embedders.networks.build import BagOfChannels, Encoder

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Sources:
    """What a step draws from: pictures, their cells, the rows of the split that have any, and the crops."""

    data: TrainingPictures
    cells: Cells
    rows: Int[np.ndarray, " m"]
    crops: CropConfig

    def draw(
        self, rows: Int[np.ndarray, " b"], rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "b 2"], Float[np.ndarray, " b"]]:
        """A random cell and a random scale of each row: centres, sides (CHAMMI-75's sampling after the picture)."""
        centres = self.cells.one_each(rows, rng)
        scales = np.asarray(self.crops.scales, np.float64)
        return centres, scales[rng.integers(0, len(scales), len(rows))]

    def pick(self, b: int, rng: np.random.Generator) -> Int[np.ndarray, " b"]:
        """Random pictures."""
        return self.rows[rng.integers(0, len(self.rows), b)]


def sources(data: TrainingPictures, cells: Cells, split: str, crops: CropConfig) -> Sources:
    """The rows of a split that have a cell. Raises InvalidTrainingData where there are fewer than two."""
    rows = np.intersect1d(data.split(split), cells.with_cells)
    if len(rows) < 2:
        raise InvalidTrainingData(
            f"training data: {len(rows)} pictures of the split {split!r} have a detected cell, expected at least 2; "
            "check crops.nuclei and crops.diameter"
        )
    return Sources(data, cells, rows, crops)


def choose_channels(
    data: TrainingPictures, b: int, encoder: Encoder, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "b c"], tuple[str, ...]]:
    """Which channels the encoder learns from: one random channel a picture for a bag of channels (unnamed); for
    attention among channels the same random subset of all for the whole batch (hierarchical channel sampling)."""
    places = data.places
    n = len(places)
    if isinstance(encoder, BagOfChannels):
        return places[rng.integers(0, n, (b, 1))], ("",)
    chosen = places[np.sort(rng.permutation(n)[: rng.integers(1, n + 1)])]
    return np.tile(chosen, (b, 1)), tuple(data.channels[i] for i in chosen)


class Method(nn.Module, ABC):
    """`encoder` is what is kept. `batch` draws what `forward` needs from a generator alone, so that a run is a function
    of its seed; `forward` gives the losses by name, "loss" their sum; `followed` is what happens after a step."""

    encoder: Any  # an Encoder, or a PhenoNetwork

    @abstractmethod
    def batch(self, sources: Sources, b: int, rng: np.random.Generator) -> tuple[Batch, tuple[str, ...]]:
        """Tensors of one step, and the names of the channels in them."""

    @abstractmethod
    def forward(self, batch: Batch, channels: tuple[str, ...], fraction: float) -> dict[str, Tensor]:
        """Losses; `fraction` is the share of the run that is done."""

    def followed(self, fraction: float) -> None:
        """After an optimiser step."""
        del fraction

    def learned(self) -> list[nn.Parameter]:
        """What the optimiser sets."""
        return [p for p in self.parameters() if p.requires_grad]


def frozen(module: nn.Module) -> nn.Module:
    """The module without gradients, in evaluation mode."""
    for p in module.parameters():
        p.requires_grad_(False)
    return module.eval()


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator that is a function of `rng`'s state."""
    return torch.Generator().manual_seed(int(rng.integers(0, 2**62)))
