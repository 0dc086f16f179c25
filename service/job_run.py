"""A prediction under way: its compounds, which of their rows are finished, and what becomes of a compound that is.

The plan is a function of the request and the model, so a restarted service makes the same plan and finds the finished
rows in their files. Its result folder has the same bytes as one by `service.pipeline.predict_in`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.design import cross, design_hash
from causal.gformula import Effects
from chem.molecule import Molecule
from service.answer import csv_text
from service.durable import write
from service.errors import EngineFailure, Later, ReferenceMismatch
from service.job import Job
from service.job_files import REQUEST, JobFiles
from service.job_states import MoleculeState, state_of
from service.ledger import MOLECULE, PICTURE, PLANNED, Note, row_note, subject_of
from service.pipeline import (
    Painted,
    answer_of,
    contexts_of,
    effect_of,
    failed,
    folders_of,
    measured_rows,
    outcome_of,
    placed,
    profiles_of,
    read_entry,
)
from service.precision import Precision, draws_needed, precision_of, reached
from service.reference import Reference, check
from service.request import Outcome, Request
from service.results import CONTROL, fill_control, fill_molecule, json_text, read_json, request_document
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES, Measured, Room

LOG = logging.getLogger("dopaint.jobs")


@dataclass(eq=False)
class Compound:
    """One compound of a job, under the name of its folder. `wanted`: its first so many draws are to be measured."""

    folder: str
    molecule: Molecule
    wanted: int
    taken: bytearray  # a flag a draw: given out to be painted, or finished
    painted: bytearray  # a flag a draw: its picture is in place
    measured: bytearray  # a flag a draw: its row is in place
    vector: Float[np.ndarray, " d"] | None = None
    error: Exception | None = None
    closed: bool = False  # its outcome is decided

    def complete(self, n: int | None = None) -> bool:
        """Whether the first n (those wanted) rows are in place."""
        n = self.wanted if n is None else n
        return self.measured.count(1, 0, n) == n


class Task(NamedTuple):
    """One picture to be made."""

    run: Run
    compound: Compound
    draw: int


@dataclass(eq=False)
class Run:
    """One job under way. Its methods are called under the engine room's lock, but for `close_*`, which are slow."""

    job: Job
    room: Room
    reference: Reference
    request: Request
    precision: Precision | None
    files: JobFiles
    draws: pd.DataFrame
    entries: list[Outcome | Molecule]
    compounds: dict[str, Compound]  # by folder, the control first
    dropped: bool = False  # cancelled, deleted or lost: nothing is written for it any more
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _control: tuple[int, Painted] | None = None

    def __post_init__(self) -> None:
        self._folders = {(one.molecule.inchikey, one.molecule.smiles): one.folder for one in self.molecules}

    @property
    def control(self) -> Compound:
        """DMSO under the same draws."""
        return self.compounds[CONTROL]

    @property
    def molecules(self) -> list[Compound]:
        """The compounds but the control."""
        return [one for one in self.compounds.values() if one.folder != CONTROL]

    @property
    def first(self) -> int:
        """Draws of every compound before anything else is known."""
        return self.request.draws if self.precision is None else min(self.request.draws, self.precision.pilot)

    @property
    def total(self) -> int:
        """Units of the job; of a job with a wanted precision at most."""
        return 2 * self.request.draws * len(self.compounds)

    def tasks(self) -> Iterator[Task]:
        """The pictures that are still to be made: the first molecule's beside the control's, then the others'."""
        groups = [list(self.compounds.values())[:2], *([one] for one in list(self.compounds.values())[2:])]
        for group in groups:
            for draw in range(max((one.wanted for one in group), default=0)):
                for one in group:
                    if draw < one.wanted and not one.taken[draw] and one.error is None and not self.dropped:
                        one.taken[draw] = 1
                        yield Task(self, one, draw)

    def rows(self, compound: Compound, draws: list[int]) -> pd.DataFrame:
        """Design rows of a compound."""
        some = self.draws.iloc[draws].reset_index(drop=True)
        return some.assign(compound=compound.molecule.inchikey)[["compound", *self.draws.columns]]

    def finished_rows(self) -> list[Note]:
        """Takes up what the files hold from earlier; the notes that the ledger should have."""
        notes = [self.planned()]
        for one in self.compounds.values():
            outcome = self.files.decided(one.folder)
            pictures = self.files.draws_with_pictures(one.folder)
            notes += [Note(PICTURE, subject_of(one.folder, d), {"folder": one.folder, "draw": d}) for d in pictures]
            for draw in pictures:
                if draw < len(one.painted):
                    one.painted[draw] = 1
            for draw in self.files.draws_with_rows(one.folder):
                row = self.files.row(one.folder, draw)
                if row is not None and draw < len(one.measured):
                    one.taken[draw] = one.measured[draw] = 1
                    notes.append(row_note(one.folder, draw, row.outcomes[0]))
            if outcome is not None:
                one.closed = True
                if one.folder != CONTROL:
                    self.outcomes[one.folder] = outcome
                notes.append(self.molecule_note(one, outcome))
        return notes

    # ------------------------------------------------------------------------------------------------------------------
    # The end of a compound and of the job: slow, and called by one thread.

    def ready(self, compound: Compound) -> bool:
        """Whether a compound, and the control's draws that belong to it, are measured, or it cannot be."""
        if compound.closed or self.dropped:
            return False
        if compound.error is not None:
            return True
        if compound.folder == CONTROL:
            settled = self.precision is None or all(one.closed for one in self.molecules)
            return compound.complete() and settled
        return compound.complete() and self.control.complete(compound.wanted)

    def close_control(self) -> None:
        """Puts the control in place. Raises what makes the whole job fail."""
        if self.control.error is not None:
            raise self.control.error
        place = self.files.work / CONTROL
        fill_control(place, self.measured(self.control, self.control.wanted).profiles, self.room.card)
        self.files.decide(CONTROL, Outcome(0, "", "ok", folder=CONTROL))
        self.files.place(CONTROL)

    def close(self, compound: Compound) -> Outcome | None:
        """Scores a compound and puts it in place; None when it needs more draws for the precision that is asked for.

        Raises `StorageFull`, and what concerns the control: that makes the whole job fail.
        """
        if self.control.error is not None:
            raise self.control.error
        n = compound.wanted
        control = self._control_of(n) if compound.error is None else None
        try:
            if compound.error is not None or control is None:
                raise compound.error or EngineFailure("nothing was measured")
            if self.precision is not None and self._extended(compound, self.precision):
                return None
            asked = self.request if self.precision is None else replace(self.request, draws=n)
            painted = self.measured(compound, n)
            effects, answer = answer_of(
                self.room, self.reference, asked, self.draws.iloc[:n], control, compound.molecule, painted
            )
            if self.precision is not None:
                pilot = self._pilot(compound)
                names = self.reference.profiles.names
                answer["precision"] = reached(self.precision, pilot, names, self.first, n)
            fill_molecule(self.files.work / compound.folder, painted.profiles, effects, answer, self.room.card)
            outcome = outcome_of(self.room, self.request, compound.folder, answer)
        except (Later, OSError, RowsLost):
            raise
        except Exception as error:
            LOG.exception("molecule %s failed", compound.molecule.inchikey)
            outcome = failed(error)
        self.files.decide(compound.folder, replace(outcome, answer=None))
        if outcome.folder:
            self.files.place(compound.folder)
        compound.vector = None
        return replace(outcome, answer=None)

    def _pilot(self, compound: Compound) -> Effects:
        painted, control = self.measured(compound, self.first), self._control_of(self.first)
        draws = self.draws.iloc[: self.first]
        return effect_of(painted, control, draws, self.reference, compound.molecule.inchikey)[0]

    def _control_of(self, n: int) -> Painted:
        if self._control is None or self._control[0] != n:
            self._control = n, self.measured(self.control, n)
        return self._control[1]

    def _extended(self, compound: Compound, precision: Precision) -> bool:
        """Whether a compound whose pilot is complete needs further draws; the control gets as many."""
        if compound.wanted != self.first:
            return False
        names = self.reference.profiles.names
        n = draws_needed(precision, self._pilot(compound), names, self.first, self.request.draws)
        compound.wanted, self.control.wanted = n, max(n, self.control.wanted)
        return n > self.first

    def close_job(self) -> None:
        """Writes what became of every entry; request.json is the last, its presence says that the rest is there."""
        outcomes = self.listed()
        self.files.results.mkdir(parents=True, exist_ok=True)
        folders = dict.fromkeys(one.folder for one in outcomes if one.folder)
        answers = (read_json(self.files.results / folder / "predictions.json") for folder in folders)
        write(self.files.results / "predictions.csv", csv_text(answers).encode(), "table of predictions")
        document = request_document(self.request, outcomes, self.room.card, self.room.provenance)
        write(self.files.results / REQUEST, json_text(document).encode(), "what became of the request")

    def listed(self) -> list[Outcome]:
        """One outcome for each entry; those of molecules that are still open are left out."""
        found = []
        for index, one in enumerate(self.entries):
            if isinstance(one, Outcome):
                found.append(one)
                continue
            folder = self.folder_of(one)
            if folder in self.outcomes:
                found.append(placed(self.outcomes[folder], index, self.request.smiles[index], one))
        return found

    def measured(self, compound: Compound, n: int) -> Painted:
        """The first n rows of a compound from their files. Raises `EngineFailure` when none could be measured."""
        rows = [self.files.row(compound.folder, draw) for draw in range(n)]
        found = [row for row in rows if row is not None]
        if len(found) < n:
            lost = [draw for draw, row in enumerate(rows) if row is None]
            raise RowsLost(compound, lost)
        whole = stacked(found)
        part = profiles_of(self.rows(compound, list(range(n))), whole)
        return measured_rows([part], whole.outcomes, whole.reasons)

    # ------------------------------------------------------------------------------------------------------------------

    def states(self) -> list[MoleculeState]:
        """Every entry and where it stands, without asking the store."""
        found = []
        for facts in self.plan["molecules"]:
            one = self.compounds.get(facts["folder"])
            outcome = self.outcomes.get(facts["folder"])
            done = {} if outcome is None else {k: getattr(outcome, k) for k in ("outcome", "reason", "sentence")}
            painted, measured = (one.painted.count(1), one.measured.count(1)) if one is not None else (0, 0)
            found.append(state_of({**facts, **done}, painted, measured, self.request.draws))
        return found

    def left(self) -> int:
        """Pictures that are still to be made."""
        return sum(one.wanted - one.measured.count(1) for one in self.compounds.values() if not one.closed)

    def folder_of(self, molecule: Molecule) -> str:
        """The folder of an entry's molecule."""
        return self._folders[molecule.inchikey, molecule.smiles]

    def planned(self) -> Note:
        """The event that says what will be made."""
        return Note(PLANNED, "", self.plan)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """What will be made, as a JSON object."""
        molecules: list[dict[str, Any]] = []
        for index, one in enumerate(self.entries):
            facts: dict[str, Any]
            if isinstance(one, Outcome):
                facts = {"outcome": one.outcome, "reason": one.reason, "sentence": one.sentence}
                known = {"position": one.position, "smiles": one.smiles, "inchikey": one.inchikey, "folder": ""}
            else:
                facts = {"outcome": None, "reason": "", "sentence": ""}
                names = {"smiles": one.smiles, "inchikey": one.inchikey, "folder": self.folder_of(one)}
                known = {"position": None, **names}
            molecules.append({"index": index, "input": self.request.smiles[index], **facts, **known})
        return {"draws": self.request.draws, "folders": list(self.compounds), "molecules": molecules}

    def molecule_note(self, compound: Compound, outcome: Outcome) -> Note:
        """The event that says what became of a compound; what is left of its units comes with it."""
        folder = compound.folder
        mine = [i for i, one in enumerate(self.entries) if isinstance(one, Molecule) and self.folder_of(one) == folder]
        facts = {"outcome": outcome.outcome, "reason": outcome.reason, "sentence": outcome.sentence}
        units = 2 * self.request.draws - compound.painted.count(1) - compound.measured.count(1)
        return Note(MOLECULE, folder, {"folder": folder, "indices": mine, **facts}, units)


