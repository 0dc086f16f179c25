"""Loaders of trained engines, by name; torch is imported only where one is loaded."""

from __future__ import annotations

from pathlib import Path

from profiling.embedders.embedding import Embedder, InvalidEmbedder, Loader


def loader(engine: str) -> Loader:
    """The function that loads this engine from the folder of its weights."""

    def load(folder: Path | None = None) -> Embedder:
        if folder is None:
            raise InvalidEmbedder(
                f"weights: {engine} has to be trained first: give the folder that `dopaint train "
                "configs/embedders/<recipe>.toml` made, with --weights RUN/model"
            )
        from profiling.embedders.trained import TrainedEmbedder

        return TrainedEmbedder(folder, engine)

    return load


def trex_loader(bases: dict[str, Loader]) -> Loader:
    """The function that loads TRex on one of these engines."""

    def load(folder: Path | None = None) -> Embedder:
        if folder is None:
            raise InvalidEmbedder(
                "weights: trex has to be trained first: give the folder that `dopaint train "
                "configs/embedders/trex_moa.toml` made, with --weights RUN/model"
            )
        from profiling.embedders.trex.engine import TrexEmbedder

        return TrexEmbedder(folder, bases)

    return load
