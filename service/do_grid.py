"""The draws of a molecule with their contexts, and the do-grid made of them.

In a column of the grid both pictures share context and noise, so that what differs between the rows is what the
compound does; between columns the laboratory, batch or well differs, and so does the noise.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from profiling.inputs.field import well_of
from service import views
from service.errors import NotFound
from service.found import molecule_of
from service.jobs import Desk
from service.pipeline import contexts_of
from service.request import Request
from service.results import CONTROL

Document = dict[str, Any]
_CONTEXT = ("draw", "source", "batch", "plate", "plate_format", "row", "column")


def draws(desk: Desk, key: str, index: int, owner: str) -> Document:
    """Every planned draw: its context and seed, what became of it, whether its pictures are there, their addresses.

    Raises `NotFound` for a molecule that is not painted, `NotReady` before the job was looked at.
    """
    job, state = molecule_of(desk, key, index, owner)
    if not state.folder:
        raise NotFound(f"molecule {index} has no pictures: its outcome is {state.outcome!r}")
    room = desk.room()
    asked = Request(
        ("C",), int(job.request["draws"]), int(job.request["seed"]), contexts=tuple(job.request.get("contexts", ()))
    )
    plan = contexts_of(room, room.reference(), asked)
    ready = {(one.folder, one.draw) for one in desk.pictures(key, owner)}
    outcomes = _outcomes(desk, key, state.folder)
    root = f"/v1/predictions/{key}/molecules/{index}/pictures"
    rows = []
    for row in plan.to_dict("records"):
        draw = int(row["draw"])
        rows.append(
            {
                **{name: row[name] for name in _CONTEXT},
                "well": well_of(int(row["row"]) + 1, int(row["column"]) + 1),
                "seed": str(row["seed"]),  # 64 bits do not fit a JavaScript number
                "outcome": outcomes.get(draw),
                "compound_ready": (state.folder, draw) in ready,
                "control_ready": (CONTROL, draw) in ready,
                "compound": f"{root}/{draw}?row=compound",
                "control": f"{root}/{draw}?row=control",
                "difference": f"{root}/{draw}?row=difference",
            }
        )
    card = room.card
    return views.evidence(desk) | {"channels": list(card.channels), "picture_size": card.picture_size, "draws": rows}


def _outcomes(desk: Desk, key: str, folder: str) -> dict[int, str]:
    """Outcome of each draw of a finished molecule; none while it is worked on."""
    place = desk.place(key, folder)
    file = place / "profiles.parquet" if place is not None else None
    if file is None or not file.is_file():
        return {}
    table = pd.read_parquet(file, columns=["Metadata_draw", "Metadata_Outcome"])
    return {int(d): str(o) for d, o in zip(table["Metadata_draw"], table["Metadata_Outcome"], strict=True)}


def grid(desk: Desk, key: str, index: int, owner: str, by: str, limit: int) -> Document:
    """One column for each laboratory, batch, plate or well among the draws: its first draw, and how many it has."""
    listed = draws(desk, key, index, owner)
    columns: dict[str, Document] = {}
    for one in listed.pop("draws"):
        value = str(one[by])
        if value in columns:
            columns[value]["n_draws"] += 1
        else:
            columns[value] = {"value": value, "n_draws": 1, **one}
    chosen = sorted(columns.values(), key=lambda one: _order(one["value"]))[:limit]
    noise = "one for each column, shared by its compound and its control"
    return listed | {"by": by, "noise": noise, "columns": chosen}


def _order(text: str) -> tuple[int, str]:
    return len(text), text