class RowsLost(Exception):
    """Files of finished rows that are no longer what was written: those rows are to be made again."""

    def __init__(self, compound: Compound, draws: list[int]) -> None:
        super().__init__(f"{len(draws)} rows of {compound.folder} are damaged on the disk")
        self.compound, self.draws = compound, draws


def start(job: Job, room: Room, files: JobFiles) -> Run:
    """Plans a job. Raises `MissingReference`, `ReferenceMismatch`, `InvalidRequest`, `UnknownName`."""
    request, precision = request_of(job.request), precision_of(job.request)
    reference = room.reference()
    check(reference, room.provenance.document())
    draws = contexts_of(room, reference, request)
    entries = [read_entry(index, text) for index, text in enumerate(request.smiles)]
    distinct = {(one.inchikey, one.smiles): one for one in entries if isinstance(one, Molecule)}
    _same_model(files, room, draws)
    first = request.draws if precision is None else min(request.draws, precision.pilot)
    compounds = {}
    if distinct:
        named = [(CONTROL, Molecule(DMSO_SMILES, DMSO_INCHIKEY))]
        named += [(folder, Molecule(key[1], key[0])) for key, folder in folders_of(list(distinct))]
        compounds = {folder: _compound(folder, molecule, first, request.draws) for folder, molecule in named}
    return Run(job, room, reference, request, precision, files, draws, entries, compounds)


