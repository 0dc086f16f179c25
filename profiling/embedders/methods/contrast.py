"""SimCLR: two views of a cell find each other in the batch; SupCon: cells of one compound do (weak supervision)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from profiling.embedders.augment import Augmentation, view
from profiling.embedders.data import stacked
from profiling.embedders.methods.method import Batch, Method, Sources, choose_channels
from profiling.embedders.networks.build import Encoder
from profiling.embedders.networks.heads import Projector
from profiling.embedders.objectives.contrastive import nt_xent, supcon
from profiling.embedders.recipe import InvalidRecipe


@dataclass(frozen=True)
class ContrastConfig:
    """`kind`: "simclr" or "supcon". `label`: columns that make a label for SupCon; `per_label`: cells of each label in
    a batch (it needs pairs). `area`, `blur`, `gamma`, `noise`: augmentations."""

    kind: str = "simclr"
    temperature: float = 0.2
    hidden: int = 256
    out: int = 64
    label: tuple[str, ...] = ("compound",)
    per_label: int = 4
    area: tuple[float, ...] = (0.2, 1.0)
    blur: float = 0.5
    sigma: tuple[float, ...] = (0.1, 1.5)
    gamma: float = 1.0
    noise: float = 0.0
    augmentation: Augmentation = field(init=False)

    def __post_init__(self) -> None:
        if self.temperature <= 0.0 or self.per_label < 1:
            raise InvalidRecipe(
                f"objective: temperature {self.temperature} and per_label {self.per_label}; expected above 0 and "
                "at least 1"
            )
        drawn = Augmentation(self.area, blur=self.blur, sigma=self.sigma, gamma=self.gamma, noise=self.noise)
        object.__setattr__(self, "augmentation", drawn)


class ContrastMethod(Method):
    """Encoder and projector; the encoder is kept."""

    def __init__(self, encoder: Encoder, config: ContrastConfig, sources: Sources, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.encoder = encoder
        self.projector = Projector(encoder.vit.dim, config.hidden, config.out)
        self.labels = sources.data.codes(*config.label) if config.kind == "supcon" else None

    def batch(self, sources: Sources, b: int, rng: np.random.Generator) -> tuple[Batch, tuple[str, ...]]:
        """Two views of b cells, first all first ones; for SupCon their labels."""
        rows = sources.pick(b, rng) if self.labels is None else self._grouped(sources, b, rng)
        own, channels = choose_channels(sources.data, len(rows), self.encoder, rng)
        x = stacked(sources.data, rows, own)
        centres, sides = sources.draw(rows, rng)
        views = [view(x, centres, sides, self.size, self.config.augmentation, rng) for _ in range(2)]
        out: Batch = {"views": torch.cat(views)}
        if self.labels is not None:
            out["labels"] = torch.from_numpy(self.labels[np.concatenate([rows, rows])])
        return out, channels

    def _grouped(self, sources: Sources, b: int, rng: np.random.Generator) -> np.ndarray:
        """`per_label` pictures of each of b / per_label random labels."""
        assert self.labels is not None
        own = self.labels[sources.rows]
        chosen = rng.choice(np.unique(own), max(1, b // self.config.per_label))
        return np.concatenate(
            [sources.rows[rng.choice(np.flatnonzero(own == label), self.config.per_label)] for label in chosen]
        )[:b]

    def forward(self, batch: Batch, channels: tuple[str, ...], fraction: float) -> dict[str, Tensor]:
        """NT-Xent, or the supervised contrastive loss."""
        del fraction
        z = self.projector(self.encoder.embed(batch["views"], channels))
        if "labels" in batch:
            loss = supcon(z, batch["labels"], self.config.temperature)
        else:
            one, other = z.chunk(2)
            loss = nt_xent(one, other, self.config.temperature)
        return {"loss": loss}
