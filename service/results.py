"""Result folders: one a molecule, one for the control, and what was asked, each written aside and renamed into place.

out/
  request.json             what was asked, and what became of each entry of the list
  predictions.csv          all molecules, one row a label, `evidence` first
  control/                 pictures and profiles of the control, shared by all molecules
  <InChIKey>/              manifest.json, pictures/, profiles.parquet, effects.parquet, predictions.json and .csv

`pictures/` holds draw_0000.ome.tiff and its preview draw_0000.png. A molecule's folder is a function of the molecule,
the draws, the seed and the model: no clock, no path, no neighbour.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.gformula import Effects
from profiling.profiles import Profiles
from profiling.tables import write_profiles
from service.answer import Answer, csv_text, statement
from service.pictures import write_picture
from service.request import Outcome, Request
from service.rooms import ModelCard, Provenance
from service.version import __version__

CONTROL = "control"
_VERSIONS = ("numpy", "pandas", "pyarrow", "rdkit", "torch", "diffusers", "transformers")


class Writer:
    """Writes the folders of one request below `out`; without `out` it writes nothing."""

    def __init__(self, out: Path | None, card: ModelCard) -> None:
        self._out, self._card = out, card
        self._aside: Path | None = None

    def __enter__(self) -> Writer:
        if self._out is not None:
            self._out.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._out))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)

    def pictures(self, folder: str, rows: pd.DataFrame, pictures: Float[np.ndarray, "n c h w"]) -> None:
        """Adds pictures of a compound, one file a draw."""
        if self._aside is None:
            return
        place = self._aside / folder / "pictures"
        place.mkdir(parents=True, exist_ok=True)
        for row, picture in zip(rows.to_dict("records"), pictures, strict=True):
            write_picture(place, int(row["draw"]), picture, self._card, {str(k): v for k, v in row.items()})

    def control(self, profiles: Profiles) -> None:
        """Finishes the control's folder."""
        if self._aside is not None:
            fill_control(self._aside / CONTROL, profiles, self._card)
            self._place(CONTROL)

    def molecule(self, folder: str, profiles: Profiles, effects: Effects, answer: Answer) -> None:
        """Finishes a molecule's folder."""
        if self._aside is None:
            return
        fill_molecule(self._aside / folder, profiles, effects, answer, self._card)
        self._place(folder)

    def discard(self, folder: str) -> None:
        """Drops the half-written folder of a molecule that failed."""
        if self._aside is not None:
            shutil.rmtree(self._aside / folder, ignore_errors=True)

    def request(self, request: Request, outcomes: list[Outcome], provenance: Provenance) -> None:
        """Writes what was asked and what became of it; the last thing, so that its presence says the rest is there."""
        if self._aside is None or self._out is None:
            return
        answers = {one.folder: one.answer for one in outcomes if one.answer is not None}
        document = request_document(request, outcomes, self._card, provenance)
        (self._aside / "predictions.csv").write_text(csv_text(answers.values()), encoding="utf-8")
        write_json(self._aside / "request.json", document)
        for name in ("predictions.csv", "request.json"):
            os.replace(self._aside / name, self._out / name)

    def _place(self, folder: str) -> None:
        assert self._aside is not None
        assert self._out is not None
        target = self._out / folder
        if target.exists():
            os.replace(target, self._aside / f"old-{folder}")
        os.replace(self._aside / folder, target)


def fill_control(place: Path, profiles: Profiles, card: ModelCard) -> None:
    """Puts the control's tables beside its pictures."""
    write_profiles(_evident(profiles, card), place / "profiles.parquet")


def fill_molecule(place: Path, profiles: Profiles, effects: Effects, answer: Answer, card: ModelCard) -> None:
    """Puts a molecule's tables and answer beside its pictures."""
    write_profiles(_evident(profiles, card), place / "profiles.parquet")
    effects_table(effects, answer).to_parquet(place / "effects.parquet", index=False)
    write_json(place / "predictions.json", answer)
    (place / "predictions.csv").write_text(csv_text([answer]), encoding="utf-8")
    write_json(place / "manifest.json", manifest(answer, card))


def request_document(
    request: Request, outcomes: list[Outcome], card: ModelCard, provenance: Provenance
) -> dict[str, Any]:
    """request.json: what was asked, and what became of each entry of the list."""
    return {
        "format": "dopaint/request/1",
        "evidence": card.evidence,
        "statement": statement(card.evidence),
        "request": asdict(request),
        "provenance": {"model_name": card.name, **provenance.document()},
        "molecules": [outcome_document(one) for one in outcomes],
    }


def _evident(profiles: Profiles, card: ModelCard) -> Profiles:
    return Profiles(profiles.meta.assign(Metadata_Evidence=card.evidence), profiles.values, profiles.names)


def replace_folder(target: Path, write: Callable[[Path], None]) -> None:
    """Write a folder aside by `write`, then put it in the place of `target`."""
    aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    try:
        write(aside / "new")
        if target.exists():
            os.replace(target, aside / "old")
        os.replace(aside / "new", target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def effects_table(effects: Effects, answer: Answer) -> pd.DataFrame:
    """One row a feature: the compound's effect in control MADs with its interval over draws, and the evidence."""
    table = effects.to_frame(answer["interval"]["level"], "draws")
    table = table[table["compound"] == answer["compound"]["inchikey"]].reset_index(drop=True)
    return table.assign(unit="control MADs", evidence=answer["evidence"])


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """One entry of the list, without its answer."""
    values = asdict(outcome)
    del values["answer"]
    values["changes"] = list(outcome.changes)
    return values


def manifest(answer: Answer, card: ModelCard) -> dict[str, Any]:
    """What made the folder: versions, hashes, settings. No time and no path, so that it can be compared."""
    return {
        "format": "dopaint/result/1",
        "evidence": answer["evidence"],
        "statement": answer["statement"],
        "compound": answer["compound"],
        "request": answer["request"],
        "design_hash": answer["design_hash"],
        "provenance": answer["provenance"],
        "channels": list(card.channels),
        "picture_size": card.picture_size,
        "versions": {"dopaint": __version__, **{name: _version(name) for name in _VERSIONS}},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def json_text(document: Any) -> str:
    """JSON with sorted keys, no NaN, one newline at the end."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, document: Any) -> None:
    """A file of `json_text`."""
    path.write_text(json_text(document), encoding="utf-8")


def read_json(path: Path) -> Any:
    """JSON of a file."""
    return json.loads(path.read_text(encoding="utf-8"))