def _compound(folder: str, molecule: Molecule, wanted: int, draws: int) -> Compound:
    return Compound(folder, molecule, wanted, bytearray(draws), bytearray(draws), bytearray(draws))


def request_of(document: dict[str, Any]) -> Request:
    """The request of a job as it was stored."""
    return Request(
        smiles=tuple(document["smiles"]),
        draws=int(document["draws"]),
        seed=int(document["seed"]),
        allow_simulated=bool(document.get("allow_simulated", False)),
        contexts=tuple(document.get("contexts", ())),
        abstain=bool(document.get("abstain", False)),
    )


def stacked(rows: list[Measured]) -> Measured:
    """Rows under one another; a feature that a row does not have is NaN, names in order of first appearance."""
    names = tuple(dict.fromkeys(name for row in rows for name in row.names))
    place = {name: i for i, name in enumerate(names)}
    values = np.full((len(rows), len(names)), np.nan)
    for i, row in enumerate(rows):
        values[i, [place[name] for name in row.names]] = row.values[0]
    outcomes, reasons = tuple(row.outcomes[0] for row in rows), tuple(row.reasons[0] for row in rows)
    return Measured(values, names, outcomes, reasons)


def _same_model(files: JobFiles, room: Room, draws: pd.DataFrame) -> None:
    """Rows of two models never meet in one job."""
    design = design_hash(cross([DMSO_INCHIKEY], draws))
    document = {"provenance": room.provenance.document(), "design": design}
    file = files.work / "plan.json"
    if file.is_file():
        if read_json(file) != document:
            raise ReferenceMismatch(
                "the model, its engine or its settings changed while this request was unfinished: send it again"
            )
        return
    files.work.mkdir(parents=True, exist_ok=True)
    write(file, json_text(document).encode(), "plan")
