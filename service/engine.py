"""What is loaded: weights, encoder, measuring engine, reference library; and the provenance of all of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from chem.fingerprint import morgan_bits, nearest
from chem.molecule import Molecule
from service import resources
from service.errors import EngineFailure, InvalidRequest, MissingModel, UnknownName
from service.library import library
from service.pipeline import Progress, predict_in, refused
from service.reference import EffectSettings, Reference, check, load_settings
from service.request import Outcome, Request
from service.rooms import Measured, ModelCard, Provenance, Room, Standing, Tick

if TYPE_CHECKING:
    from chem.encoder import Encoder
    from ldm.pipeline import CellPaintingPipeline
    from profiling.engines.cellprofiler import CellProfilerEngine

ENGINES = ("cellprofiler",)
SETTINGS_OF_SIZE = {128: "sim128"}  # picture size -> settings of the measuring engine
CARD = "dopaint.json"
IN_DOMAIN, EDGE = 0.4, 0.25  # Tanimoto to the nearest training compound: at least this is "in", at least that is "edge"
_NOT_THE_MODEL = ("reference", "README.md")


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


def model_hash(folder: Path) -> str:
    """SHA-256 over names and bytes of every file of a model but its reference library and its card for readers."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name.split("/")[0] not in _NOT_THE_MODEL:
            digest.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_card(folder: Path) -> ModelCard:
    """What dopaint.json says of a model. Raises `MissingModel` for a card that lacks a fact."""
    facts = json.loads((folder / CARD).read_text(encoding="utf-8"))
    try:
        return ModelCard(
            name=folder.name,
            evidence=str(facts["evidence"]),
            conditions=str(facts["conditions"]),
            channels=tuple(facts["channels"]),
            picture_size=int(facts["picture_size"]),
            micro_batch=int(facts["micro_batch"]),
        )
    except KeyError as error:
        raise MissingModel(f"{folder.name}/{CARD} does not say {error}: it is not a complete model") from error


