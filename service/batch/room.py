"""The machine room of a batch worker: the real one, loading only what the worker's role needs, by any engine, anywhere.

A painter loads no encoder and no engine, a profiler no torch, a desk no U-Net. Numbers are those of `service.engine`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from chem.molecule import Molecule
from service.batch.ask import BatchRequest
from service.batch.equivalence import Compatibility, compatibility
from service.domain import check_encoder
from service.engine import CARD, SETTINGS_OF_SIZE, ModelRoom, find_model
from service.errors import MissingModel, ReferenceMismatch, UnknownName
from service.fake import FakeRoom
from service.reference import Reference, check, load_settings
from service.rooms import ModelCard, Provenance, Room, Tick

if TYPE_CHECKING:
    from ldm.pipeline import CellPaintingPipeline

FAKE = "fake"  # a model name: the room of `service.fake`, for trying executors and storage without weights
DESK, PAINT, PROFILE = "desk", "paint", "profile"
ROLES = (DESK, PAINT, PROFILE)


@runtime_checkable
class BatchRoom(Room, Protocol):
    """A `Room` that paints rows of several compounds in one go."""

    def paint_rows_of(
        self, molecules: Sequence[Molecule], vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, tick: Tick
    ) -> Float[np.ndarray, "n c h w"]:
        """Pictures of n design rows, each with its own molecule and vector."""
        ...

    def fit_for(self) -> Compatibility:
        """Why engine and reference library may be used together. Raises `ReferenceMismatch`."""
        ...


class FakeBatchRoom(FakeRoom):
    """`FakeRoom` for several compounds at once."""

    def paint_rows_of(
        self, molecules: Sequence[Molecule], vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, tick: Tick
    ) -> Float[np.ndarray, "n c h w"]:
        """One row after the other."""
        parts = []
        for i, molecule in enumerate(molecules):
            self.vector(molecule)  # the fake painter knows a molecule by its vector
            parts.append(self.paint(vectors[i], rows.iloc[i : i + 1], tick))
        return np.concatenate(parts)

    def fit_for(self) -> Compatibility:
        """Its own library."""
        return Compatibility("same", FAKE, self.provenance.engine, self.reference().manifest["hashes"]["engine"])


class RealBatchRoom(ModelRoom):
    """`ModelRoom` with only the parts of some roles loaded; provenance is given where it was computed before."""

    def __init__(
        self,
        request: BatchRequest,
        roles: Sequence[str] = ROLES,
        provenance: Provenance | None = None,
        device: str = "cpu",
        timeout_s: float = 120.0,
    ) -> None:
        from profiling.engines import ENGINES

        if request.engine not in ENGINES:
            raise UnknownName(f"engine {request.engine!r} does not exist: expected one of {', '.join(ENGINES)}")
        self.folder, self.effect = find_model(request.model), load_settings()[0]
        self.card = card_of(self.folder)
        side = self.card.picture_size
        if side not in SETTINGS_OF_SIZE:
            known = ", ".join(map(str, SETTINGS_OF_SIZE))
            raise MissingModel(
                f"model {self.folder.name!r} paints {side} pixels a side: the engine has settings for {known}"
            )
        self.contexts = Contexts.from_table(pd.read_parquet(self.folder / "contexts.parquet"))
        self._request, self._given, self._device = request, provenance, device
        self._lock = threading.Lock()
        if DESK in roles:
            from chem.encoder import load_encoder

            self._encoder = load_encoder(self.folder / "encoder")
            check_encoder(self.folder, self._encoder.hash)
        if PAINT in roles:
            self._painter = _painter(self.folder, device)
        self._engine = ENGINES[request.engine](SETTINGS_OF_SIZE[side], workers=1, timeout_s=timeout_s)

    @cached_property
    def provenance(self) -> Provenance:
        """Hashes of everything that determines a number; other steps or another sampler make another model of it."""
        if self._given is not None:
            return self._given
        from chem.encoder import load_encoder
        from ldm.folder import model_hash
        from service.engine import _quiet

        _quiet()
        model = model_hash(self.folder)
        if self.other_sampling:
            words = f"{model} steps={self._request.steps} sampler={self._request.sampler}"
            model = hashlib.sha256(words.encode()).hexdigest()
        encoder = getattr(self, "_encoder", None) or load_encoder(self.folder / "encoder")
        return Provenance(model, encoder.hash, self._engine.hash, self.effect.hash())

    @property
    def other_sampling(self) -> bool:
        """Whether pictures are painted otherwise than those of the reference library."""
        facts = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        steps, sampler = self._request.steps, self._request.sampler
        return (steps is not None and steps != facts.get("steps")) or (
            sampler is not None and sampler != facts.get("sampler")
        )

    def fit_for(self) -> Compatibility:
        """The same engine as the library's, or a declared equivalent. Raises `ReferenceMismatch`."""
        made = str(Reference.read(self.folder / "reference").manifest["hashes"]["engine"])
        settings = SETTINGS_OF_SIZE[self.card.picture_size]
        return compatibility(self._request.engine, self.provenance.engine, made, lambda name: _hash(name, settings))

    @cached_property
    def _reference(self) -> Reference:
        """The model's library, checked but for what `fit_for` has answered."""
        reference = Reference.read(self.folder / "reference")
        made = reference.manifest["hashes"]
        here = self.provenance.document() | {"engine": made["engine"]}
        if self.other_sampling:
            here["model"] = made["model"]
        check(reference, here)
        return reference

    def paint_rows_of(
        self, molecules: Sequence[Molecule], vectors: Float[np.ndarray, "n d"], rows: pd.DataFrame, tick: Tick
    ) -> Float[np.ndarray, "n c h w"]:
        """By the diffusion model, in whole micro-batches; the molecules themselves are not looked at."""
        before = 0

        def told(done: int) -> None:
            nonlocal before
            tick(done - before)
            before = done

        with self._lock:
            pictures: np.ndarray = self._painter.paint(
                vectors, rows, steps=self._request.steps, sampler=self._request.sampler, progress=told
            )
        return pictures


