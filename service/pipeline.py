"""SMILES -> molecule -> pictures -> profiles -> effect under do(compound) -> mechanisms and targets. Compositions only.

A molecule's answer is a function of the molecule, the draws, the seed and the model: every molecule is encoded, painted
and measured by itself, under contexts and noise that it shares with the control and with every other molecule.
So its files have the same bytes alone, in a list, and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.contexts import Contexts
from causal.design import cross, design_hash, draw_contexts
from causal.gformula import Effects, contrast
from chem.bounded import standardise_within
from chem.fingerprint import morgan_bits, tanimoto
from chem.molecule import InvalidSmiles, Molecule
from profiling.normalise import transform
from profiling.profiles import COUNT_CELLS, Profiles, concatenate, with_prefix
from service.answer import document
from service.errors import EngineFailure, UnknownName, entry, sentence
from service.reference import KINDS, Reference, check
from service.request import FAILED, INVALID, OK, OUT_OF_DOMAIN, Outcome, Request
from service.results import Writer
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES, Measured, Room, Standing
from service.score import scored

LOG = logging.getLogger("dopaint.pipeline")
DRAWS_AT_ONCE = 32  # painted, then measured: bounds the memory

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, what is being done); a picture is two units: painted and measured."""


@dataclass(frozen=True, eq=False)
class Painted:
    """One compound's rows, measured: row i of `profiles` is draw i. The pictures are with the writer."""

    profiles: Profiles
    outcomes: tuple[str, ...]


