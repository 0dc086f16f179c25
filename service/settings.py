"""Settings of the service: a frozen dataclass; its data is TOML in `configs/service`, unknown keys are refused."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from service import resources


class InvalidSettings(ValueError):
    """A settings file with an unknown key, a wrong type or a value out of range."""


@dataclass(frozen=True)
class Settings:
    """How the service runs. Relative folders are taken from the folder in which the command is run."""

    host: str = "127.0.0.1"  # beyond loopback, keys are asked for
    port: int = 8711
    model: str = "simulation-128"  # a folder, or a name below `models`
    engine: str = "cellprofiler"
    data: str = "runs/service"  # job store and results
    engine_workers: int = 2  # measuring processes
    engine_timeout_s: float = 60.0  # for one picture
    max_waiting_jobs: int = 100
    max_body_bytes: int = 4_000_000
    auth: str = "auto"  # keys: "auto" asks for them beyond loopback, "required" always; never off beyond loopback
    keys: str = ""  # file of the keys; empty: keys.json in the data folder
    tls_cert: str = ""  # PEM files; both or none
    tls_key: str = ""
    log_format: str = "plain"  # or "json"
    max_nesting: int = 32  # levels of brackets in a JSON body
    max_upload_bytes: int = 200_000_000  # own pictures, as they come
    max_upload_pixels: int = 400_000_000  # all planes of an upload together
    max_inflation: float = 100.0  # of a compressed upload, unpacked to packed
    max_upload_files: int = 2_000
    database: str = ""  # SQLAlchemy URL, such as postgresql+pg8000://...; empty: SQLite in the data folder
    max_waiting_jobs_per_owner: int = 20
    max_disk_bytes: int = 50_000_000_000  # results of all clients
    keep_days: float = 7.0  # results, after the end of their job
    picture_origins: tuple[str, ...] = ()  # origins whose pages may read OME-Zarr, such as "https://viewer.example"

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidSettings(f"settings.{name} is {value}: expected {low} to {high}")
        for name, words in _WORDS:
            if getattr(self, name) not in words:
                raise InvalidSettings(f"settings.{name} is {getattr(self, name)!r}: expected {' or '.join(words)}")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidSettings("settings.tls_cert and settings.tls_key belong together: give both or none")
        for origin in self.picture_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidSettings(
                    f"settings.picture_origins has {origin!r}: expected origins such as https://viewer.example"
                )


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("port", 0, 65535),
    ("engine_workers", 1, 256),
    ("engine_timeout_s", 0.1, 86_400),
    ("max_waiting_jobs", 1, 1_000_000),
    ("max_body_bytes", 1000, 10**9),
    ("max_waiting_jobs_per_owner", 1, 1_000_000),
    ("max_disk_bytes", 1_000_000, 10**15),
    ("keep_days", 0.001, 10_000),
    ("max_nesting", 4, 1000),
    ("max_upload_bytes", 1000, 10**12),
    ("max_upload_pixels", 1000, 10**12),
    ("max_inflation", 1.0, 1e6),
    ("max_upload_files", 1, 10**6),
)
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (("auth", ("auto", "required")), ("log_format", ("plain", "json")))
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?")


def load(path: str | Path | None = None, **changes: Any) -> Settings:
    """Read `path` (default: the shipped `configs/service/service.toml`), then apply `changes` that are not None.

    Raises `InvalidSettings` for a missing file, bad TOML, an unknown key, a wrong type or a value out of range.
    """
    file = resources.path("configs") / "service" / "service.toml" if path is None else Path(path)
    try:
        with file.open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise InvalidSettings(
            f"settings file {str(file)!r} cannot be read: {error.strerror}; give an existing TOML file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"settings file {str(file)!r} is not TOML: {error}") from error
    return replace(from_table(table), **{name: value for name, value in changes.items() if value is not None})


def from_table(table: dict[str, Any]) -> Settings:
    """Settings from a flat table of values; unset keys keep their default."""
    known = {one.name: type(one.default) for one in fields(Settings)}
    if unknown := sorted(set(table) - set(known)):
        raise InvalidSettings(f"unknown key {unknown[0]!r} in the settings: expected one of {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for name, value in table.items():
        wanted = known[name]
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is tuple and isinstance(value, list) and all(isinstance(one, str) for one in value):
            value = tuple(value)
        if type(value) is not wanted:
            raise InvalidSettings(f"settings.{name} is {value!r} ({type(value).__name__}): expected {wanted.__name__}")
        values[name] = value
    return Settings(**values)
