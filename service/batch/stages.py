"""The stages of a batch as functions of one item each: chem, paint, profile, finish. Executors only move items.

An item is a JSON header and named arrays. A compound begins as {row, part, smiles, inchikey}; `chem` adds its vector
and standing; `slabs` cuts its draws into pieces; `paint` and `profile` work on pieces; `finish` takes all measured
pieces of a compound and gives its effect and predictions, or the number of draws it still needs. What goes wrong with
one compound becomes {"failed": reason, "sentence": ...} and stays with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.design import cross, design_hash
from chem.molecule import Molecule
from profiling.profiles import OUTCOME, REASON, Profiles, with_prefix
from profiling.tables import split_table
from service.answer import document
from service.batch.adaptive import need, responses
from service.batch.ask import BatchRequest
from service.batch.pictures import keep
from service.batch.plan import Plan, draws_of
from service.batch.store import Store
from service.batch.tables import CONTROL, read_wide, wide
from service.errors import EngineFailure, ServiceError, entry, sentence
from service.pipeline import Painted, effect_of, rank, why_withheld, widen
from service.reference import KINDS, Reference
from service.request import FAILED, OK, OUT_OF_DOMAIN, Request
from service.rooms import DMSO_INCHIKEY, DMSO_SMILES, Standing

LOG = logging.getLogger("dopaint.batch")
SLAB = 32  # draws of one compound painted together at most: bounds the memory
CONTROL_ROW = 0  # entries are numbered from 1


class Item(NamedTuple):
    """What moves between stages."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def control_item() -> Item:
    """The control, as a compound."""
    return Item({"row": CONTROL_ROW, "part": -1, "smiles": DMSO_SMILES, "inchikey": DMSO_INCHIKEY}, {})


