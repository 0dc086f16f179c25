"""Requests and answers of the HTTP door, as pydantic models: their bounds are the bounds in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.request import MAX_CONTEXTS, MAX_DRAWS, MAX_SEED, MAX_SMILES

# A SMILES over 2,000 characters is refused by chem, entry by entry; this bound only keeps nonsense out of it.
Smiles = Annotated[str, Field(max_length=100_000, examples=["CC(=O)Oc1ccccc1C(=O)O"])]
ContextName = Annotated[str, Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PredictionRequest(_Strict):
    """What to predict. A molecule outside the simulated library gets no mechanism unless `allow_simulated` is true."""

    smiles: Smiles | Annotated[list[Smiles], Field(min_length=1, max_length=MAX_SMILES)]
    draws: int = Field(
        default=16, ge=1, le=MAX_DRAWS, description="pictures of each compound, each in a context of its own"
    )
    seed: int = Field(default=1, ge=0, le=MAX_SEED, description="determines contexts and noise")
    allow_simulated: bool = False
    abstain: bool = Field(default=False, description="call no mechanism for a molecule outside the model's domain")
    contexts: list[ContextName] = Field(
        default=[],
        max_length=MAX_CONTEXTS,
        description="sources, batches or plates to draw from; none: all (see /v1/contexts)",
    )
    engine: str | None = Field(
        default=None, max_length=100, description="the measuring engine; default: the one the service runs"
    )
    model: str | None = Field(default=None, max_length=200, description="default: the model the service runs")

    @property
    def entries(self) -> list[str]:
        """The SMILES as a list."""
        return [self.smiles] if isinstance(self.smiles, str) else self.smiles


class MoleculeRequest(_Strict):
    """A molecule to be standardised and drawn."""

    smiles: Smiles


class Progress(BaseModel):
    """A picture is two units: painted and measured."""

    done: int
    total: int
    fraction: float = Field(ge=0, le=1)
    stage: str


class MoleculeOutcome(BaseModel):
    """One entry of the list. `predictions` is the content of its predictions.json."""

    index: int
    input: str
    outcome: Literal["ok", "invalid", "out_of_domain", "failed"]
    reason: str
    sentence: str
    position: int | None
    smiles: str
    inchikey: str
    changes: list[str]
    folder: str
    predictions: dict[str, Any] | None = None
    links: dict[str, str] = {}


class Prediction(BaseModel):
    """Where a prediction stands, and its answer once it is done."""

    id: str
    status: Literal["queued", "running", "done", "failed"]
    evidence: str | None
    statement: str | None
    jobs_ahead: int
    progress: Progress
    seconds_left: float | None
    request: dict[str, Any]
    problem: dict[str, Any] | None
    molecules: list[MoleculeOutcome]
    links: dict[str, str]


class MoleculeAnswer(BaseModel):
    """A standardised molecule with its drawing and its standing to what the model knows."""

    smiles: str
    inchikey: str
    changes: list[str]
    svg: str
    standing: dict[str, Any] | None


class ErrorEntry(BaseModel):
    """One refusal: a stable reason, a JSON pointer into the request, a sentence, the character if there is one."""

    reason: str
    pointer: str
    message: str
    position: int | None = None


class ProblemDocument(BaseModel):
    """RFC 9457. `detail` reads "<reason> at <pointer>[, character <n>]: <sentence>"; `errors` is the same in parts."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[ErrorEntry]
