"""Every refusal of the product, and what it becomes at a door: an HTTP status and an exit code.

ServiceError
 |-- InvalidRequest        the request contradicts itself or a stated bound
 |-- UnknownName           a model, engine or context nobody has
 |-- MissingModel          the model folder is not there or not complete
 |-- MissingReference      the model folder has no reference library, so nothing can be scored
 |-- ReferenceMismatch     the reference library was made by another model, encoder, engine or settings
 |-- NotFound              no such job, molecule or picture
 |-- NotReady              the answer is not finished
 |-- Loading               the model is still being loaded
 |-- QueueFull             too many jobs wait
 |-- QuotaExceeded         one client has as many jobs or bytes as it may
 |-- StorageFull           the disk or its quota is full
 |-- IdempotencyConflict   an idempotency key that was used for another request
 |-- Gone                  the results were deleted when their time was over
 |-- Damaged               the job store cannot be read
 |-- Unauthorised          no key, or one that is not known
 |-- Forbidden             known, but not for this
 |-- TooLarge              more bytes, pixels or levels than the door takes
 |-- WrongMedia            a body of a kind that is not read here
 |-- TooMany               a key asks too often, or for too much
 `-- EngineFailure         a machine room (painting, measuring) gave no usable answer

Rooms raise their own `ValueError`s; only this file knows which status and exit code they mean. Classes are matched by
name, so that asking costs no import of torch or rdkit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXIT_OK, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2


class ServiceError(ValueError):
    """Something this service refuses, in one sentence that says what came, what was expected and what to do."""


class InvalidRequest(ServiceError):
    """The request contradicts itself or a stated bound."""


class UnknownName(ServiceError):
    """A model, engine or context that does not exist."""


class MissingModel(ServiceError):
    """The model folder is not there or not complete."""


class MissingReference(ServiceError):
    """The model folder has no reference library."""


class ReferenceMismatch(ServiceError):
    """The reference library was made by another model, encoder, engine or settings: scores would mean nothing."""


class NotFound(ServiceError):
    """No such job, molecule, picture or file."""


class NotReady(ServiceError):
    """The answer is not finished."""


class Loading(ServiceError):
    """The model is still being loaded."""


class Later(ServiceError):
    """Refused now, and perhaps not in `retry_after_s` seconds (None: nobody knows)."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(Later):
    """As many jobs wait as the settings allow."""


class QuotaExceeded(Later):
    """One client has as many jobs or bytes as it may."""


class StorageFull(Later):
    """The disk or the space that results may take is full."""


class IdempotencyConflict(ServiceError):
    """An idempotency key that was used for another request."""


class Gone(ServiceError):
    """The results were deleted when their time was over."""


class Damaged(Later):
    """The job store cannot be read or written."""


class Unauthorised(ServiceError):
    """No key came, or one that is not known or was revoked."""


class Forbidden(ServiceError):
    """Whoever asks may not have this."""


class TooLarge(ServiceError):
    """More bytes, pixels or nesting than is taken."""


class WrongMedia(ServiceError):
    """A body of a kind that is not read here."""


class TooMany(Later):
    """A key asked too often, or for too much."""


class EngineFailure(ServiceError):
    """Painting or measuring gave no usable answer."""


@dataclass(frozen=True)
class Fault:
    """What an exception means at a door: a stable code for machines, the HTTP status, the exit code, a title."""

    code: str
    status: int
    exit_code: int
    title: str