def slabs(item: Item, start: int, stop: int, micro_batch: int) -> list[Item]:
    """The draws start to stop of a compound in pieces of at most `SLAB`, or one micro-batch."""
    size = max(micro_batch, SLAB // micro_batch * micro_batch)
    edges = range(start, stop, size)
    return [Item({**item.header, "start": a, "stop": min(a + size, stop)}, dict(item.arrays)) for a in edges]


class Stages:
    """The stage functions over one room, plan and address. Loaded things are kept; nothing else is."""

    def __init__(self, room: Any, plan: Plan, store: Store) -> None:
        self.room, self.plan, self.store = room, plan, store

    @cached_property
    def request(self) -> BatchRequest:
        """What was asked."""
        return self.plan.request

    @cached_property
    def reference(self) -> Reference:
        """The model's reference library."""
        found: Reference = self.room.reference()
        return found

    @cached_property
    def draws(self) -> pd.DataFrame:
        """The draws of the design; checked against the plan's hash."""
        draws = draws_of(self.room, self.request, self.reference.effect)
        if design_hash(draws) != self.plan.document["design"]["hash"]:
            raise EngineFailure("the design drawn here is not the plan's: every machine needs the same packages")
        return draws

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features of effects, in order."""
        return self.reference.normalisation.names

    @cached_property
    def control(self) -> Painted:
        """The measured control, as kept at the address."""
        return painted_from(split_table(read_wide(self.store.get(CONTROL))))

    def chem(self, item: Item) -> Item:
        """Adds the vector float32 [d] and the standing of a molecule."""

        def work() -> Item:
            molecule = molecule_of(item)
            vector = np.asarray(self.room.vector(molecule), np.float32)
            if item.header["row"] == CONTROL_ROW:
                return Item(item.header, {"vector": vector})
            standing = asdict(self.room.standing(molecule))
            return Item({**item.header, "standing": standing}, {"vector": vector})

        return guarded(item, work)

    def paint(self, items: Sequence[Item], tick: Callable[[int], None] = lambda n: None) -> list[Item]:
        """Adds the pictures float32 [n, c, h, w] of each piece; pieces share micro-batches."""
        rows = [self.draws.iloc[one.header["start"] : one.header["stop"]] for one in items]
        sizes = [len(one) for one in rows]
        molecules = [molecule_of(one) for one, n in zip(items, sizes, strict=True) for _ in range(n)]
        vectors = np.repeat(np.stack([one.arrays["vector"] for one in items]), sizes, axis=0)
        try:
            pictures = self.room.paint_rows_of(molecules, vectors, pd.concat(rows, ignore_index=True), tick)
        except Exception as error:
            if len(items) > 1:
                return [made for one in items for made in self.paint([one], tick)]
            LOG.exception("painting %s failed", items[0].header["inchikey"])
            return [failed(items[0], error)]
        edges = np.cumsum([0, *sizes])
        return [
            Item(one.header, {"pictures": pictures[a:b]})
            for one, a, b in zip(items, edges[:-1], edges[1:], strict=True)
        ]

    def profile(self, item: Item) -> Item:
        """Pictures -> one profile each, float64 [n, k] on `names`, and the outcome of each; keeps pictures if asked."""

        def work() -> Item:
            pictures = item.arrays["pictures"]
            rows = self.draws.iloc[item.header["start"] : item.header["stop"]]
            keep(self.request.pictures, self.store, item.header, rows, pictures, self.room.card)
            measured = self.room.measure(pictures, lambda n: None)
            meta = pd.DataFrame({"Metadata_row": range(len(pictures))})
            values = np.asarray(measured.values, dtype=np.float64)
            found = widen(Profiles(meta, values, measured.names), self.names)
            header = {**item.header, "outcomes": list(measured.outcomes), "reasons": list(measured.reasons)}
            return Item(header, {"values": found.values})

        return guarded(item, work)

    def control_table(self, pieces: Sequence[Item]) -> bytes:
        """The control's profiles as parquet. Raises `EngineFailure` when no picture of it could be measured."""
        whole = joined(pieces)
        if "failed" in whole.header:
            raise EngineFailure(f"the control failed: {whole.header['sentence']}")
        outcomes = whole.header["outcomes"]
        if all(one == FAILED for one in outcomes):
            raise EngineFailure(
                f"none of the control's {len(outcomes)} pictures could be measured: {whole.header['reasons'][0]}"
            )
        return wide(self.measured(whole).profiles)

    def measured(self, whole: Item) -> Painted:
        """A compound's profiles with the draws they belong to."""
        n = len(whole.arrays["values"])
        rows = self.draws.iloc[:n].reset_index(drop=True)
        rows = rows.assign(compound=whole.header["inchikey"])[["compound", *rows.columns]]
        meta = with_prefix(rows).assign(
            **{
                OUTCOME: whole.header["outcomes"],
                REASON: whole.header["reasons"],
                "Metadata_row_of": whole.header["row"],
            }
        )
        return Painted(Profiles(meta, whole.arrays["values"], self.names), tuple(whole.header["outcomes"]))

    def finish(self, pieces: Sequence[Item]) -> Item:
        """All measured pieces of one compound -> its effect and predictions, or {"more": draws it needs in all}.

        Arrays: value, se float64 [k] on `names`, and the profiles of its draws where they are kept.
        """
        whole = joined(pieces)
        if "failed" in whole.header:
            return whole
        return guarded(whole, lambda: self._finish(whole))

    def _finish(self, whole: Item) -> Item:
        header, request, molecule = whole.header, self.request, molecule_of(whole)
        painted = self.measured(whole)
        n = len(painted.outcomes)
        if all(one == FAILED for one in painted.outcomes):
            raise EngineFailure(f"none of {n} pictures could be measured, the first because: {header['reasons'][0]}")
        draws = self.draws.iloc[:n].reset_index(drop=True)
        control = Painted(self.control.profiles.rows(range(n)), self.control.outcomes[:n])
        effects, differences = effect_of(painted, control, draws, self.reference, molecule.inchikey)
        differences = self._scorable(differences)
        reached = True
        if request.adaptive:
            answer = self._need(differences)
            if answer.draws > n:
                return Item({**bare(header), "more": answer.draws}, {})
            reached = answer.reached
        standing = Standing(**header["standing"])
        one = Request((molecule.smiles,), n, request.seed, request.allow_simulated, request.contexts, request.abstain)
        withheld = self._other_steps() or why_withheld(self.room, one, standing, effects)
        ranking = {} if withheld else rank(effects, differences, self.reference, molecule)
        told = document(
            room=self.room,
            request=one,
            molecule=molecule,
            standing=standing,
            effects=effects,
            painted=painted.outcomes,
            control=control.outcomes,
            design=design_hash(cross([molecule.inchikey, DMSO_INCHIKEY], draws)),
            withheld=withheld,
            ranking=ranking,
        )
        verdict = (
            OK if standing.in_library or request.allow_simulated or not self.room.card.simulated else OUT_OF_DOMAIN
        )
        found = {
            **bare(header),
            "outcome": verdict,
            "withheld": withheld,
            "answer": told,
            "draws": n,
            "reached": reached,
            "without_cells": sum(one == "no_cells" for one in painted.outcomes),
            "unmeasured": sum(one == FAILED for one in painted.outcomes),
        }
        arrays = {"value": effects.value[0], "se": effects.se[0]}
        if request.profiles == "draws":
            found |= {"outcomes": list(painted.outcomes), "reasons": header["reasons"]}
            arrays["profiles"] = painted.profiles.values
        return Item(found, arrays)

    def _scorable(self, differences: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """NaN where the engine does not measure what the library's engine does."""
        unlike = tuple(self.plan.document["engine"].get("not_scored", ()))
        if not unlike:
            return differences
        columns = np.array([name.endswith(unlike) for name in self.names], dtype=bool)
        return np.where(columns, np.nan, differences)

    def _need(self, differences: Float[np.ndarray, "n k"]) -> Any:
        place = {name: i for i, name in enumerate(self.names)}
        used = differences[:, [place[name] for name in self.reference.profiles.names]]
        values = np.concatenate([responses(used, self.reference.subprofiles[kind]) for kind in KINDS], axis=1)
        return need(values, self.request.width, self.request.pilot, self.request.draws)

    def _other_steps(self) -> str:
        if not getattr(self.room, "other_sampling", False):
            return ""
        return (
            "No mechanism is called: these pictures were painted with other sampler settings than the model's own, and "
            "the reference library is made with those."
        )


def molecule_of(item: Item) -> Molecule:
    """The molecule of an item."""
    return Molecule(item.header["smiles"], item.header["inchikey"])


def bare(header: Mapping[str, Any]) -> dict[str, Any]:
    """What every item of a compound says."""
    return {name: header[name] for name in ("row", "part", "smiles", "inchikey")}


def failed(item: Item, error: BaseException) -> Item:
    """The item of a compound that went wrong."""
    told = entry(error, "")
    header = bare(item.header)
    for name in ("start", "stop"):
        if name in item.header:
            header[name] = item.header[name]
    return Item({**header, "failed": str(told["reason"]), "sentence": sentence(error)}, {})


def guarded(item: Item, work: Callable[[], Item]) -> Item:
    """`work()`, or the item as failed; what has failed before stays as it is."""
    if "failed" in item.header:
        return item
    try:
        return work()
    except ServiceError as error:
        return failed(item, error)
    except Exception as error:
        LOG.exception("compound %s failed", item.header["inchikey"])
        return failed(item, error)


def joined(pieces: Iterable[Item]) -> Item:
    """The measured pieces of a compound as one, in the order of its draws; failed if one has failed."""
    ordered = sorted(pieces, key=lambda one: int(one.header.get("start", 0)))
    for one in ordered:
        if "failed" in one.header:
            return one
    header = {
        **ordered[0].header,
        "outcomes": [word for one in ordered for word in one.header["outcomes"]],
        "reasons": [word for one in ordered for word in one.header["reasons"]],
    }
    return Item(header, {"values": np.concatenate([one.arrays["values"] for one in ordered])})


def painted_from(profiles: Profiles) -> Painted:
    """Profiles and outcomes from the kept table of a control."""
    return Painted(profiles, tuple(str(word) for word in profiles.column("Outcome")))
