"""Requests and answers of the HTTP door, as pydantic models: their bounds are the bounds in the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from service.request import MAX_CONTEXTS, MAX_DRAWS, MAX_SEED, MAX_SMILES

# A SMILES over 2,000 characters is refused by chem, entry by entry; this bound only keeps nonsense out of it.
Smiles = Annotated[str, Field(max_length=100_000, examples=["CC(=O)Oc1ccccc1C(=O)O"])]
ContextName = Annotated[str, Field(min_length=1, max_length=100)]
Status = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
ASPIRIN: JsonDict = {"smiles": ["CC(=O)Oc1ccccc1C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"], "draws": 16, "seed": 1}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Precision(_Strict):
    """Draw until the 95 % interval over draws of every selected feature is narrow enough."""

    half_width: float = Field(
        ge=0.01, le=100, allow_inf_nan=False, description="half the width of the intervals, in control MADs"
    )


class PredictionRequest(_Strict):
    """What to predict. A molecule outside the simulated library gets no mechanism unless `allow_simulated` is true."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [ASPIRIN]})

    smiles: Smiles | Annotated[list[Smiles], Field(min_length=1, max_length=MAX_SMILES)]
    draws: int = Field(
        default=16,
        ge=1,
        le=MAX_DRAWS,
        description="pictures of each compound, each in a context of its own; with `precision`, the most",
    )
    precision: Precision | None = None
    seed: int = Field(default=1, ge=0, le=MAX_SEED, description="determines contexts and noise")
    control: Literal["DMSO"] = Field(
        default="DMSO", description="what effects are measured against, under the same contexts and noise"
    )
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


class LinkRequest(_Strict):
    """What a signed link opens, and for how long."""

    resource: Literal["events", "zip", "zarr", "pictures", "files"] = Field(
        default="files", description="files: everything that can be read of the job"
    )
    seconds: int = Field(default=3600, ge=60, le=86_400)


class Link(BaseModel):
    """A signed link: for "zip" and "events" the address itself, else the prefix of every address that it opens."""

    url: str
    prefix: str
    expires: str


class Progress(BaseModel):
    """A picture is two units: painted and measured."""

    done: int
    total: int
    fraction: float = Field(ge=0, le=1)
    stage: str


class MoleculeOutcome(BaseModel):
    """One entry of the list; "pending" until it is answered. `predictions` is the content of its predictions.json."""

    index: int
    input: str
    outcome: Literal["ok", "invalid", "out_of_domain", "failed", "pending"]
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
    status: Status
    evidence: str | None
    statement: str | None
    jobs_ahead: int
    progress: Progress
    seconds_left: float | None
    created: str
    finished: str | None
    expires: str | None
    request: dict[str, Any]
    problem: dict[str, Any] | None
    molecules: list[MoleculeOutcome]
    links: dict[str, str]


class PredictionItem(BaseModel):
    """One line of the list: what was asked first, and where it stands."""

    id: str
    status: Status
    created: str
    finished: str | None
    expires: str | None
    smiles: list[str] = Field(description="the first three")
    n_molecules: int
    draws: int
    seed: int
    request: dict[str, Any]
    progress: Progress
    links: dict[str, str]


class PredictionList(BaseModel):
    """Newest first; `next` is the cursor of the following page, null on the last."""

    items: list[PredictionItem]
    next: str | None


class MoleculeAnswer(BaseModel):
    """A standardised molecule with its drawing and its standing to what the model knows."""

    smiles: str
    inchikey: str
    changes: list[str]
    svg: str
    standing: dict[str, Any] | None


class OwnPictures(BaseModel):
    """A job on own pictures; `result` once it is done."""

    id: str
    status: Status
    evidence: str | None
    statement: str | None
    jobs_ahead: int
    progress: Progress
    seconds_left: float | None
    created: str
    finished: str | None
    expires: str | None
    request: dict[str, Any]
    problem: dict[str, Any] | None
    result: dict[str, Any] | None
    links: dict[str, str]


class OwnPicturesItem(BaseModel):
    """One line of the list of own pictures."""

    id: str
    status: Status
    created: str
    finished: str | None
    expires: str | None
    request: dict[str, Any]
    progress: Progress
    links: dict[str, str]


class OwnPicturesList(BaseModel):
    """Newest first; `next` is the cursor of the following page, null on the last."""

    items: list[OwnPicturesItem]
    next: str | None


class OwnRow(_Strict):
    """One field or well: what it is, and its features in the order of `features`; null where not measured."""

    role: Literal["compound", "control"] = "compound"
    values: list[float | None] = Field(min_length=1, max_length=20_000)


class OwnProfiles(_Strict):
    """Profiles measured elsewhere with the engine of the reference library."""

    engine: str = Field(max_length=100, description="the engine's hash (see /v1/reference), or its name")
    unit: Literal["raw", "control MADs"] = Field(
        default="raw", description="raw: as measured; control MADs: normalised on your own controls already"
    )
    features: list[Annotated[str, Field(min_length=1, max_length=300)]] = Field(min_length=1, max_length=20_000)
    rows: list[OwnRow] = Field(min_length=1, max_length=10_000)
    smiles: Smiles | None = Field(default=None, description="of the compound, for the baseline of structure alone")
    allow_simulated: bool = False


class Scores(BaseModel):
    """Mechanisms and targets of own profiles or pictures, best first, with how they came about."""

    evidence: str
    statement: str
    n_compound: int
    n_control: int
    control: Literal["own", "of the model"]
    interval: dict[str, Any]
    withheld: str
    moa: dict[str, Any]
    target: dict[str, Any]
    notes: list[str]


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
    request_id: str
