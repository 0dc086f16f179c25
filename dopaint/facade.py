"""`predict`, `load` and `Design`: the library without the doors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from service.request import Outcome
    from service.rooms import Room


@dataclass(frozen=True)
class Design:
    """How a compound is looked at: `draws` contexts (1 to 1000), chosen with their noise by `seed`.

    `contexts` names the sources, batches or plates to draw from; none: all that the model knows.
    """

    draws: int = 16
    seed: int = 1
    contexts: tuple[str, ...] = ()

    def table(self, compounds: Sequence[str], room: Room) -> pd.DataFrame:
        """The rows of the design, one a picture. `compounds` are InChIKeys, the control's among them if wanted."""
        from causal.design import cross
        from service.pipeline import contexts_of
        from service.request import Request

        draws = contexts_of(room, room.reference(), Request(("C",), self.draws, self.seed, contexts=self.contexts))
        return cross(list(compounds), draws)


def load(model: str | Path = "simulation-128", engine: str = "cellprofiler", *, workers: int = 2) -> Room:
    """A model and its measuring engine, ready for many calls of `predict`; use it in a `with` statement.

    Raises `MissingModel` or `UnknownName` (both `ValueError`) with what to do.
    """
    from service.engine import load_room

    return load_room(str(model), engine, workers)


def predict(
    smiles: str | Sequence[str],
    *,
    model: str | Path | Room = "simulation-128",
    design: Design | None = None,
    engine: str = "cellprofiler",
    out: str | Path | None = None,
    allow_simulated: bool = False,
    abstain: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Outcome]:
    """Paint and measure each molecule and rank its mechanisms of action; with `out`, write the result folders too.

    The outcomes are in the order of `smiles`; a molecule's answer does not depend on its neighbours. Raises a
    `ValueError` that says what to do for what concerns all molecules, such as a missing model.
    """
    from service.engine import predict as run

    design = design or Design()
    return run(
        [smiles] if isinstance(smiles, str) else list(smiles),
        model=model,
        draws=design.draws,
        seed=design.seed,
        engine=engine,
        out=None if out is None else Path(out),
        allow_simulated=allow_simulated,
        abstain=abstain,
        contexts=design.contexts,
        progress=progress,
    )
