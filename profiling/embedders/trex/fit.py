"""Fitting TRex on a table: AdamW at 1e-3, halved when validation mAP does not rise for 5 epochs, stopped after 10.

Labels are mechanisms (several a row, joined with "|") or compounds (one a row); focal loss either way. Rows without a
label are left out of the fit. Validation rows are whole groups (plates) where a column names them, else random rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from profiling.embedders.embedding import column_names
from profiling.embedders.methods.method import frozen
from profiling.embedders.objectives.focal import focal_binary, focal_single
from profiling.embedders.recipe import InvalidRecipe, as_table, from_table
from profiling.embedders.trex.network import TrexNetwork
from profiling.embedders.weights import load_into, read_card, save_folder
from profiling.metrics import map_per_sample
from profiling.profiles import InvalidProfiles, Profiles

SEVERAL = "|"
OBJECTIVES = ("moa", "compound")


@dataclass(frozen=True)
class TrexConfig:
    """`objective`: "moa" (several labels a row) or "compound" (one). `label`: the metadata column of the labels.
    `validate_by`: column whose groups are held out whole for validation ("" draws rows); `validation`: their share.
    `base`: engine whose weights lie in the data folder as `base`, for `--engine trex` on pictures."""

    objective: str = "moa"
    label: str = "moa"
    validate_by: str = ""
    validation: float = 0.15
    widths: tuple[int, ...] = (1024, 512, 256)
    dropout: float = 0.3
    gamma: float = 2.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    batch: int = 256
    epochs: int = 100
    patience: int = 5
    stop: int = 10
    seed: int = 1
    threads: int = 1
    base: str = ""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES or len(self.widths) != 3 or not 0.0 < self.validation < 1.0:
            raise InvalidRecipe(
                f"trex: objective {self.objective!r}, widths {self.widths}, validation {self.validation}; expected one "
                f"of {', '.join(OBJECTIVES)}, three widths, a share between 0 and 1"
            )


@dataclass(frozen=True)
class Adaptation:
    """A fitted network with what it was fitted on: features in, labels out; `history`: loss, validation mAP, rate."""

    network: TrexNetwork
    config: TrexConfig
    names: tuple[str, ...]
    labels: tuple[str, ...]
    history: pd.DataFrame

    def vectors(self, values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n d"]:
        """The third layer, row by row."""
        with torch.no_grad():
            parts = [self.network.features(torch.from_numpy(part.astype(np.float32))) for part in _chunks(values)]
        return torch.cat(parts).numpy().astype(np.float64)

    def scores(self, values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n m"]:
        """Logits of the labels, row by row."""
        with torch.no_grad():
            parts = [self.network(torch.from_numpy(part.astype(np.float32))) for part in _chunks(values)]
        return torch.cat(parts).numpy().astype(np.float64)

    def transform(self, profiles: Profiles) -> Profiles:
        """Profiles with the features of the fit, as `trex_000`, ... Raises InvalidProfiles for a missing feature or
        NaN."""
        chosen = profiles.features(self.names)
        vectors = self.vectors(_complete(chosen))
        return Profiles(chosen.meta, vectors, column_names("trex", vectors.shape[1]))

    def save(self, folder: Path) -> Path:
        """Write the folder (`weights`); gives it back."""
        network = {"kind": "trex", "inside": len(self.names), "outputs": len(self.labels)}
        card = {
            "engine": "trex",
            "network": network,
            "channels": [],
            "crops": {},
            "reading": as_table(self.config) | {"names": list(self.names), "labels": list(self.labels)},
            "training": {"epochs": len(self.history), "best": float(self.history["validation"].max())},
        }
        save_folder(folder, self.network, card)
        return folder


def _chunks(values: np.ndarray, rows: int = 4096) -> list[np.ndarray]:
    return [values[i : i + rows] for i in range(0, max(len(values), 1), rows)]


def _complete(profiles: Profiles) -> Float[np.ndarray, "n k"]:
    if np.isnan(profiles.values).any():
        raise InvalidProfiles(
            f"profiles: {int(np.isnan(profiles.values).sum())} values are NaN: select features or rows first"
        )
    return profiles.values


def load_adaptation(folder: Path) -> Adaptation:
    """The adaptation of a folder. Raises InvalidWeights."""
    card = read_card(folder, "trex")
    reading = dict(card["reading"])
    names, labels = tuple(reading.pop("names")), tuple(reading.pop("labels"))
    config = from_table(TrexConfig, reading, str(folder))
    network = _network(config, len(names), len(labels))
    load_into(folder, network)
    frozen(network)
    return Adaptation(network, config, names, labels, pd.DataFrame())


def _network(config: TrexConfig, inside: int, outputs: int) -> TrexNetwork:
    one, two, three = config.widths
    return TrexNetwork(inside, outputs, (one, two, three), config.dropout)


def truth_of(words: np.ndarray, several: bool) -> tuple[Bool[np.ndarray, "n m"], tuple[str, ...]]:
    """Which of the labels, in sorted order, each row has; lists joined with "|" where there may be several."""
    lists = [str(word).split(SEVERAL) if several else [str(word)] for word in words]
    labels = tuple(sorted({one for row in lists for one in row if one}))
    place = {label: i for i, label in enumerate(labels)}
    truth = np.zeros((len(lists), len(labels)), dtype=bool)
    for i, row in enumerate(lists):
        truth[i, [place[one] for one in row if one]] = True
    return truth, labels


def held(profiles: Profiles, config: TrexConfig, rng: np.random.Generator) -> Bool[np.ndarray, " n"]:
    """Validation rows: whole groups of `validate_by`, or random rows."""
    n = len(profiles)
    if not config.validate_by:
        return rng.permutation(n) < max(1, round(config.validation * n))
    words = profiles.column(config.validate_by).astype(str)
    groups = np.unique(words)
    if len(groups) < 2:
        raise InvalidProfiles(
            f"trex: column {config.validate_by!r} has {len(groups)} group, expected at least 2; set validate_by to "
            'another column, or to ""'
        )
    chosen = rng.permutation(groups)[: max(1, round(config.validation * len(groups)))]
    return np.isin(words, chosen)


def fit(profiles: Profiles, config: TrexConfig | None = None) -> Adaptation:
    """Fit on the rows of `profiles` that have a label. The weights of the epoch with the best validation mAP are kept.

    Same rows, same config, same weights on one machine. Raises InvalidProfiles for NaN, no label column, or fewer than
    two labels.
    """
    config = config or TrexConfig()
    torch.set_num_threads(config.threads)
    words = profiles.column(config.label)
    known = pd.notna(words) & (words.astype(str) != "")
    used = profiles.rows(known)
    truth, labels = truth_of(words[known], config.objective == "moa")
    if len(labels) < 2:
        raise InvalidProfiles(f"trex: column {config.label!r} has {len(labels)} labels, expected at least 2")
    values = _complete(used).astype(np.float32)
    rng = np.random.default_rng(config.seed)
    validation = held(used, config, rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(config, values.shape[1], len(labels))
        history, best = _epochs(network, values, truth, validation, config, rng)
    network.load_state_dict(best)
    frozen(network)
    return Adaptation(network, config, profiles.names, labels, history)


def _epochs(
    network: TrexNetwork,
    values: Float32[np.ndarray, "n k"],
    truth: Bool[np.ndarray, "n m"],
    validation: Bool[np.ndarray, " n"],
    config: TrexConfig,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    train = np.flatnonzero(~validation)
    if len(train) < 2 or not validation.any():
        raise InvalidProfiles(f"trex: {len(train)} rows to fit and {int(validation.sum())} to validate; too few")
    mean, sd = values[train].mean(axis=0), values[train].std(axis=0)
    network.mean.copy_(torch.from_numpy(mean))
    network.sd.copy_(torch.from_numpy(np.where(sd > 0, sd, 1.0).astype(np.float32)))
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    x, y = torch.from_numpy(values), torch.from_numpy(truth.astype(np.float32))
    single = y.argmax(dim=1)
    best = {k: v.clone() for k, v in network.state_dict().items()}
    score, since, stale, rows = -1.0, 0, 0, []
    for epoch in range(config.epochs):
        network.train()
        losses = []
        for part in batches(rng.permutation(train), config.batch):
            at = torch.from_numpy(part)
            logits = network(x[at])
            if config.objective == "moa":
                loss = focal_binary(logits, y[at], config.gamma)
            else:
                loss = focal_single(logits, single[at], config.gamma)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        network.eval()
        with torch.no_grad():
            said = network(x[torch.from_numpy(np.flatnonzero(validation))]).numpy().astype(np.float64)
        now = map_per_sample(said, truth[validation])
        rows.append((epoch + 1, float(np.mean(losses)), now, optimiser.param_groups[0]["lr"]))
        since, stale = since + 1, stale + 1
        if now > score:
            best, score, since, stale = {k: v.clone() for k, v in network.state_dict().items()}, now, 0, 0
        if stale == config.patience:
            stale = 0
            for group in optimiser.param_groups:
                group["lr"] *= 0.5
        if since >= config.stop:
            break
    return pd.DataFrame(rows, columns=["epoch", "loss", "validation", "rate"]), best


def batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """Parts of about `size` rows, as even as can be, none of a single row (batch norm has no variance then)."""
    count = max(1, min(-(-len(order) // size), len(order) // 2))
    return [part for part in np.array_split(order, count) if len(part) > 1]
