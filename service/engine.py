"""What is loaded: weights, encoder, measuring engine, reference library; and the provenance of all of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from chem.domain import Applicability
from chem.molecule import Molecule
from service import resources
from service.domain import Territory, check_encoder, name_encoder
from service.errors import EngineFailure, InvalidRequest, MissingModel, UnknownName
from service.library import library
from service.pipeline import Progress, predict_in, refused
from service.reference import EffectSettings, Reference, check, load_settings
from service.request import Outcome, Request
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES, Measured, ModelCard, Provenance, Room, Standing, Tick

if TYPE_CHECKING:
    from chem.encoder import Encoder
    from ldm.pipeline import CellPaintingPipeline
    from profiling.engines.cellprofiler import CellProfilerEngine
    from profiling.engines.fast import FastEngine
    from profiling.engines.measurement import FieldMeasurement

ENGINES = ("cellprofiler", "fast")
SETTINGS_OF_SIZE = {128: "sim128"}  # picture size -> settings of the measuring engine
CARD = "dopaint.json"
VECTORS_KEPT = 4096


def find_model(name: str | Path) -> Path:
    """A model's folder: a path, or a name below `models`.

    Raises `MissingModel` naming what is missing.
    """
    named = Path(name)
    if not named.is_dir() and len(named.parts) == 1:
        try:
            named = resources.path("models") / named
        except resources.MissingResource as error:
            raise MissingModel(f"model {str(name)!r} is no folder, and this installation ships no models") from error
    if not named.is_dir():
        raise MissingModel(f"model {str(name)!r} does not exist: give a model folder or the name of a shipped model")
    for needed in (CARD, "model_index.json", "contexts.parquet", "training_compounds.parquet"):
        if not (named / needed).is_file():
            raise MissingModel(f"model folder {named.name!r} has no {needed}: it is not a complete model")
    return named


class ModelRoom:
    """The real room: diffusion model, encoder and measuring engine. One process, one thread at a time; use with
    `with`.
    """

    workers: int = 1

    def __init__(
        self, folder: Path, workers: int, timeout_s: float, effect: EffectSettings, engine: str = "cellprofiler"
    ) -> None:
        from chem.encoder import load_encoder
        from ldm.pipeline import CellPaintingPipeline

        _quiet()
        self.folder, self.effect = folder, effect
        self._painter: CellPaintingPipeline = CellPaintingPipeline.from_pretrained(folder)
        _, side, _ = self._painter.picture_shape
        if side not in SETTINGS_OF_SIZE:
            raise MissingModel(
                f"model {folder.name!r} paints {side} pixels a side: the engine has settings for "
                f"{', '.join(map(str, SETTINGS_OF_SIZE))}"
            )
        facts = self._painter.settings
        names = tuple(self._painter.channels.names)
        self.card = ModelCard(folder.name, facts.evidence, facts.conditions, names, side, facts.micro_batch)
        self.contexts = Contexts.from_table(self._painter.known_contexts)
        self._encoder: Encoder = load_encoder(folder / "encoder")
        check_encoder(folder, self._encoder.hash)
        self._engine = _engine(engine, SETTINGS_OF_SIZE[side], workers, timeout_s)
        self.workers = workers
        self._lock = threading.Lock()  # of the network

    def __enter__(self) -> ModelRoom:
        self._engine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.__exit__(kind, error, trace)

    @cached_property
    def provenance(self) -> Provenance:
        """Hashes of everything that determines a number."""
        from ldm.folder import model_hash

        return Provenance(model_hash(self.folder), self._encoder.hash, self._engine.hash, self.effect.hash())

    @cached_property
    def _reference(self) -> Reference:
        reference = Reference.read(self.folder / "reference")
        check(reference, self.provenance.document())
        return reference

    def reference(self) -> Reference:
        """The model's reference library. Raises `MissingReference` or `ReferenceMismatch`."""
        return self._reference

    @cached_property
    def _known(self) -> pd.DataFrame:
        """The library by InChIKey, and whether the model was trained on the compound."""
        trained = pd.read_parquet(self.folder / "training_compounds.parquet")["compound"].astype(str)
        table = library().set_index("compound")
        return table.assign(seen=table.index.isin(set(trained)))

    @cached_property
    def _territory(self) -> Territory:
        return Territory.read(self.folder, library())

    def standing(self, molecule: Molecule) -> Standing:
        """Where the molecule stands to the training compounds and the library."""
        found = self._territory.place(molecule, self.vector, 1)
        nearest, similarity = found.nearest_inchikeys[0], found.nearest_tanimoto[0]
        known = self._known.loc[molecule.inchikey] if molecule.inchikey in self._known.index else None
        name = str(self._known.loc[nearest, "name"])
        seen = bool(known is not None and known["seen"])
        return Standing(
            in_library=known is not None,
            seen=seen,
            name="" if known is None else str(known["name"]),
            zone=found.domain.value,
            nearest=name,
            nearest_inchikey=nearest,
            tanimoto=similarity,
            sentence=_domain_sentence(seen, found, name),
            scaffold_seen=found.scaffold_seen,
            density=found.density,
            expected_error=found.expected_error,
            basis=found.basis,
        )

    def vector(self, molecule: Molecule) -> Float[np.ndarray, " d"]:
        """The encoder's vector; the last ones are kept, so that a question for one need not wait for a picture."""
        key = molecule.inchikey, molecule.smiles
        known = self._vectors.get(key)
        if known is not None:
            return known
        with self._lock:
            made = np.asarray(self._encoder.encode([molecule])[0], np.float32)
            self._vectors[key] = made
            while len(self._vectors) > VECTORS_KEPT:
                self._vectors.popitem(last=False)
            return made

    def paint(self, vector: Float[np.ndarray, " d"], rows: pd.DataFrame, tick: Tick) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] of one compound, from whole micro-batches of its own rows."""
        vectors = np.repeat(vector[None], len(rows), axis=0)
        return self.paint_rows(vectors, rows, _steps(tick))

    def vectors(self, compounds: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """The encoder's vectors of compounds of the library and of DMSO, by InChIKey, row by row."""
        smiles = {**dict(zip(library()["compound"], library()["smiles"], strict=True)), DMSO_INCHIKEY: DMSO_SMILES}
        distinct = {key: self.vector(Molecule(smiles[key], key)) for key in dict.fromkeys(compounds)}
        return np.stack([distinct[key] for key in compounds])

    def paint_rows(
        self,
        vectors: Float[np.ndarray, "n d"],
        rows: pd.DataFrame,
        progress: Tick | None,
        *,
        unconditional: bool = False,
    ) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] of rows, each with its own compound vector; progress is told how many are done so far."""
        with self._lock:
            pictures: np.ndarray = self._painter.paint(vectors, rows, unconditional=unconditional, progress=progress)
        return pictures

    def compress(self, pictures: Float[np.ndarray, "n c h w"], sources: list[str]) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] after the autoencoder alone: encoded and decoded."""
        with self._lock:
            return self._painter.compress(pictures, sources)

    def measure(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> Measured:
        """The engine's measurements, the median over the cells of each picture."""
        fields = self._fields(pictures, tick)
        return _measured(fields)

    def measure_each(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> list[Measured]:
        """The same, each picture by itself."""
        return [_measured([field]) for field in self._fields(pictures, tick)]

    def warm(self) -> None:
        """Paints and measures one batch, so that the first request finds everything in place."""
        plate = self.contexts.plates.iloc[:1]
        rows = plate.assign(row=0, column=0, seed=np.uint64(0)).reset_index(drop=True)
        vector = self.vector(Molecule(DMSO_SMILES, DMSO_INCHIKEY))
        self.measure(self.paint_rows(vector[None], rows, None), lambda _: None)

    @cached_property
    def _measuring(self) -> threading.Lock:
        """Painting and measuring may go on side by side."""
        return threading.Lock()

    @cached_property
    def _vectors(self) -> OrderedDict[tuple[str, str], Float[np.ndarray, " d"]]:
        return OrderedDict()

    def _fields(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> list[FieldMeasurement]:
        with self._measuring:
            fields = self._engine.measure(pictures, self.card.channels, progress=_steps(tick))
        if len(fields) != len(pictures):
            raise EngineFailure(f"the engine answered {len(fields)} of {len(pictures)} pictures")
        return fields


def _engine(name: str, settings: str, workers: int, timeout_s: float) -> CellProfilerEngine | FastEngine:
    if name == "fast":
        from profiling.engines.fast import FastEngine

        return FastEngine(settings, workers=workers, timeout_s=timeout_s)
    from profiling.engines.cellprofiler import CellProfilerEngine

    return CellProfilerEngine(settings=settings, workers=workers, timeout_s=timeout_s)


def _measured(fields: Sequence[FieldMeasurement]) -> Measured:
    from profiling.profiles import field_medians

    profiles = field_medians(fields, pd.DataFrame({"row": range(len(fields))}))
    outcomes, reasons = tuple(one.outcome for one in fields), tuple(one.reason for one in fields)
    return Measured(profiles.values, profiles.names, outcomes, reasons)


def _quiet() -> None:
    """No progress bars of the libraries that read weights: they would stand among our own lines."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()


def _domain_sentence(seen: bool, found: Applicability, name: str) -> str:
    if seen:
        return "The model was trained on pictures of this compound."
    if found.seen:
        return f"The model was trained on another form (stereo, isotopes) of this compound: {name}."
    words = {"in": "inside", "edge": "at the edge of", "out": "outside"}
    return (
        f"The model has never seen this compound; it lies {words[found.domain.value]} what the model knows: the "
        f"nearest training compound is {name} (Tanimoto {found.nearest_tanimoto[0]:.2f})."
    )


def _steps(tick: Tick) -> Tick:
    """The rooms tell how many are done so far; a tick is how many more."""
    before = 0

    def told(done: int) -> None:
        nonlocal before
        tick(done - before)
        before = done

    return told


def load_room(
    model: str | Path = "simulation-128", engine: str = "cellprofiler", workers: int = 2, timeout_s: float = 60.0
) -> ModelRoom:
    """Load a model and its measuring engine. Raises `MissingModel` or `UnknownName`.

    A reference library belongs to one engine: with another than its own, predictions are refused.
    """
    if engine not in ENGINES:
        raise UnknownName(f"engine {engine!r} does not exist: expected one of {', '.join(ENGINES)}")
    return ModelRoom(find_model(model), workers, timeout_s, load_settings()[0], engine)


def predict(
    smiles: Sequence[str],
    *,
    model: str | Path | Room = "simulation-128",
    draws: int = 16,
    seed: int = 1,
    engine: str = "cellprofiler",
    out: Path | None = None,
    allow_simulated: bool = False,
    abstain: bool = False,
    contexts: Sequence[str] = (),
    progress: Progress | None = None,
    workers: int = 2,
) -> list[Outcome]:
    """Load what `model` names unless it is a loaded room, and predict. See `service.pipeline.predict_in`.

    When every SMILES is refused nothing is loaded.
    """
    request = Request(tuple(smiles), draws, seed, allow_simulated, tuple(contexts), abstain)
    none = refused(request)
    if len(none) == len(request.smiles):
        return none
    if not isinstance(model, str | Path):
        return predict_in(model, request, out, progress)
    with load_room(model, engine, workers) as room:
        return predict_in(room, request, out, progress)


def make_reference(
    model: str | Path = "simulation-128",
    config: Path | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> Reference:
    """Make the reference library of a model from the seen drugs of the library and put it into the model's folder.

    An older library is replaced once the new one is complete.
    """
    from service.build_reference import build_reference, choose
    from service.results import replace_folder

    effect, settings = load_settings(config)
    if effect != load_settings()[0]:
        raise InvalidRequest("config: its [effect] differs from the shipped one, under which predictions are made")
    with load_room(model, workers=workers) as room:
        compounds = choose(library(), settings.per_label, settings.seed)
        made = build_reference(room, compounds, effect, settings, progress)
        name_encoder(room.folder, room.provenance.encoder)
        replace_folder(room.folder / "reference", made.write)
    return made
