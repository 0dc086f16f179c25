"""The manifest: the last file of a run. Its presence says that every part is there; it names all of them with hashes.
While other drivers still work on parts of theirs, the same document is made, incomplete, and not written.

Nothing in it depends on clock, machine, executor or on how often the run was stopped.
"""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from typing import Any

from service.answer import statement
from service.batch.output import done_parts, marks_of
from service.batch.plan import Plan, as_json
from service.batch.store import Store
from service.batch.tables import CONTROL
from service.version import __version__

FILE = "manifest.json"
_VERSIONS = ("numpy", "pandas", "pyarrow", "rdkit", "torch", "diffusers", "transformers", "numba")


def write_manifest(store: Store, plan: Plan, features: tuple[str, ...]) -> dict[str, Any]:
    """The manifest of a run; put at the address when all parts have their marks, else incomplete and only returned."""
    marks = marks_of(store, sorted(done_parts(store)))
    complete = len(marks) == plan.parts
    outcomes: Counter[str] = Counter()
    for one in marks:
        outcomes.update(one["outcomes"])
    request = plan.request
    painted = sum(one["pictures"] for one in marks)
    document = {
        **plan.document,
        "statement": statement(plan.document["evidence"]),
        "complete": complete,
        "outcomes": dict(sorted(outcomes.items())),
        "pictures": {
            "compounds": painted,
            "control": request.draws if plan.compounds else 0,
            "draws_saved": sum(one["draws_saved"] for one in marks),
        },
        "features": len(features),
        "control": CONTROL if plan.compounds else None,
        "versions": {"dopaint": __version__, **{name: _version(name) for name in _VERSIONS}},
        "parts": marks,
    }
    if complete:
        store.put(FILE, as_json(document))
    return document


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
