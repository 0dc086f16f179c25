"""The reference library of a model: what its mechanisms look like when this model paints and this engine measures.

A folder `reference/` inside the model's folder:

manifest.json                hashes of model, encoder, engine, settings; the settings themselves; evidence; counts
profiles.parquet             one row a reference compound: its effect, normalised, on the selected features
normalisation.parquet        centres and scales of the control rows, all measured features, frozen
subprofiles.parquet          mechanism of action -> sub-profile
target_subprofiles.parquet   target -> sub-profile
null.parquet                 Biosimilarity of reference compounds to mechanisms that are not theirs: the level of chance
target_null.parquet          the same for targets

Scores mean something only against a library made the same way, so every hash must be equal: a mismatch is refused.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from chem.fingerprint import morgan_bits
from profiling.normalise import Normalisation
from profiling.predict import Null, References
from profiling.profiles import Profiles
from profiling.subprofile import SubProfiles, build
from profiling.tables import read_profiles, write_profiles
from service import resources
from service.errors import InvalidRequest, MissingReference, ReferenceMismatch

FORMAT = "dopaint/reference/1"
MOA, TARGET = "moa", "target"
KINDS = (MOA, TARGET)


@dataclass(frozen=True)
class EffectSettings:
    """Everything beside weights and engine that a score depends on; its hash is `Provenance.settings`."""

    scheme: str = "iid"  # how contexts are drawn
    distribution: str = "valid"  # from which p*(C)
    normalise: str = "mad_robustise"
    normalise_by: tuple[str, ...] = ()  # columns of the context with a normalisation of their own
    convention: str = "paper"  # of sub-profiles and Biosimilarity
    min_references: int = 5
    agree: float = 0.85
    guidance: float = 1.0  # effects are defined at 1 only

    def __post_init__(self) -> None:
        if self.guidance != 1.0:
            raise InvalidRequest(
                f"guidance: got {self.guidance}, expected 1: guided samples do not come from p(picture | compound, "
                "context), so no effect is defined on them; guide pictures only"
            )

    def hash(self) -> str:
        """SHA-256 of the settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class LibrarySettings:
    """How large the reference library is. Not hashed: more draws make a better library of the same kind."""

    per_label: int = 7  # most reference compounds of one mechanism
    draws: int = 6
    seed: int = 20_000
    control_draws: int = 128  # further draws of the control, on which the normalisation is fitted
    max_correlation: float = 0.95  # of two selected features


def load_settings(path: Path | None = None) -> tuple[EffectSettings, LibrarySettings]:
    """Read `configs/service/reference.toml` or another file with the tables [effect] and [library].

    Raises `InvalidRequest` for an unknown table or key.
    """
    file = path or resources.path("configs") / "service" / "reference.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    if unknown := sorted(set(table) - {"effect", "library"}):
        raise InvalidRequest(f"{file.name}: unknown table [{unknown[0]}], expected [effect] and [library]")
    effect, library = table.get("effect", {}), table.get("library", {})
    for kind, values in ((EffectSettings, effect), (LibrarySettings, library)):
        known = [one.name for one in fields(kind)]
        if wrong := sorted(set(values) - set(known)):
            raise InvalidRequest(f"{file.name}: unknown key {wrong[0]!r}, expected one of {', '.join(known)}")
    return effect_settings(effect), LibrarySettings(**library)


