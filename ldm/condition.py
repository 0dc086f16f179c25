"""Compound vector and context of each row, as tokens for cross-attention and as one pooled vector.

Every token has a learned null that stands for "not given". Dropping tokens at random in training gives one network
that is conditional on everything, free of confounders (compound only), or unconditional.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ldm.data import philox

TOKENS = ("compound", "source", "batch", "plate_format", "well")
PLATE = "plate"  # the optional token after them; a plate that training did not see is the null token
PLATE_SHAPES = {384: (16, 24), 1536: (32, 48)}
N_POSITION = 9  # relative row and column, distance to the edge, three decays with it, three one-sided decays


class UnknownContext(ValueError):
    """Raised when a row names a source, batch, plate format or well that the model was not trained on."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of b rows as tensors: compound vectors, positions in the vocabularies of source, batch and plate
    format, well position features, which of TOKENS (and PLATE, where the model has it) are given (False = the learned
    null), and the position of the plate, None for models without.
    """

    compound: Float[Tensor, "b d"]
    source: Int[Tensor, " b"]
    batch: Int[Tensor, " b"]
    plate_format: Int[Tensor, " b"]
    well: Float[Tensor, "b p"]
    given: Bool[Tensor, "b k"]
    plate: Int[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return len(self.compound)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        parts = (getattr(self, name) for name in self.__dataclass_fields__)
        return Conditions(*(None if part is None else change(part) for part in parts))  # type: ignore[arg-type]

    def rows(self, index: Int[Tensor, " n"]) -> Conditions:
        """Some of the rows."""
        return self._each(lambda part: part[index])

    def to(self, device: torch.device | str) -> Conditions:
        """The same on a device."""
        return self._each(lambda part: part.to(device))

    def keeping(self, *tokens: str) -> Conditions:
        """The same rows with only these tokens given; without arguments nothing is given (unconditional)."""
        names = (*TOKENS, PLATE)[: self.given.shape[1]]
        kept = torch.tensor([name in tokens for name in names], device=self.given.device)
        return replace(self, given=self.given & kept)


def position_features(
    row: Int[np.ndarray, " b"], column: Int[np.ndarray, " b"], plate_format: Int[np.ndarray, " b"]
) -> Float[np.ndarray, "b p"]:
    """Where wells are on their plates, float32 [b, 9]: (r + 0.5) / rows and (c + 0.5) / columns in (0, 1); the
    distance to the nearest edge as a share of half the rows; exp(-distance in wells / 1, 2, 4); and exp(-distance /
    2) to the top, the left and the right edge alone.

    Raises UnknownContext for a plate format other than 384 or 1536 and for a well that is not on the plate.
    """
    row, column, plate_format = np.asarray(row), np.asarray(column), np.asarray(plate_format)
    odd = sorted(set(plate_format.tolist()) - set(PLATE_SHAPES))
    if odd:
        raise UnknownContext(
            f"plate_format: got {odd[0]}, expected one of {', '.join(map(str, PLATE_SHAPES))}; correct the design"
        )
    rows = np.where(plate_format == 384, PLATE_SHAPES[384][0], PLATE_SHAPES[1536][0])
    columns = np.where(plate_format == 384, PLATE_SHAPES[384][1], PLATE_SHAPES[1536][1])
    off = np.flatnonzero((row < 0) | (row >= rows) | (column < 0) | (column >= columns))
    if len(off):
        i = off[0]
        raise UnknownContext(
            f"well: row {row[i]}, column {column[i]} is not on a {plate_format[i]}-well plate, expected rows 0 to "
            f"{rows[i] - 1} and columns 0 to {columns[i] - 1}; correct the design"
        )
    top, left = row.astype(np.float64), column.astype(np.float64)
    bottom, right = rows - 1.0 - top, columns - 1.0 - left
    edge = np.minimum(np.minimum(top, bottom), np.minimum(left, right))
    features = [(top + 0.5) / rows, (left + 0.5) / columns, 2.0 * edge / rows]
    features += [np.exp(-edge / scale) for scale in (1.0, 2.0, 4.0)]
    features += [np.exp(-side / 2.0) for side in (top, left, right)]
    return np.stack(features, axis=1).astype(np.float32)


def _lookup(values: pd.Series, known: tuple[object, ...], what: str) -> Int[np.ndarray, " b"]:
    """Positions of values in a vocabulary; UnknownContext names the first that is not there, and those that are."""
    positions = pd.Index(known).get_indexer(pd.Index(values))
    if (positions < 0).any():
        got = values.iloc[[int(np.flatnonzero(positions < 0)[0])]].tolist()[0]
        raise UnknownContext(
            f"{what}: got {got!r}, expected one of {', '.join(map(str, known))}; choose a context that the model was "
            "trained on"
        )
    return np.asarray(positions, dtype=np.int64)


def drop_tokens(
    given: Bool[Tensor, "b k"], rng: np.random.Generator, each: float, context: float, everything: float
) -> Bool[Tensor, "b k"]:
    """Randomly take tokens away: each token with probability `each`, all context tokens together with probability
    `context`, all tokens with `everything`.
    """
    b, k = given.shape
    keep = rng.random((b, k)) >= each
    keep[:, 1:] &= (rng.random(b) >= context)[:, None]
    keep &= (rng.random(b) >= everything)[:, None]
    return given & torch.from_numpy(keep).to(given.device)


class ConditionEncoder(ModelMixin, ConfigMixin):
    """Conditions of b rows to tokens [b, n, width] and a pooled vector [b, pooled].

    compound_dim: length of a compound vector; compound_tokens: how many tokens it becomes. sources, batches,
    plate_formats: the vocabularies; batch_sources names the source of each batch, so that a batch under another
    source is refused. hidden: width of the perceptrons. fourier: octaves of sine and cosine of the well position.
    use_context: False for the control without confounders: context tokens are always null. plates: vocabulary of the
    optional plate token, empty for none.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        compound_dim: int,
        sources: Sequence[str],
        batches: Sequence[str],
        batch_sources: Sequence[str],
        plate_formats: Sequence[int] = (384, 1536),
        width: int = 128,
        pooled: int = 256,
        hidden: int = 256,
        compound_tokens: int = 1,
        fourier: int = 4,
        use_context: bool = True,
        plates: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.use_context, self.plates = use_context, tuple(plates)
        self.width, self.compound_tokens, self.fourier = width, compound_tokens, fourier
        self.sources, self.batches, self.plate_formats = tuple(sources), tuple(batches), tuple(plate_formats)
        self.batch_sources = tuple(batch_sources)
        self.register_buffer("compound_mean", torch.zeros(compound_dim))
        self.register_buffer("compound_sd", torch.ones(compound_dim))
        self.compound = nn.Sequential(
            nn.Linear(compound_dim, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, width * compound_tokens),
        )
        self.source = nn.Embedding(len(self.sources), width)
        self.batch = nn.Embedding(len(self.batches), width)
        self.plate_format = nn.Embedding(len(self.plate_formats), width)
        n_well = N_POSITION + 4 * fourier
        self.well = nn.Sequential(nn.Linear(n_well, hidden), nn.SiLU(), nn.Linear(hidden, width))
        n_tokens = self.n_tokens
        self.null = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        self.kind = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        self.pool = nn.Sequential(nn.Linear(n_tokens * width, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, pooled))
        self.norm = nn.LayerNorm(width)
        if self.plates:
            self.plate = nn.Embedding(len(self.plates), width)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Kinds of tokens, in order."""
        return (*TOKENS, PLATE) if self.plates else TOKENS

    @property
    def n_tokens(self) -> int:
        """Tokens a row."""
        return self.compound_tokens + len(self.tokens) - 1

    def standardise(self, vectors: Float[Tensor, "m d"]) -> None:
        """Store mean and sd of the training compounds' vectors; entries that do not vary are divided by 1."""
        sd = vectors.std(dim=0, unbiased=False)
        self.compound_mean.copy_(vectors.mean(dim=0))
        self.compound_sd.copy_(torch.where(sd > 1e-6, sd, torch.ones_like(sd)))

    def conditions(self, compounds: Float[np.ndarray, "b d"], contexts: pd.DataFrame) -> Conditions:
        """Conditions of rows: compound vectors [b, d] and a table with source, batch, plate_format, row and column (and
        plate, for models that take it).

        Raises UnknownContext for what the model was not trained on, and for a batch under another source than its own.
        """
        if len(compounds) != len(contexts) or compounds.shape[1] != len(self.compound_mean):
            raise UnknownContext(
                f"compound vectors: got {compounds.shape} for {len(contexts)} rows, expected [{len(contexts)}, "
                f"{len(self.compound_mean)}]; use the encoder that the model was trained with"
            )
        source = _lookup(contexts["source"], self.sources, "source")
        batch = _lookup(contexts["batch"], self.batches, "batch")
        own = np.array([self.sources.index(name) for name in self.batch_sources])
        if (own[batch] != source).any():
            i = int(np.flatnonzero(own[batch] != source)[0])
            raise UnknownContext(
                f"batch: {contexts['batch'].iloc[i]} under source {contexts['source'].iloc[i]}, expected source "
                f"{self.batch_sources[batch[i]]}; contexts are nested, correct the design"
            )
        formats = _lookup(contexts["plate_format"], self.plate_formats, "plate_format")
        well = position_features(
            contexts["row"].to_numpy(), contexts["column"].to_numpy(), contexts["plate_format"].to_numpy()
        )
        given, plate = torch.ones(len(contexts), len(self.tokens), dtype=torch.bool), None
        given[:, 1:] = self.use_context
        if self.plates:
            at = pd.Index(self.plates).get_indexer(contexts.get("plate", pd.Series([""] * len(contexts))).astype(str))
            plate = torch.from_numpy(np.maximum(at, 0).astype(np.int64))
            given[:, -1] &= torch.from_numpy(at >= 0)
        return Conditions(
            torch.from_numpy(np.ascontiguousarray(compounds, dtype=np.float32)),
            torch.from_numpy(source),
            torch.from_numpy(batch),
            torch.from_numpy(formats),
            torch.from_numpy(well),
            given,
            plate,
        )

    def forward(self, conditions: Conditions) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b p"]]:
        """Tokens [b, n_tokens, width] and pooled vector [b, pooled]."""
        vector = (conditions.compound - self.compound_mean) / self.compound_sd
        compound = self.compound(vector).unflatten(1, (self.compound_tokens, self.width))
        place = conditions.well[:, :2]
        angles = (
            torch.cat([place * (torch.pi * 2.0**octave) for octave in range(self.fourier)], dim=1)
            if self.fourier
            else place[:, :0]
        )
        well = self.well(torch.cat([conditions.well, angles.sin(), angles.cos()], dim=1))
        others = [
            self.source(conditions.source),
            self.batch(conditions.batch),
            self.plate_format(conditions.plate_format),
            well,
        ]
        if self.plates:
            others.append(self.plate(conditions.plate))
        tokens = torch.cat([compound, torch.stack(others, dim=1)], dim=1)
        given = torch.cat([conditions.given[:, :1].expand(-1, self.compound_tokens), conditions.given[:, 1:]], dim=1)
        tokens = self.norm(torch.where(given[:, :, None], tokens, self.null) + self.kind)
        return tokens, self.pool(tokens.flatten(1))


def training_drop(
    conditions: Conditions, seed: int, step: int, each: float, context: float, everything: float
) -> Conditions:
    """Conditions with tokens dropped, as a function of (seed, step) only."""
    return replace(conditions, given=drop_tokens(conditions.given, philox(seed, step, 3), each, context, everything))
