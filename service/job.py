"""A job as its record: what was asked, by whom, and where it stands; sealed, so that a damaged record is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from service.errors import Damaged

QUEUED, RUNNING, DONE, FAILED, CANCELLED, EXPIRED = "queued", "running", "done", "failed", "cancelled", "expired"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED, EXPIRED)
ENDED = (DONE, FAILED, CANCELLED, EXPIRED)


@dataclass(frozen=True)
class Job:
    """One accepted request and where it stands. `problem` is a problem document when `state` is "failed".

    `done` of `total` units: a picture is two, painted and measured. `bytes` of its results; an estimate until it ends.
    """

    id: str
    owner: str
    kind: str
    state: str
    request: dict[str, Any]
    idempotency_key: str | None
    attempts: int
    created: float
    started: float | None
    finished: float | None
    expires: float | None
    rows: int
    done: int
    total: int
    stage: str
    problem: dict[str, Any] | None
    bytes: int
    last_event: int

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to it any more but its expiry."""
        return self.state in ENDED


@dataclass(frozen=True)
class Page:
    """Some jobs, newest first, and the cursor of those after them."""

    jobs: tuple[Job, ...]
    next: str | None


@dataclass(frozen=True)
class Submitted:
    """An accepted job; not `created` when its idempotency key had been used for it before."""

    job: Job
    created: bool


def seal(key: str, owner: str, kind: str, request: str, created: float) -> str:
    """SHA-256 of what never changes about a job."""
    return hashlib.sha256(json.dumps([key, owner, kind, request, created]).encode()).hexdigest()


def job_of(row: Any) -> Job:
    """The job of a database row (a mapping by column). Raises `Damaged` when it is not what was written."""
    created = float(row["created"])
    if row["seal"] != seal(row["id"], row["owner"], row["kind"], row["request"], created) or row["state"] not in STATES:
        raise Damaged("a record of the job store is damaged; the service rebuilds it when it starts again", 60.0)
    values = {name: row[name] for name in Job.__dataclass_fields__}
    values["request"] = json.loads(values["request"])
    values["problem"] = json.loads(values["problem"]) if values["problem"] else None
    return Job(**values)