def open_room(
    request: BatchRequest,
    roles: Sequence[str] = ROLES,
    provenance: Provenance | None = None,
    device: str = "cpu",
) -> Any:
    """The room of a role: a `BatchRoom`. Raises `MissingModel`, `UnknownName`."""
    if request.model == FAKE:
        return FakeBatchRoom()
    return RealBatchRoom(request, roles, provenance, device)


def _hash(engine: str, settings: str) -> str:
    """The hash an engine has here. CellProfiler need not be installed for that: it is not started."""
    from profiling.engines import ENGINES

    named = {"venv": Path(sys.prefix)} if engine == "cellprofiler" else {}
    return str(ENGINES[engine](settings, workers=1, **named).hash)


def card_of(folder: Path) -> ModelCard:
    """The model's card from its JSON files, without loading a weight. Raises `MissingModel`."""
    try:
        facts = json.loads((folder / CARD).read_text(encoding="utf-8"))
        latent = int(json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))["sample_size"])
        blocks = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["block_out_channels"]
        side = latent * 2 ** (len(blocks) - 1)
        return ModelCard(
            folder.name,
            str(facts["evidence"]),
            str(facts["conditions"]),
            tuple(facts["channels"]),
            side,
            int(facts["micro_batch"]),
        )
    except (OSError, KeyError, ValueError) as error:
        raise MissingModel(f"model folder {folder.name!r} lacks facts ({error}): get the folder again") from error


def _painter(folder: Path, device: str) -> CellPaintingPipeline:
    from diffusers.utils import logging as of_diffusers

    from ldm.pipeline import CellPaintingPipeline

    of_diffusers.disable_progress_bar()
    painter = CellPaintingPipeline.from_pretrained(folder)
    if device != "cpu":
        painter.to(device)
        if painter.small is not None:
            painter.small.to(device)
    return painter


def provenance_from(values: dict[str, str]) -> Provenance:
    """From the JSON of a plan. Raises `ReferenceMismatch` when a hash is missing."""
    try:
        return Provenance(values["model"], values["encoder"], values["engine"], values["settings"])
    except KeyError as error:
        raise ReferenceMismatch(
            f"plan.json names no hash of the {error}: it is damaged; take another address"
        ) from error
