"""DINO on crops of cells, with what the brightfield paper adds to it: Barlow Twins, cross-batch crops, focal planes.

Plain (CHAMMI-75): two global and several local crops of one cell, of one channel (bag of channels) or of all.
Cross-batch (Haslum et al.): the two global crops come from two replicates of the same compound, dose and time in
different batches, and each of the two pictures gives its own local crops. `planes` says which channel a crop shows
where channels are focal planes: "any" draws one for every crop (plane-agnostic); a name takes that one always;
"" leaves the choice to the method (a random channel a cell).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from profiling.embedders.augment import Augmentation, view
from profiling.embedders.data import InvalidTrainingData, stacked
from profiling.embedders.methods.method import Batch, Method, Sources, choose_channels, frozen
from profiling.embedders.networks.build import Encoder
from profiling.embedders.networks.heads import DinoHead, Projector
from profiling.embedders.objectives.barlow import barlow_loss
from profiling.embedders.objectives.dino import dino_loss, follow, next_centre, rising, warmed
from profiling.embedders.recipe import InvalidRecipe

ANY = "any"
REPLICATE = ("compound", "dose", "hours", "cell_line")


@dataclass(frozen=True)
class DinoConfig:
    """`local_crops`: of each picture that gives a global crop when `cross_batch`, else of the cell. `local_size`:
    pixels. `momentum`: of the teacher, rising to 1. Temperatures as DINO's. `warm`: share of the run over which the
    teacher's temperature rises. `barlow`: weight beside DINO's loss of 1; `off_diagonal`: Barlow Twins' λ.
    `blur`, `gamma`, `noise`: augmentations of all crops (`augment.Augmentation`)."""

    kind: str = "dino"
    prototypes: int = 512
    hidden: int = 256
    bottleneck: int = 128
    local_crops: int = 4
    local_size: int = 32
    global_area: tuple[float, ...] = (0.4, 1.0)
    local_area: tuple[float, ...] = (0.05, 0.4)
    momentum: float = 0.99
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    last_temperature: float = 0.07
    warm: float = 0.3
    barlow: float = 0.0
    off_diagonal: float = 0.5
    cross_batch: bool = False
    planes: str = ""
    blur: float = 0.0
    sigma: tuple[float, ...] = (0.1, 1.5)
    gamma: float = 1.0
    noise: float = 0.0
    global_: Augmentation = field(init=False)
    local_: Augmentation = field(init=False)

    def __post_init__(self) -> None:
        if self.local_crops < 0 or self.prototypes < 2 or not 0.0 <= self.momentum <= 1.0:
            raise InvalidRecipe(
                f"objective: local_crops {self.local_crops}, prototypes {self.prototypes}, momentum {self.momentum}; "
                "expected at least 0, at least 2, and 0 to 1"
            )
        plain = Augmentation(self.global_area, blur=self.blur, sigma=self.sigma, gamma=self.gamma, noise=self.noise)
        object.__setattr__(self, "global_", plain)
        object.__setattr__(self, "local_", replace(plain, area=self.local_area))


class Tower(nn.Module):
    """An encoder, DINO's head on it and, where Barlow Twins takes part, its projector."""

    def __init__(self, encoder: Encoder, dim: int, config: DinoConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = DinoHead(dim, config.prototypes, config.hidden, config.bottleneck)
        self.projector = Projector(dim, config.hidden, config.hidden) if config.barlow else None


class DinoMethod(Method):
    """Student and teacher; the teacher's encoder is what is kept."""

    centre: Tensor

    def __init__(self, encoder: Encoder, config: DinoConfig, sources: Sources, size: int) -> None:
        super().__init__()
        self.config, self.size = config, size
        self.student = Tower(encoder, encoder.vit.dim, config)
        self.teacher = frozen(copy.deepcopy(self.student))
        self.register_buffer("centre", torch.zeros(1, config.prototypes))
        if config.planes not in ("", ANY, *sources.data.channels):
            raise InvalidRecipe(
                f"objective: planes is {config.planes!r}, expected any, or one of {', '.join(sources.data.channels)}"
            )
        self.partners = partners(sources) if config.cross_batch else None

    @property
    def encoder(self) -> Encoder:
        """The teacher's."""
        teacher = self.teacher
        assert isinstance(teacher, Tower)
        return teacher.encoder

    def batch(self, sources: Sources, b: int, rng: np.random.Generator) -> tuple[Batch, tuple[str, ...]]:
        """Global crops [2 b, c, s, s] (first, then second of every row) and local ones, crop by crop."""
        config = self.config
        one = sources.pick(b, rng)
        two = one if self.partners is None else self.partners.draw(one, rng)
        own, channels = self._channels(sources, b, rng)
        x = stacked(sources.data, one, own)
        y = x if self.partners is None else stacked(sources.data, two, own)
        where = [sources.draw(one, rng)]
        where.append(where[0] if self.partners is None else sources.draw(two, rng))
        out: Batch = {}
        crops = []
        for pictures, (centres, sides) in zip((x, y), where, strict=True):
            crops.append(view(self._plane(pictures, rng), centres, sides, self.size, config.global_, rng))
        out["global"] = torch.cat(crops)
        local = []
        for k in range(config.local_crops * (1 if self.partners is None else 2)):
            pictures, (centres, sides) = ((x, where[0]), (y, where[1]))[k % 2 if self.partners is not None else 0]
            local.append(view(self._plane(pictures, rng), centres, sides, config.local_size, config.local_, rng))
        if local:
            out["local"] = torch.cat(local)
        return out, channels

    def _channels(
        self, sources: Sources, b: int, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, "b c"], tuple[str, ...]]:
        """Where channels are focal planes: all of them, to choose from for each crop, or the one that is named."""
        planes, names = self.config.planes, sources.data.channels
        if not planes:
            return choose_channels(sources.data, b, self.student.encoder, rng)
        own = sources.data.places if planes == ANY else np.array([names.index(planes)])
        return np.tile(own, (b, 1)), ("",)

    def _plane(self, pictures: Tensor, rng: np.random.Generator) -> Tensor:
        """One focal plane of each picture where planes are drawn for every crop."""
        if self.config.planes != ANY:
            return pictures
        chosen = torch.from_numpy(rng.integers(0, pictures.shape[1], len(pictures)))
        return pictures[torch.arange(len(pictures)), chosen][:, None]

    def forward(self, batch: Batch, channels: tuple[str, ...], fraction: float) -> dict[str, Tensor]:
        """DINO's cross-entropy over crops, and Barlow Twins between the two global ones."""
        config = self.config
        student, teacher = self.student, self.teacher
        assert isinstance(teacher, Tower)
        vectors = student.encoder.embed(batch["global"], channels)
        said = list(student.head(vectors).chunk(2))
        if "local" in batch:
            count = len(batch["local"]) * 2 // len(batch["global"])
            said += list(student.head(student.encoder.embed(batch["local"], channels)).chunk(count))
        with torch.no_grad():
            wanted = list(teacher.head(teacher.encoder.embed(batch["global"], channels)).chunk(2))
        heat = warmed(config.teacher_temperature, config.last_temperature, fraction, config.warm)
        parts = {"dino": dino_loss(said, wanted, self.centre, config.student_temperature, heat)}
        loss = parts["dino"]
        if student.projector is not None:
            one, other = student.projector(vectors).chunk(2)
            parts["barlow"] = barlow_loss(one, other, config.off_diagonal)
            loss = loss + config.barlow * parts["barlow"]
        if self.training:
            self.centre.copy_(next_centre(self.centre, wanted))
        return {"loss": loss, **parts}

    def train(self, mode: bool = True) -> DinoMethod:
        """The teacher stays in evaluation."""
        super().train(mode)
        self.teacher.eval()
        return self

    def followed(self, fraction: float) -> None:
        """The teacher follows the student."""
        follow(self.teacher, self.student, rising(self.config.momentum, 1.0, fraction))


