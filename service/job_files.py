"""The files of one job: the request as it was accepted, the work that is under way, the results that are complete.

data/
  requests/<id>.json           written before the job is in the store; from these the store can be rebuilt
  requests/<id>.ended.json     how it ended, when it did not end with results
  work/<id>/<folder>/pictures  pictures of an unfinished molecule, each renamed into place
  work/<id>/rows/<folder>/     measured rows: one file a draw, its numbers under their own SHA-256
  work/<id>/outcomes/          what became of each molecule; written before its folder is renamed into the results
  results/<id>/                complete molecules, and at the very end request.json

A measured row whose file is in place is finished: it is never painted or measured again. Rows and pictures are forced
to the disk with their complete molecule; before that a power failure may cost the last of them, which are then made
again, with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from service.durable import place_folder, remove_folder, storage, sync_files, write
from service.faults import point
from service.pictures import stem, write_picture
from service.request import Outcome
from service.results import json_text, read_json
from service.rooms import Measured, ModelCard

REQUEST = "request.json"


class JobFiles:
    """Paths and files of one job below the data folder."""

    def __init__(self, data: Path, key: str) -> None:
        self.key = key
        self.request = data / "requests" / f"{key}.json"
        self.ending = data / "requests" / f"{key}.ended.json"
        self.work = data / "work" / key
        self.results = data / "results" / key

    # ------------------------------------------------------------------------------------------------------------------
    # The request.

    def accept(self, document: dict[str, Any]) -> None:
        """Keeps the request, before it is in the store. Raises `StorageFull`."""
        self.request.parent.mkdir(parents=True, exist_ok=True)
        write(self.request, json_text(document).encode(), "request file")

    def end(self, document: dict[str, Any]) -> None:
        """Notes how a job ended that has no complete results."""
        self.ending.parent.mkdir(parents=True, exist_ok=True)
        write(self.ending, json_text(document).encode(), "ending file")

    @property
    def complete(self) -> bool:
        """Whether all results are in place."""
        return (self.results / REQUEST).is_file()

    def remove_results(self) -> None:
        """Takes the results and the work away; request.json goes first, so that no half answer looks like a whole."""
        (self.results / REQUEST).unlink(missing_ok=True)
        remove_folder(self.results, "results")
        remove_folder(self.work, "work")

    def remove_work(self) -> None:
        """Takes what was under way away."""
        remove_folder(self.work, "work")

    def remove_request(self) -> None:
        """Takes the request away: a rebuilt store will not know the job."""
        self.ending.unlink(missing_ok=True)
        self.request.unlink(missing_ok=True)
        point("request file: removed")

    # ------------------------------------------------------------------------------------------------------------------
    # Pictures and rows.

    def place_of(self, folder: str) -> Path | None:
        """Where a molecule's files are now: among the results when it is finished, else with the work."""
        for place in (self.results / folder, self.work / folder):
            if place.is_dir():
                return place
        return None

    def save_picture(
        self, folder: str, draw: int, picture: Float[np.ndarray, "c h w"], card: ModelCard, row: dict[str, Any]
    ) -> None:
        """Puts a picture and its preview in place; the picture last. Raises `StorageFull`."""
        target = self.work / folder / "pictures"
        with storage():
            target.mkdir(parents=True, exist_ok=True)
            point("picture: writing")
            aside = Path(tempfile.mkdtemp(prefix=".part-", dir=self.work))
            try:
                write_picture(aside, draw, picture, card, row)
                for ending in ("png", "ome.tiff"):
                    point(f"picture {ending}: written")
                    os.replace(aside / f"{stem(draw)}.{ending}", target / f"{stem(draw)}.{ending}")
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            point("picture: in place")

    def save_row(self, folder: str, draw: int, measured: Measured) -> None:
        """Puts one measured row in place. Raises `StorageFull`."""
        place = self.work / "rows" / folder
        with storage():
            place.mkdir(parents=True, exist_ok=True)
        names = json.dumps(list(measured.names)).encode()
        by_content = hashlib.sha256(names).hexdigest()[:16]
        kept = self.work / "names" / f"{by_content}.json"
        if not kept.is_file():
            with storage():
                kept.parent.mkdir(exist_ok=True)
            write(kept, names, "feature names", sync=False)
        values = measured.values.astype("<f8").tobytes()
        header = {
            "names": by_content,
            "outcome": measured.outcomes[0],
            "reason": measured.reasons[0],
            "sha256": hashlib.sha256(values).hexdigest(),
        }
        write(place / f"{draw:04d}.row", json.dumps(header).encode() + b"\n" + values, "row", sync=False)

    def row(self, folder: str, draw: int) -> Measured | None:
        """A measured row; None when it is not there, or is not what was written."""
        try:
            line, _, values = (self.work / "rows" / folder / f"{draw:04d}.row").read_bytes().partition(b"\n")
            header = json.loads(line)
            names = (self.work / "names" / f"{header['names']}.json").read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = hashlib.sha256(values).hexdigest() == header["sha256"]
        if not sound or hashlib.sha256(names).hexdigest()[:16] != header["names"]:
            return None
        numbers = np.frombuffer(values, dtype="<f8").astype(np.float64)[None]
        return Measured(numbers, tuple(json.loads(names)), (str(header["outcome"]),), (str(header["reason"]),))

    def draws_with_rows(self, folder: str) -> list[int]:
        """Draws whose measured row is in place and sound."""
        place = self.work / "rows" / folder
        numbers = sorted(int(path.stem) for path in place.glob("[0-9]*.row")) if place.is_dir() else []
        return [draw for draw in numbers if self.row(folder, draw) is not None]

    def draws_with_pictures(self, folder: str) -> list[int]:
        """Draws whose picture is in place, wherever the molecule is now."""
        place = self.place_of(folder)
        if place is None:
            return []
        return sorted(int(path.name[5:].split(".")[0]) for path in (place / "pictures").glob("draw_*.ome.tiff"))

    # ------------------------------------------------------------------------------------------------------------------
    # Molecules.

    def decide(self, folder: str, outcome: Outcome) -> None:
        """Keeps what became of a molecule; its answer is in its folder. Raises `StorageFull`."""
        document = {**asdict(outcome), "answer": None}
        place = self.work / "outcomes"
        with storage():
            place.mkdir(parents=True, exist_ok=True)
        write(place / f"{folder}.json", json_text(document).encode(), "outcome", sync=False)

    def decided(self, folder: str) -> Outcome | None:
        """What became of a molecule; None while that is open, also when its folder is not in place yet."""
        file = self.work / "outcomes" / f"{folder}.json"
        if not file.is_file():
            return None
        outcome = Outcome(**{**(values := read_json(file)), "changes": tuple(values["changes"])})
        if outcome.folder and not (self.results / folder).is_dir():
            return None
        return outcome

    def place(self, folder: str) -> None:
        """Renames a complete molecule into the results. Raises `StorageFull`."""
        with storage():
            sync_files(self.work / folder)
        place_folder(self.work / folder, self.results / folder, "molecule")
