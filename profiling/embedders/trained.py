"""A trained embedder as an engine: pictures to vectors of their cells, tiles or fields, by the weights of a folder.

Every channel of a picture is clipped to its own percentiles, cells are found, and a crop of one scale around each is
read, as in training. Networks of whole fields read the picture resized. A vector depends on its picture alone: crops
go through the network one picture at a time, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32

from profiling.embedders.augment import clipped, cut, self_normalised
from profiling.embedders.cells import CropConfig, detect
from profiling.embedders.embedding import InvalidEmbedder, cell_vectors, check_pictures, field_vector
from profiling.embedders.methods.method import frozen
from profiling.embedders.networks.build import BagOfChannels, Encoder, NetworkConfig, build_encoder
from profiling.embedders.networks.phenoprofiler import KINDS as FIELD_KINDS
from profiling.embedders.networks.phenoprofiler import PhenoConfig, PhenoNetwork, resized
from profiling.embedders.recipe import from_table
from profiling.embedders.weights import folder_hash, load_into, read_card
from profiling.engines.measurement import FieldMeasurement

#: Raised by hand when detection, cropping or standardising change a number.
REVISION = 1


class TrainedEmbedder:
    """The engine of one folder of weights."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.card: dict[str, Any] = read_card(folder, engine)
        self.engine = engine
        self.channels = tuple(self.card["channels"])
        where = str(folder / "embedder.json")
        self.crops = from_table(CropConfig, self.card["crops"], where)
        self.of_fields = self.card["network"]["kind"] in FIELD_KINDS
        with torch.random.fork_rng(devices=[]):
            self.network = self.untrained()
        load_into(folder, self.network)
        frozen(self.network)

    def untrained(self) -> PhenoNetwork | Encoder:
        """A fresh network of the same shape, with weights from torch's generator."""
        where = "embedder.json"
        if self.of_fields:
            return PhenoNetwork(from_table(PhenoConfig, self.card["network"], where), len(self.channels))
        return build_encoder(from_table(NetworkConfig, self.card["network"], where), self.channels)

    @property
    def hash(self) -> str:
        """sha256 of weights, network, crops and the revision of this code."""
        return folder_hash(self.card, REVISION)

    def __enter__(self) -> TrainedEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]:
        """Vectors of the cells (tiles) of each picture, or one vector a field.

        Raises InvalidEmbedder where a channel is missing that the network or the detection of cells needs.
        """
        check_pictures(pictures, channels)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums are the same, however many cores there are
        try:
            out = []
            for i, picture in enumerate(pictures):
                out.append(self._field(picture, channels) if self.of_fields else self._cells(picture, channels))
                if progress is not None:
                    progress(i + 1)
            return out
        finally:
            torch.set_num_threads(threads)

    def _field(self, picture: Float32[np.ndarray, "c h w"], channels: Sequence[str]) -> FieldMeasurement:
        x = torch.from_numpy(clipped(picture[self._places(channels, self.channels)]))[None]
        assert isinstance(self.network, PhenoNetwork)
        with torch.no_grad():
            vector = self.network(resized(x, self.network.config.side))[0]
        return field_vector(self.engine, vector.numpy().astype(np.float64))

    def _places(self, channels: Sequence[str], wanted: Sequence[str]) -> list[int]:
        if missing := [name for name in wanted if name not in channels]:
            raise InvalidEmbedder(
                f"channels: {self.engine} of this folder needs {', '.join(wanted)}, but {', '.join(missing)} "
                f"is not among {', '.join(channels)}; name the channels with --channels"
            )
        return [list(channels).index(name) for name in wanted]

    def _cells(self, picture: Float32[np.ndarray, "c h w"], channels: Sequence[str]) -> FieldMeasurement:
        reading = self.card["reading"]
        own = tuple(channels) if reading["read"] in ("", "any") else (reading["read"],)
        whole = clipped(picture)
        x = whole[self._places(channels, own)]
        if self.crops.source == "cells" and self.crops.nuclei not in channels:
            self._places(channels, (self.crops.nuclei,))
        centres = spread(detect(whole, channels, self.crops), self.crops.most)
        vectors = self.vectors(x, centres, own)
        return cell_vectors(self.engine, vectors)

    def vectors(
        self, picture: Float32[np.ndarray, "c h w"], centres: Float[np.ndarray, "n 2"], channels: Sequence[str]
    ) -> Float[np.ndarray, "n k"]:
        """Vectors of the crops around `centres` of one clipped picture."""
        network = self.network
        assert not isinstance(network, PhenoNetwork)
        mean = self.card["reading"]["pool"] == "mean" and isinstance(network, BagOfChannels)
        width = network.vit.dim if mean else network.width(channels)
        if not len(centres):
            return np.empty((0, width))
        n, side = len(centres), float(self.crops.read)
        x = torch.from_numpy(picture)[None].expand(n, -1, -1, -1)
        sides = torch.full((n, 2), side)
        crops = self_normalised(cut(x, torch.from_numpy(centres).float(), sides, self.card["network"]["image"]))
        with torch.no_grad():
            out = network.embed(crops, channels).numpy().astype(np.float64)
        return out.reshape(n, len(channels), width).mean(axis=1) if mean else out


def spread(centres: Float[np.ndarray, "n 2"], most: int) -> Float[np.ndarray, "m 2"]:
    """At most `most` of the centres, evenly among them in their order: always the same ones."""
    if len(centres) <= most:
        return centres
    return centres[np.linspace(0, len(centres) - 1, most).round().astype(np.int64)]