_FAULTS: dict[str, Fault] = {
    "chem.molecule.InvalidSmiles": Fault("invalid_smiles", 422, EXIT_REFUSED, "A SMILES was refused"),
    "service.errors.InvalidRequest": Fault("invalid_request", 422, EXIT_REFUSED, "The request was refused"),
    "service.errors.UnknownName": Fault("unknown_name", 422, EXIT_REFUSED, "A name in the request is not known"),
    "service.errors.MissingModel": Fault("missing_model", 503, EXIT_REFUSED, "The model is not there"),
    "service.errors.MissingReference": Fault(
        "missing_reference", 503, EXIT_REFUSED, "The reference library is not there"
    ),
    "service.errors.ReferenceMismatch": Fault(
        "reference_mismatch", 409, EXIT_REFUSED, "The reference library does not fit"
    ),
    "service.errors.NotFound": Fault("not_found", 404, EXIT_REFUSED, "Not found"),
    "service.errors.NotReady": Fault("not_ready", 409, EXIT_FAILED, "Not ready yet"),
    "service.errors.Loading": Fault("loading", 503, EXIT_FAILED, "The model is still loading"),
    "service.errors.QueueFull": Fault("queue_full", 429, EXIT_FAILED, "Too many jobs are waiting"),
    "service.errors.QuotaExceeded": Fault("quota_exceeded", 429, EXIT_FAILED, "This client's share is used up"),
    "service.errors.StorageFull": Fault("storage_full", 507, EXIT_FAILED, "No space is left for results"),
    "service.errors.IdempotencyConflict": Fault(
        "idempotency_conflict", 409, EXIT_REFUSED, "The idempotency key belongs to another request"
    ),
    "service.errors.Gone": Fault("gone", 410, EXIT_REFUSED, "The results have expired"),
    "service.errors.Damaged": Fault("store_damaged", 503, EXIT_FAILED, "The job store cannot be used"),
    "service.errors.Unauthorised": Fault("unauthorised", 401, EXIT_REFUSED, "A key is needed"),
    "service.errors.Forbidden": Fault("forbidden", 403, EXIT_REFUSED, "Not allowed"),
    "service.errors.TooLarge": Fault("too_large", 413, EXIT_REFUSED, "The request is too large"),
    "service.errors.WrongMedia": Fault(
        "unsupported_media_type", 415, EXIT_REFUSED, "A body of another kind was expected"
    ),
    "service.errors.TooMany": Fault("too_many", 429, EXIT_FAILED, "Too many requests"),
    "service.keys.DamagedKeys": Fault("keys_damaged", 503, EXIT_FAILED, "The keys cannot be read"),
    "service.errors.EngineFailure": Fault("engine_failure", 500, EXIT_FAILED, "The engine gave no answer"),
    "service.settings.InvalidSettings": Fault("invalid_settings", 500, EXIT_REFUSED, "The settings were refused"),
    "service.resources.MissingResource": Fault("missing_resource", 500, EXIT_REFUSED, "The installation is incomplete"),
    "ldm.folder.ModelFolderError": Fault("missing_model", 503, EXIT_REFUSED, "The model is not there"),
    "chem.vector.EncoderError": Fault("missing_model", 503, EXIT_REFUSED, "The model's encoder is not there"),
    "profiling.engines.environment.CellProfilerMissing": Fault(
        "missing_engine", 503, EXIT_REFUSED, "The measuring engine is not installed"
    ),
    "profiling.engines.cp_measure_packages.CpMeasureMissing": Fault(
        "missing_engine", 503, EXIT_REFUSED, "The measuring engine is not installed"
    ),
    "ldm.condition.UnknownContext": Fault(
        "unknown_context", 422, EXIT_REFUSED, "A context the model was not trained on"
    ),
    # Any other ValueError of a room is a refusal of what it was given.
    "builtins.ValueError": Fault("refused", 422, EXIT_REFUSED, "The request was refused"),
}
_INTERNAL = Fault("internal", 500, EXIT_FAILED, "The service failed")
_INTERNAL_SENTENCE = "The service failed on this request; the reason is in its log."


def fault_of(error: BaseException) -> Fault:
    """The fault of the nearest known class among the exception's ancestors; `internal` when there is none.

    A bare `ValueError` that a library raised is a bug of ours and internal; one of our own classes is a refusal.
    """
    for kind in type(error).__mro__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if name == "builtins.ValueError" and not is_ours(type(error)):
            return _INTERNAL
        if name in _FAULTS:
            return _FAULTS[name]
    return _INTERNAL


def is_ours(kind: type[BaseException]) -> bool:
    """Whether an exception class was defined in one of the rooms."""
    return kind.__module__.split(".")[0] in ("chem", "ldm", "causal", "profiling", "service", "dopaint")


def sentence(error: BaseException) -> str:
    """One line a user may read. Internal faults say nothing of their inside."""
    if fault_of(error) is _INTERNAL:
        return _INTERNAL_SENTENCE
    return " ".join(str(error).split())


@dataclass(frozen=True)
class Problem:
    """RFC 9457 problem document. `detail` reads "<reason> at <pointer>: <sentence>"; `errors` is the same in parts."""

    status: int
    code: str
    title: str
    detail: str
    errors: tuple[dict[str, Any], ...] = field(default=())

    def document(self, instance: str) -> dict[str, Any]:
        """The JSON document, media type application/problem+json."""
        return {
            "type": f"urn:dopaint:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "errors": list(self.errors),
        }


def entry(error: BaseException, pointer: str) -> dict[str, Any]:
    """One machine-readable entry of `errors`: reason, JSON pointer into the request, sentence, position in the text."""
    reason = getattr(error, "reason", None)
    return {
        "reason": str(getattr(reason, "value", reason) or fault_of(error).code),
        "pointer": pointer,
        "message": sentence(error),
        "position": getattr(error, "position", None),
    }


def problem_of(error: BaseException, pointer: str = "") -> Problem:
    """The problem document of one exception."""
    return problem_from_entries(fault_of(error), [entry(error, pointer)])


def problem_from_entries(fault: Fault, entries: list[dict[str, Any]]) -> Problem:
    """The problem document of several refusals of one kind."""
    lines = []
    for one in entries:
        place = f" at {one['pointer']}" if one["pointer"] else ""
        position = f", character {one['position']}" if one.get("position") else ""
        lines.append(f"{one['reason']}{place}{position}: {one['message']}")
    return Problem(fault.status, fault.code, fault.title, " | ".join(lines), tuple(entries))


INVALID_SMILES = _FAULTS["chem.molecule.InvalidSmiles"]
INVALID_REQUEST = _FAULTS["service.errors.InvalidRequest"]