def predict_in(
    room: Room, request: Request, out: Path | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """The outcome of each SMILES in order; with `out`, their result folders too.

    One bad molecule never spoils the others. Raises what concerns all of them: `MissingReference`, `ReferenceMismatch`,
    `EngineFailure` for the control, and whatever `progress` raises.
    """
    reference = room.reference()
    check(reference, room.provenance.document())
    draws = contexts_of(room, reference, request)
    outcomes = [read_entry(index, text) for index, text in enumerate(request.smiles)]
    molecules = list(dict.fromkeys(one for one in outcomes if isinstance(one, Molecule)))
    distinct = {(m.inchikey, m.smiles): Molecule(m.smiles, m.inchikey) for m in molecules}
    tick = _Ticker(progress, 2 * request.draws * (len(distinct) + 1) if distinct else 0)
    done: dict[tuple[str, str], Outcome] = {}
    with Writer(out, room.card) as writer:
        if distinct:
            control = paint_and_measure(room, Molecule(DMSO_SMILES, DMSO_INCHIKEY), draws, writer, "control", tick)
            writer.control(control.profiles)
            for key, folder in folders_of(list(distinct)):
                done[key] = _one(room, reference, request, draws, control, distinct[key], folder, writer, tick)
        answer = [
            one
            if isinstance(one, Outcome)
            else placed(done[one.inchikey, one.smiles], index, request.smiles[index], one)
            for index, one in enumerate(outcomes)
        ]
        writer.request(request, answer, room.provenance)
    return answer


def refused(request: Request) -> list[Outcome]:
    """The outcomes of the entries that cannot be used, without a model."""
    read = [read_entry(index, text) for index, text in enumerate(request.smiles)]
    return [one for one in read if isinstance(one, Outcome)]


def contexts_of(room: Room, reference: Reference, request: Request) -> pd.DataFrame:
    """The draws (context, noise seed) that all molecules of a request and the control share."""
    effect = reference.effect
    wanted = target(room.contexts, effect.distribution, request.contexts)
    return draw_contexts(room.contexts, request.draws, effect.scheme, wanted, request.seed)


def target(contexts: Contexts, distribution: str, names: Sequence[str]) -> str | pd.DataFrame:
    """p*(C): the distribution as it is, or restricted to plates of the named sources, batches or plates.

    Raises `UnknownName` for a name that the model does not know.
    """
    if not names:
        return distribution
    plates = contexts.plates
    levels = {level: set(plates[level]) for level in ("source", "batch", "plate")}
    for name in names:
        if not any(name in known for known in levels.values()):
            raise UnknownName(
                f"context {name!r} is not known to the model: expected a source "
                f"({', '.join(sorted(levels['source']))}), or one of its batches or plates"
            )
    chosen = plates[list(levels)].isin(list(names)).any(axis=1).to_numpy()
    weight = contexts.distribution(distribution).weight
    return plates.loc[chosen, ["plate"]].assign(weight=weight[chosen]).reset_index(drop=True)


def paint_and_measure(
    room: Room, molecule: Molecule, draws: pd.DataFrame, writer: Writer, folder: str, tick: Callable[[int, str], None]
) -> Painted:
    """Paint one compound under every draw and measure the pictures, a bounded number at a time.

    Raises `EngineFailure` when no picture could be measured; pictures without cells are measured.
    """
    rows = draws.assign(compound=molecule.inchikey)[["compound", *draws.columns]]
    vector = room.vector(molecule)
    parts: list[Profiles] = []
    outcomes: list[str] = []
    reasons: list[str] = []
    for start, stop in _chunks(len(rows), room.card.micro_batch):
        some = rows.iloc[start:stop].reset_index(drop=True)
        pictures = room.paint(vector, some, lambda n: tick(n, "painting"))
        writer.pictures(folder, some, pictures)
        measured = room.measure(pictures, lambda n: tick(n, "measuring"))
        parts.append(profiles_of(some, measured))
        outcomes += measured.outcomes
        reasons += measured.reasons
    return measured_rows(parts, outcomes, reasons)


def measured_rows(parts: list[Profiles], outcomes: Sequence[str], reasons: Sequence[str]) -> Painted:
    """One compound from its parts in the order of the draws. Raises `EngineFailure` when nothing could be measured."""
    if all(one == "failed" for one in outcomes):
        raise EngineFailure(f"none of {len(outcomes)} pictures could be measured, the first because: {reasons[0]}")
    return Painted(concatenate(_same_features(parts)), tuple(outcomes))


def effect_of(
    compound: Painted, control: Painted, draws: pd.DataFrame, reference: Reference, inchikey: str
) -> tuple[Effects, Float[np.ndarray, "n k"]]:
    """The normalised effect of one compound over all measured features, and its paired differences draw by draw."""
    normalised = [
        transform(_on(one.profiles, reference), reference.normalisation).values for one in (compound, control)
    ]
    cells = [np.array([o == OK for o in one.outcomes], dtype=bool) for one in (compound, control)]
    design = cross([inchikey, DMSO_INCHIKEY], draws)
    values = np.stack(normalised, axis=1).reshape(len(design), -1)
    has_cells = np.stack(cells, axis=1).reshape(len(design))
    effects = contrast(values, design, DMSO_INCHIKEY, names=reference.normalisation.names, has_cells=has_cells)
    both = (cells[0] & cells[1])[:, None]
    return effects, np.where(both, normalised[0] - normalised[1], np.nan)


def _one(
    room: Room,
    reference: Reference,
    request: Request,
    draws: pd.DataFrame,
    control: Painted,
    molecule: Molecule,
    folder: str,
    writer: Writer,
    tick: _Ticker,
) -> Outcome:
    before = tick.done
    try:
        painted = paint_and_measure(room, molecule, draws, writer, folder, tick)
        effects, answer = answer_of(room, reference, request, draws, control, molecule, painted)
        writer.molecule(folder, painted.profiles, effects, answer)
    except Exception as error:
        LOG.exception("molecule %s failed", molecule.inchikey)
        writer.discard(folder)
        tick.skip_to(before + 2 * request.draws)
        return failed(error)
    return outcome_of(room, request, folder, answer)


def answer_of(
    room: Room,
    reference: Reference,
    request: Request,
    draws: pd.DataFrame,
    control: Painted,
    molecule: Molecule,
    painted: Painted,
) -> tuple[Effects, dict[str, Any]]:
    """The effects of a measured molecule, and the content of its predictions.json."""
    standing = room.standing(molecule)
    effects, differences = effect_of(painted, control, draws, reference, molecule.inchikey)
    withheld = why_withheld(room, request, standing, effects)
    ranking = {} if withheld else rank(effects, differences, reference, molecule)
    answer = document(
        room=room,
        request=request,
        molecule=molecule,
        standing=standing,
        effects=effects,
        painted=painted.outcomes,
        control=control.outcomes,
        design=design_hash(cross([molecule.inchikey, DMSO_INCHIKEY], draws)),
        withheld=withheld,
        ranking=ranking,
    )
    return effects, answer


def outcome_of(room: Room, request: Request, folder: str, answer: dict[str, Any]) -> Outcome:
    """What became of a molecule with an answer."""
    known = bool(answer["domain"]["in_library"])
    verdict = OK if known or request.allow_simulated or not room.card.simulated else OUT_OF_DOMAIN
    return Outcome(0, "", verdict, sentence=str(answer["withheld"]), folder=folder, answer=answer)


def failed(error: BaseException) -> Outcome:
    """What became of a molecule that could not be painted, measured or scored."""
    return Outcome(0, "", FAILED, reason=str(entry(error, "")["reason"]), sentence=sentence(error))


def why_withheld(room: Room, request: Request, standing: Standing, effects: Effects) -> str:
    """One sentence why no call is made; empty when one is."""
    if room.card.simulated and not standing.in_library and not request.allow_simulated:
        return (
            "No mechanism is called: the model was trained on simulated pictures, and the simulated world knows "
            "nothing of this molecule. Ask again with allow_simulated to see what the simulation would say."
        )
    if request.abstain and standing.zone == "out":
        return (
            f"No mechanism is called: the molecule lies outside the model's domain, and you asked to abstain then "
            f"({standing.basis})."
        )
    if not np.isfinite(effects.value[0]).any() or effects.n_without_cells[0] >= effects.n_draws[0]:
        return "No mechanism is called: no draw has cells under both the compound and the control."
    return ""


def rank(
    effects: Effects, differences: Float[np.ndarray, "n k"], reference: Reference, molecule: Molecule
) -> dict[str, dict[str, Any]]:
    """Mechanisms and targets, best first, on the features of the reference library."""
    place = {name: i for i, name in enumerate(effects.names)}
    chosen = [place[name] for name in reference.profiles.names]
    similar = tanimoto(morgan_bits([molecule.smiles]), reference.fingerprints)[0]
    structure = {
        str(key): float(value) for key, value in zip(reference.profiles.column("InChIKey"), similar, strict=True)
    }
    count = float(effects.value[0, place[COUNT_CELLS]]) if COUNT_CELLS in place else float("nan")
    used = differences[:, chosen]
    return {kind: scored(used, reference, kind, molecule.inchikey, structure, count) for kind in KINDS}


def read_entry(index: int, text: str) -> Outcome | Molecule:
    """One entry of the list: its molecule, or why it cannot be used."""
    try:
        molecule = standardise_within(text)
    except InvalidSmiles as error:
        first = entry(error, "")
        return Outcome(index, text, INVALID, str(first["reason"]), str(first["message"]), first["position"])
    if molecule.inchikey == DMSO_INCHIKEY:
        words = "DMSO is the control that every effect is measured against: give another molecule."
        return Outcome(index, text, INVALID, "is_control", words, None, molecule.smiles, molecule.inchikey)
    return molecule


def placed(outcome: Outcome, index: int, text: str, molecule: Molecule) -> Outcome:
    """A molecule's outcome as that of one entry of the list."""
    return Outcome(
        index,
        text,
        outcome.outcome,
        outcome.reason,
        outcome.sentence,
        None,
        molecule.smiles,
        molecule.inchikey,
        molecule.changes,
        outcome.folder,
        outcome.answer,
    )


def folders_of(keys: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], str]]:
    """A folder name for each molecule: its InChIKey; tautomers that share one get a number from the second on."""
    count: dict[str, int] = {}
    for inchikey, smiles in keys:
        count[inchikey] = count.get(inchikey, 0) + 1
        yield (inchikey, smiles), inchikey if count[inchikey] == 1 else f"{inchikey}-{count[inchikey]}"