class ModelRoom:
    """The real room: diffusion model, encoder and CellProfiler. One process, one thread at a time; use with `with`."""

    def __init__(self, folder: Path, workers: int, timeout_s: float, effect: EffectSettings) -> None:
        from chem.encoder import load_encoder
        from ldm.pipeline import CellPaintingPipeline
        from profiling.engines.cellprofiler import CellProfilerEngine

        self.folder, self.card, self.effect = folder, read_card(folder), effect
        if self.card.picture_size not in SETTINGS_OF_SIZE:
            raise MissingModel(
                f"model {folder.name!r} paints {self.card.picture_size} pixels a side: the engine has settings for "
                f"{', '.join(map(str, SETTINGS_OF_SIZE))}"
            )
        self.contexts = Contexts.from_table(pd.read_parquet(folder / "contexts.parquet"))
        self._training = pd.read_parquet(folder / "training_compounds.parquet")
        self._encoder: Encoder = load_encoder(folder / "encoder")
        self._painter: CellPaintingPipeline = CellPaintingPipeline.from_pretrained(folder)
        self._engine: CellProfilerEngine = CellProfilerEngine(
            settings=SETTINGS_OF_SIZE[self.card.picture_size], workers=workers, timeout_s=timeout_s
        )
        self._lock = threading.Lock()

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
        """Training compounds and unseen drugs, by InChIKey: name, seen, and the training facts that the model has."""
        table = library().set_index("compound")
        seen = self._training.rename(columns={"inchikey": "compound"}).set_index("compound")
        seen = seen[[name for name in seen.columns if name not in table.columns]]
        known = table.join(seen, how="outer")
        return known.assign(seen=known.index.isin(seen.index))

    @cached_property
    def _bits(self) -> tuple[pd.DataFrame, np.ndarray]:
        trained = self._known[self._known["seen"] & self._known["smiles"].notna()]
        return trained, morgan_bits(list(trained["smiles"]))

    def standing(self, molecule: Molecule) -> Standing:
        """Where the molecule stands to the training compounds and the library."""
        trained, bits = self._bits
        close = nearest(morgan_bits([molecule.smiles]), bits, 1)
        similarity, row = float(close.similarity[0, 0]), trained.iloc[int(close.index[0, 0])]
        known = self._known.loc[molecule.inchikey] if molecule.inchikey in self._known.index else None
        seen = bool(known is not None and known["seen"])
        zone = "in" if seen or similarity >= IN_DOMAIN else "edge" if similarity >= EDGE else "out"
        return Standing(
            in_library=known is not None,
            seen=seen,
            name="" if known is None else str(known["name"]),
            zone=zone,
            nearest=str(row["name"]),
            nearest_inchikey=str(row.name),
            tanimoto=similarity,
            sentence=_domain_sentence(seen, zone, str(row["name"]), similarity),
            **{f"training_{name}": _fact(known, name) for name in ("pictures", "sources", "batches")},
        )

    def vector(self, molecule: Molecule) -> Float[np.ndarray, " d"]:
        """The encoder's vector."""
        with self._lock:
            return np.asarray(self._encoder.encode([molecule])[0], np.float32)

    def paint(self, vector: Float[np.ndarray, " d"], rows: pd.DataFrame, tick: Tick) -> Float[np.ndarray, "n c h w"]:
        """Pictures in [0, 1] of one compound, from whole micro-batches of its own rows."""
        vectors = np.repeat(vector[None], len(rows), axis=0)
        with self._lock:
            return self._painter.paint(vectors, rows, progress=tick)

    def measure(self, pictures: Float[np.ndarray, "n c h w"], tick: Tick) -> Measured:
        """CellProfiler's measurements, the median over the cells of each picture."""
        from profiling.profiles import field_medians

        with self._lock:
            fields = self._engine.measure(pictures, self.card.channels, progress=tick)
        if len(fields) != len(pictures):
            raise EngineFailure(f"the engine answered {len(fields)} of {len(pictures)} pictures")
        profiles = field_medians(fields, pd.DataFrame({"row": range(len(fields))}))
        outcomes, reasons = tuple(one.outcome for one in fields), tuple(one.reason for one in fields)
        return Measured(profiles.values, profiles.names, outcomes, reasons)


def _fact(known: pd.Series | None, name: str) -> int | None:
    column = f"n_{name}"
    if known is None or column not in known.index or pd.isna(known[column]):
        return None
    return int(known[column])


def _domain_sentence(seen: bool, zone: str, name: str, similarity: float) -> str:
    if seen:
        return "The model was trained on pictures of this compound."
    words = {"in": "inside", "edge": "at the edge of", "out": "outside"}
    return (
        f"The model has never seen this compound; it lies {words[zone]} what the model knows: the nearest training "
        f"compound is {name} (Tanimoto {similarity:.2f})."
    )


def load_room(
    model: str | Path = "simulation-128", engine: str = "cellprofiler", workers: int = 2, timeout_s: float = 60.0
) -> ModelRoom:
    """Load a model and its measuring engine. Raises `MissingModel` or `UnknownName`."""
    if engine not in ENGINES:
        raise UnknownName(f"engine {engine!r} does not exist: expected one of {', '.join(ENGINES)}")
    return ModelRoom(find_model(model), workers, timeout_s, load_settings()[0])


def predict(
    smiles: Sequence[str],
    *,
    model: str | Path | Room = "simulation-128",
    draws: int = 16,
    seed: int = 1,
    engine: str = "cellprofiler",
    out: Path | None = None,
    allow_simulated: bool = False,
    progress: Progress | None = None,
    workers: int = 2,
) -> list[Outcome]:
    """Load what `model` names unless it is a loaded room, and predict. See `service.pipeline.predict_in`.

    When every SMILES is refused nothing is loaded.
    """
    request = Request(tuple(smiles), draws, seed, allow_simulated)
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
        replace_folder(room.folder / "reference", made.write)
    return made