def effect_settings(values: dict[str, Any]) -> EffectSettings:
    """From TOML or JSON, where tuples are lists."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return EffectSettings(**plain)


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference library in memory.

    `profiles.meta` has Metadata_InChIKey, _SMILES, _Name, _moa and _target (several joined by "|");
    `subprofiles` and `nulls` have one entry a kind, "moa" and "target".
    """

    manifest: dict[str, Any]
    profiles: Profiles
    normalisation: Normalisation
    subprofiles: dict[str, SubProfiles]
    nulls: dict[str, Null]

    @property
    def effect(self) -> EffectSettings:
        """The settings under which the library was made."""
        return effect_settings(self.manifest["effect"])

    @cached_property
    def names(self) -> dict[str, str]:
        """InChIKey -> name."""
        keys, names = self.profiles.column("InChIKey"), self.profiles.column("Name")
        return {str(key): str(name) for key, name in zip(keys, names, strict=True)}

    @cached_property
    def fingerprints(self) -> UInt8[np.ndarray, "r bytes"]:
        """Packed Morgan bits of the reference compounds."""
        return morgan_bits([str(text) for text in self.profiles.column("SMILES")])

    def labels(self, kind: str) -> tuple[tuple[str, ...], ...]:
        """The labels of each reference compound."""
        return tuple(tuple(label for label in str(text).split("|") if label) for text in self.profiles.column(kind))

    def members(self, kind: str) -> dict[str, tuple[str, ...]]:
        """Label -> InChIKeys of the reference compounds that have it."""
        found: dict[str, tuple[str, ...]] = {}
        for key, labels in zip(self.profiles.column("InChIKey"), self.labels(kind), strict=True):
            for label in labels:
                found[label] = (*found.get(label, ()), str(key))
        return found

    def references(self, kind: str) -> References:
        """The compounds as `profiling.predict` takes them."""
        keys = tuple(str(key) for key in self.profiles.column("InChIKey"))
        return References(keys, self.labels(kind), self.profiles.values)

    def without(self, block: str) -> Reference:
        """The library as if the compound of this InChIKey block had never been in it.

        So a reference compound is never scored against a sub-profile that it helped to make.
        """
        keep = np.array([str(key)[:14] != block for key in self.profiles.column("InChIKey")], dtype=bool)
        if keep.all():
            return self
        rest = self.profiles.rows(keep)
        subprofiles = {kind: build_subprofiles(rest, kind, self.effect) for kind in KINDS}
        nulls = {
            kind: Null(tuple(np.array(one.compounds)[keep]), one.labels, one.scores[keep])
            for kind, one in self.nulls.items()
        }
        return Reference(self.manifest, rest, self.normalisation, subprofiles, nulls)

    def write(self, folder: Path) -> None:
        """Write the folder; it must not exist."""
        folder.mkdir(parents=True)
        write_profiles(self.profiles, folder / "profiles.parquet")
        self.normalisation.write(folder / "normalisation.parquet")
        self.subprofiles[MOA].write(folder / "subprofiles.parquet")
        self.subprofiles[TARGET].write(folder / "target_subprofiles.parquet")
        self.nulls[MOA].write(folder / "null.parquet")
        self.nulls[TARGET].write(folder / "target_null.parquet")
        (folder / "manifest.json").write_text(
            json.dumps(self.manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )

    @staticmethod
    def read(folder: Path) -> Reference:
        """Read the folder. Raises `MissingReference` when it is not there or not complete."""
        names = (
            "manifest.json",
            "profiles.parquet",
            "normalisation.parquet",
            "subprofiles.parquet",
            "target_subprofiles.parquet",
            "null.parquet",
            "target_null.parquet",
        )
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise MissingReference(
                f"model {folder.parent.name!r} has no complete reference library ({missing[0]} is missing): "
                "make it with `dopaint reference`"
            )
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest.get("format") != FORMAT:
            raise MissingReference(
                f"reference/manifest.json has format {manifest.get('format')!r}, expected {FORMAT!r}: make it again"
            )
        return Reference(
            manifest=manifest,
            profiles=read_profiles(folder / "profiles.parquet"),
            normalisation=Normalisation.read(folder / "normalisation.parquet"),
            subprofiles={
                MOA: SubProfiles.read(folder / "subprofiles.parquet"),
                TARGET: SubProfiles.read(folder / "target_subprofiles.parquet"),
            },
            nulls={MOA: Null.read(folder / "null.parquet"), TARGET: Null.read(folder / "target_null.parquet")},
        )


def build_subprofiles(profiles: Profiles, kind: str, effect: EffectSettings) -> SubProfiles:
    """Sub-profiles of all labels of a kind; a compound with several targets is a reference for each."""
    pairs = [(row, label) for row, text in enumerate(profiles.column(kind)) for label in str(text).split("|") if label]
    values = profiles.values[[row for row, _ in pairs]]
    labels = [label for _, label in pairs]
    return build(values, labels, profiles.names, effect.convention, effect.min_references, effect.agree)


def check(reference: Reference, provenance: dict[str, str]) -> None:
    """Refuse to score with a library that another model, encoder, engine or other settings made.

    Raises `ReferenceMismatch` naming what differs.
    """
    made = reference.manifest["hashes"]
    wrong = [name for name in ("model", "encoder", "engine", "settings") if made.get(name) != provenance[name]]
    if wrong:
        first = wrong[0]
        raise ReferenceMismatch(
            f"the reference library was made with another {' and '.join(wrong)} ({str(made.get(first))[:12]} there, "
            f"{provenance[first][:12]} here): make it again with `dopaint reference`"
        )