def _chunks(n: int, micro_batch: int, at_once: int = DRAWS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """Whole micro-batches, so that a row sits at the same place of the same batch however many draws follow it."""
    size = micro_batch * max(1, at_once // micro_batch)
    return ((start, min(start + size, n)) for start in range(0, n, size))


def profiles_of(rows: pd.DataFrame, measured: Measured) -> Profiles:
    """Measured pictures with their design rows."""
    meta = with_prefix(rows).assign(Metadata_Outcome=list(measured.outcomes), Metadata_Reason=list(measured.reasons))
    return Profiles(meta, np.asarray(measured.values, dtype=np.float64), measured.names)


def _same_features(parts: list[Profiles]) -> list[Profiles]:
    """Parts without any cell know no feature names: widen each to the union, in order of first appearance."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    return [widen(part, names) for part in parts]


def widen(part: Profiles, names: Sequence[str]) -> Profiles:
    """The features `names` in their order; NaN for those that were not measured."""
    if part.names == tuple(names):
        return part
    place = {name: i for i, name in enumerate(part.names)}
    values = np.full((len(part), len(names)), np.nan)
    for i, name in enumerate(names):
        if name in place:
            values[:, i] = part.values[:, place[name]]
    return Profiles(part.meta, values, tuple(names))


def _on(profiles: Profiles, reference: Reference) -> Profiles:
    return widen(profiles, reference.normalisation.names)


class _Ticker:
    """Counts units and reports them."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.done, self.total, self._progress = 0, total, progress

    def __call__(self, n: int, stage: str) -> None:
        self.skip_to(self.done + n, stage)

    def skip_to(self, done: int, stage: str = "next molecule") -> None:
        self.done = min(done, self.total)
        if self._progress is not None:
            self._progress(self.done, self.total, stage)
