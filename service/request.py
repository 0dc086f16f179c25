"""What is asked of the pipeline, and what becomes of each molecule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import InvalidRequest

OK, INVALID, OUT_OF_DOMAIN, FAILED = "ok", "invalid", "out_of_domain", "failed"
MAX_SMILES, MAX_DRAWS, MAX_SEED, MAX_CONTEXTS = 1000, 1000, 2**63 - 1, 100


@dataclass(frozen=True)
class Request:
    """What was asked. `contexts`: names of sources, batches or plates to draw from; none: all that the model knows.
    `abstain`: no mechanism is called for a molecule outside the model's domain.

    Raises `InvalidRequest` for a bound that is passed.
    """

    smiles: tuple[str, ...]
    draws: int = 16
    seed: int = 1
    allow_simulated: bool = False
    contexts: tuple[str, ...] = ()
    abstain: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.smiles) <= MAX_SMILES:
            raise InvalidRequest(f"smiles has {len(self.smiles)} entries: expected 1 to {MAX_SMILES}")
        if not 1 <= self.draws <= MAX_DRAWS:
            raise InvalidRequest(f"draws is {self.draws}: expected 1 to {MAX_DRAWS}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InvalidRequest(f"seed is {self.seed}: expected 0 to {MAX_SEED}")
        if len(self.contexts) > MAX_CONTEXTS:
            raise InvalidRequest(f"contexts has {len(self.contexts)} names: expected at most {MAX_CONTEXTS}")


@dataclass(frozen=True)
class Outcome:
    """What became of one entry of the list: "ok", "invalid", "out_of_domain" or "failed".

    `out_of_domain` has pictures and profile but no call. `folder` is the name of its result folder, `answer` the
    content of its predictions.json.
    """

    index: int
    input: str
    outcome: str
    reason: str = ""
    sentence: str = ""
    position: int | None = None
    smiles: str = ""
    inchikey: str = ""
    changes: tuple[str, ...] = ()
    folder: str = ""
    answer: dict[str, Any] | None = None
