"""PhenoProfiler's training: regress the profile of each picture, then regress, classify and match together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from profiling.embedders.data import InvalidTrainingData
from profiling.embedders.methods.method import Batch, Method, Sources
from profiling.embedders.networks.phenoprofiler import PhenoNetwork, resized
from profiling.embedders.objectives.phenotype import total
from profiling.embedders.recipe import InvalidRecipe


@dataclass(frozen=True)
class PhenoObjective:
    """`classification`, `regression`, `matching`: λ1 to λ3, 0 leaves a loss out (the ablations). `alone`: share of the
    run with the regression alone (100 of 200 epochs). `label`: columns that make a treatment."""

    kind: str = "phenoprofiler"
    classification: float = 0.1
    regression: float = 100.0
    matching: float = 1.0
    temperature: float = 1.0
    alone: float = 0.5
    label: tuple[str, ...] = ("compound",)
    flips: bool = True

    def __post_init__(self) -> None:
        if min(self.classification, self.regression, self.matching) < 0.0 or self.temperature <= 0.0:
            raise InvalidRecipe(
                f"objective: weights {self.classification}, {self.regression}, {self.matching} and temperature "
                f"{self.temperature}; expected 0 or more, and above 0"
            )
        if not 0.0 <= self.alone <= 1.0 or self.classification + self.regression + self.matching == 0.0:
            raise InvalidRecipe(f"objective: alone is {self.alone}, expected 0 to 1, and one weight above 0")


class PhenoMethod(Method):
    """The network, a linear head for treatments, and the scale of the profiles (mean and deviation over training)."""

    mean: Tensor
    sd: Tensor

    def __init__(self, encoder: PhenoNetwork, config: PhenoObjective, sources: Sources, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.encoder = encoder
        targets = sources.data.targets
        if targets.shape[1] != encoder.config.out:
            raise InvalidTrainingData(
                f"training data: profiles of {targets.shape[1]} features for a representation of {encoder.config.out}; "
                "make targets.npy with dopaint embedders targets, or change network.out"
            )
        self.labels = sources.data.codes(*config.label)
        self.classifier = nn.Linear(encoder.config.out, int(self.labels.max()) + 1)
        train = targets[sources.rows].astype(np.float64)
        sd = train.std(axis=0)
        self.register_buffer("mean", torch.from_numpy(train.mean(axis=0).astype(np.float32)))
        self.register_buffer("sd", torch.from_numpy(np.where(sd > 0, sd, 1.0).astype(np.float32)))

    def batch(self, sources: Sources, b: int, rng: np.random.Generator) -> tuple[Batch, tuple[str, ...]]:
        """Whole pictures, resized, mirrored at random; their profiles and treatments."""
        rows = sources.pick(b, rng)
        x = resized(
            torch.from_numpy(np.stack([sources.data.read(int(r))[sources.data.places] for r in rows])), self.size
        )
        if self.config.flips:
            flips = rng.integers(0, 2, (b, 2))
            for axis in (2, 3):
                mirrored = torch.from_numpy(flips[:, axis - 2] == 1)
                x = torch.where(mirrored[:, None, None, None], x.flip(axis), x)
        profile = (torch.from_numpy(sources.data.targets[rows]) - self.mean.cpu()) / self.sd.cpu()
        out: Batch = {"pictures": x, "profile": profile, "labels": torch.from_numpy(self.labels[rows])}
        return out, sources.data.learned

    def forward(self, batch: Batch, channels: tuple[str, ...], fraction: float) -> dict[str, Tensor]:
        """The regression alone until `alone`, then all three losses."""
        del channels
        config = self.config
        said = self.encoder(batch["pictures"])
        joint = fraction >= config.alone or config.regression == 0.0
        first = config.classification if joint else 0.0
        last = config.matching if joint else 0.0
        return total(
            self.classifier(said),
            batch["labels"],
            said,
            batch["profile"],
            (first, config.regression, last),
            config.temperature,
        )