@dataclass(frozen=True)
class Partners:
    """`of`: for a row, its replicates in other batches."""

    of: dict[int, np.ndarray]

    def draw(self, rows: Int[np.ndarray, " b"], rng: np.random.Generator) -> Int[np.ndarray, " b"]:
        """A random replicate of each row from another batch; a row without any is its own."""
        drawn = rng.random(len(rows))
        out = rows.copy()
        for k, row in enumerate(rows):
            found = self.of.get(int(row))
            if found is not None:
                out[k] = found[int(drawn[k] * len(found))]
        return out


def partners(sources: Sources) -> Partners:
    """Replicates of every row: same compound, dose, time and line, another batch. Raises InvalidTrainingData where no
    row has one."""
    table = sources.data.rows.iloc[sources.rows]
    same = [c for c in REPLICATE if c in table.columns]
    batch = table["batch"].astype(str).to_numpy()
    of: dict[int, np.ndarray] = {}
    for index in table.reset_index(drop=True).groupby(same, sort=True, observed=True).indices.values():
        for i in index:
            other = index[batch[index] != batch[i]]
            if len(other):
                of[int(sources.rows[i])] = sources.rows[other]
    if not of:
        raise InvalidTrainingData(
            f"training data: no two pictures share {', '.join(same)} in different batches; cross_batch needs replicates"
        )
    return Partners(of)
