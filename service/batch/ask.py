"""What is asked of a batch: everything that decides a number, and nothing about the machines that make it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from service.errors import InvalidRequest, ServiceError
from service.request import MAX_CONTEXTS, MAX_DRAWS, MAX_SEED

PICTURES = ("none", "preview", "all")
PROFILES = ("none", "draws")


class OtherRun(ServiceError):
    """The address holds the results of another plan: other molecules, another design, model, engine or version."""


@dataclass(frozen=True)
class BatchRequest:
    """Options of `dopaint batch` that decide what is kept.

    draws: pictures of a compound, or the most of them where `width` > 0: then every compound gets `pilot` draws and as
    many more as Stein's rule asks for (`service.batch.adaptive`), so that the response along each mechanism's
    sub-profile is known within an interval of that full width, in control MADs. part: entries of the input kept
    together. steps, sampler: None = the model folder's own; others paint pictures that no reference library describes,
    so mechanisms are withheld. pictures: "none", "preview" (a PNG of each compound's first draw) or "all" (OME-TIFF and
    PNG of every draw). profiles: "draws" keeps the profile of every picture too.

    Raises `InvalidRequest` for a bound that is passed.
    """

    draws: int = 16
    seed: int = 1
    width: float = 0.0
    pilot: int = 8
    part: int = 64
    model: str = "simulation-128"
    engine: str = "fast"
    column: str | None = None
    name_column: str | None = None
    allow_simulated: bool = False
    abstain: bool = False
    contexts: tuple[str, ...] = ()
    steps: int | None = None
    sampler: str | None = None
    pictures: str = "none"
    profiles: str = "none"

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("draws", self.draws, 1, MAX_DRAWS),
            ("seed", self.seed, 0, MAX_SEED),
            ("part", self.part, 1, 100_000),
            ("steps", 1 if self.steps is None else self.steps, 1, 1000),
        ):
            if not low <= value <= high:
                raise InvalidRequest(f"{name} is {value}: expected {low} to {high}")
        if len(self.contexts) > MAX_CONTEXTS:
            raise InvalidRequest(f"contexts has {len(self.contexts)} names: expected at most {MAX_CONTEXTS}")
        for name, word, known in (
            ("keep-pictures", self.pictures, PICTURES),
            ("keep-profiles", self.profiles, PROFILES),
        ):
            if word not in known:
                raise InvalidRequest(f"{name} is {word!r}: expected one of {', '.join(known)}")
        if self.width < 0 or (self.width and not 2 <= self.pilot <= self.draws):
            raise InvalidRequest(
                f"width is {self.width:g} and pilot {self.pilot} of {self.draws} draws: expected a width of at least 0 "
                "and a pilot of at least 2 draws and at most all"
            )

    @property
    def adaptive(self) -> bool:
        """Whether compounds may need fewer than `draws`."""
        return self.width > 0

    @property
    def first(self) -> int:
        """Draws of every compound in the first round."""
        return self.pilot if self.adaptive else self.draws

    def document(self) -> dict[str, Any]:
        """As JSON; `from_document` is its inverse."""
        values = asdict(self)
        values["contexts"] = list(self.contexts)
        return values

    @staticmethod
    def from_document(values: dict[str, Any]) -> BatchRequest:
        """From the JSON of `document`."""
        return BatchRequest(**{**values, "contexts": tuple(values["contexts"])})

    def text(self) -> str:
        """Canonical JSON: equal requests have equal text."""
        return json.dumps(self.document(), sort_keys=True)
