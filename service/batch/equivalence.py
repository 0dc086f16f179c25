"""Which engine may be scored against a reference library that another engine made: declared here, one pair at a time.

A library names the hash of the engine that measured it, and a mismatch is refused. `fast` is CellProfiler's columns
from other code: tests hold it to the stock modules on the same pictures (docs/fast_parity.md), so a library that
`cellprofiler` made with the same pipeline file also answers for `fast`. What is not the same on both is named, and not
scored. Nothing else is equivalent to anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.errors import ReferenceMismatch


@dataclass(frozen=True)
class Equivalence:
    """`engine` gives the values of `library_engine` to `tolerance` (relative), but for names that end in `unlike`."""

    engine: str
    library_engine: str
    tolerance: float
    unlike: tuple[str, ...]
    evidence: str

    def differs(self, name: str) -> bool:
        """Whether the two engines measure this feature differently."""
        return name.endswith(self.unlike)


#: The two moments are zero in exact arithmetic: CellProfiler's values are rounding noise.
EQUIVALENT = (
    Equivalence(
        "fast",
        "cellprofiler",
        1e-6,
        ("AreaShape_CentralMoment_0_1", "AreaShape_CentralMoment_1_0"),
        "docs/fast_parity.md, tests/test_profiling_engine_fast.py",
    ),
)


@dataclass(frozen=True)
class Compatibility:
    """Why the engine of a run may be scored against the library: `same` engine, or `declared` equivalent."""

    basis: str
    engine: str
    engine_hash: str
    library_hash: str
    declared: Equivalence | None = None

    def document(self) -> dict[str, Any]:
        """As JSON, for the manifest."""
        found: dict[str, Any] = {
            "basis": self.basis,
            "engine": self.engine,
            "engine_hash": self.engine_hash,
            "library_engine_hash": self.library_hash,
        }
        if self.declared is not None:
            found |= {
                "library_engine": self.declared.library_engine,
                "tolerance": self.declared.tolerance,
                "not_scored": list(self.declared.unlike),
                "evidence": self.declared.evidence,
            }
        return found

    def not_scored(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The features that must not be scored."""
        return () if self.declared is None else tuple(name for name in names if self.declared.differs(name))


def compatibility(engine: str, engine_hash: str, library_hash: str, hash_of: Callable[[str], str]) -> Compatibility:
    """Whether measurements of `engine` may be scored against a library measured by the engine with `library_hash`.

    hash_of: the hash that an engine of another name has with the same pipeline file, here. Raises `ReferenceMismatch`.
    """
    if engine_hash == library_hash:
        return Compatibility("same", engine, engine_hash, library_hash)
    for one in EQUIVALENT:
        if one.engine == engine and hash_of(one.library_engine) == library_hash:
            return Compatibility("declared", engine, engine_hash, library_hash, one)
    raise ReferenceMismatch(
        f"the reference library was made with another engine ({library_hash[:12]} there, {engine_hash[:12]} of "
        f"{engine!r} here), and no equivalence is declared: take its engine, or make it again with `dopaint reference`"
    )
