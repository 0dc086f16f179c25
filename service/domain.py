"""What a model knows: its training compounds, its learned applicability domain, and the encoder that it belongs to.

A model folder may hold domain.json (how the class follows from the evidence) and domain.safetensors (its training
compounds in the encoder's space). `dopaint benchmark domain` learns and writes both from the errors that the model made
on held-out compounds. The hash of the model's encoder stands in dopaint.json: another encoder is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from chem.domain import (
    VECTORS_FILE,
    Applicability,
    DomainModel,
    EncoderSpace,
    TrainingCompounds,
    applicability,
    encoder_space,
    training_compounds,
)
from chem.domain_fit import fit_domain
from chem.fingerprint import fingerprint_index, morgan_bits, nearest
from chem.molecule import Molecule
from service.errors import InvalidRequest, MissingModel
from service.library import library

FACTS = "dopaint.json"
ERRORS = "measured/unseen.json"


@dataclass(frozen=True, eq=False)
class Territory:
    """A model's training compounds and its domain; `space` is None where none was learned."""

    training: TrainingCompounds
    model: DomainModel
    space: EncoderSpace | None

    @staticmethod
    def read(folder: Path, table: pd.DataFrame) -> Territory:
        """From a model folder; `table` has the SMILES of its training compounds (columns compound, smiles)."""
        known = trained(folder, table)
        path = folder / VECTORS_FILE
        space = (
            EncoderSpace(**{k: v.astype(np.float32) for k, v in load_file(path).items()}) if path.is_file() else None
        )
        training = training_compounds(list(known["compound"]), list(known["smiles"]))
        return Territory(training, DomainModel.read(folder), space)

    def place(self, molecule: Molecule, vector: Callable[[Molecule], Float[np.ndarray, " d"]], k: int) -> Applicability:
        """The verdict for one molecule; `vector` encodes it where the domain needs that."""
        density = float("nan") if self.space is None else float(self.space.density(vector(molecule)[None])[0])
        return applicability(molecule, self.training, k, self.model, density)


def trained(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `table` that the model was trained on, in the table's order."""
    keys = set(pd.read_parquet(folder / "training_compounds.parquet")["compound"].astype(str))
    return table[table["compound"].isin(keys)].reset_index(drop=True)


def learn(model: str | Path = "simulation-128", errors: Path | None = None) -> dict[str, Any]:
    """Learn the domain of a model and write it into its folder; returns what was learned.

    `errors`: a CSV with columns inchikey and error of held-out compounds of the library; by default the ranks of the
    true mechanism in the model's measured/unseen.json. Raises `MissingModel` or `InvalidRequest`.
    """
    from chem.encoder import load_encoder
    from service.engine import find_model

    folder = find_model(model)
    held, name = _errors(folder, errors)
    table = library()
    known = trained(folder, table)
    held = held.merge(table[["compound", "smiles"]], left_on="inchikey", right_on="compound")
    leaked = set(held["inchikey"].str[:14]) & set(known["compound"].str[:14])
    if leaked:
        raise InvalidRequest(f"errors: {len(leaked)} compounds were trained on, first {min(leaked)}; leave them out")
    encoder = load_encoder(folder / "encoder")
    check_encoder(folder, encoder.hash)
    space = encoder_space(encoder.encode(list(known["smiles"]), batch_size=1))
    density = space.density(encoder.encode(list(held["smiles"]), batch_size=1))
    index = fingerprint_index(morgan_bits(list(known["smiles"])))
    similarity = nearest(morgan_bits(list(held["smiles"])), index, 1).similarity[:, 0]
    found = fit_domain(held["error"].to_numpy(float), similarity.astype(float), density, name=name)
    half = {"vectors": space.vectors.astype(np.float16)}
    rest = {key: np.asarray(getattr(space, key), np.float32) for key in ("mean", "deviation", "distances")}
    save_file(half | rest, folder / VECTORS_FILE)
    found.write(folder)
    return asdict(found)


def _errors(folder: Path, errors: Path | None) -> tuple[pd.DataFrame, str]:
    if errors is not None:
        if not errors.is_file():
            raise InvalidRequest(f"errors {str(errors)!r} does not exist: give a CSV with columns inchikey and error")
        table = pd.read_csv(errors)
        if not {"inchikey", "error"} <= set(table.columns):
            raise InvalidRequest(
                f"errors {errors.name!r} has columns {list(table.columns)}: expected inchikey and error"
            )
        return table[["inchikey", "error"]].dropna(), "error"
    path = folder / ERRORS
    rows = json.loads(path.read_text(encoding="utf-8")).get("compounds") if path.is_file() else None
    if not rows:
        raise InvalidRequest(
            f"{ERRORS} of model {folder.name!r} names no compounds: make it with dopaint benchmark unseen"
        )
    table = pd.DataFrame(rows).rename(columns={"model": "error"})
    return table[["inchikey", "error"]], "rank of the true mechanism"


def check_encoder(folder: Path, digest: str) -> None:
    """Refuse an encoder other than the one that dopaint.json names. Raises `MissingModel`."""
    named = json.loads((folder / FACTS).read_text(encoding="utf-8")).get("encoder")
    if named is not None and named != digest:
        raise MissingModel(
            f"model folder {folder.name!r} was trained with another encoder ({str(named)[:12]}) than the one in it "
            f"({digest[:12]}): put its own encoder back, or train the model again with this one"
        )


def name_encoder(folder: Path, digest: str) -> None:
    """Write the encoder's hash into dopaint.json, once. Raises `MissingModel` when another one stands there."""
    check_encoder(folder, digest)
    path = folder / FACTS
    facts = json.loads(path.read_text(encoding="utf-8"))
    if "encoder" not in facts:
        path.write_text(json.dumps(facts | {"encoder": digest}, indent=2) + "\n", encoding="utf-8")
