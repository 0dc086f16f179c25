"""Reading one table of a TOML file into a frozen dataclass; an unknown key is an error. A file that says
`extends = "other.toml"` is that file with its own keys in place of the other's.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

C = TypeVar("C")
LATER = {"later": True}  # metadata of a key that came after the first recipes: at its default a recipe does not say it


class ConfigError(ValueError):
    """Raised when a configuration file lacks a table, names an unknown key or gives a value of the wrong type."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file and what it extends. Raises ConfigError when a file is missing, not TOML or extends itself."""
    return _extended(path, ())


def _extended(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise ConfigError(f"configuration: {path} extends itself; take the line out of one of the files")
    content = _plain(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"configuration: extends of {path} is {base!r}, expected the name of a file beside it")
    whole = _extended(path.parent / base, (*before, path.resolve()))
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = whole[key] | value if both else value
    return whole


def _plain(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"configuration: {path} is not a file; give the path of a TOML file, for example configs/ldm/small.toml"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration: {path} is not valid TOML ({error}); correct the file") from error


def from_table(cls: type[C], table: dict[str, Any], where: str) -> C:
    """Build the dataclass `cls` from a table; lists become tuples, whole numbers become floats where a float is wanted.

    Raises ConfigError for an unknown key or a value of another type.
    """
    hints = get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - names)
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; expected some of {', '.join(sorted(names))}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        wanted = hints[key]
        if isinstance(value, list):
            value = tuple(value)
        elif wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted in (int, float, str, bool) and type(value) is not wanted:
            raise ConfigError(
                f"{where}: {key} = {value!r} is a {type(value).__name__}, expected {wanted.__name__}; correct the value"
            )
        values[key] = value
    return cls(**values)


def read_table(path: Path, table: str, cls: type[C]) -> C:
    """Read table `[table]` of a TOML file into the dataclass `cls`. Raises ConfigError."""
    content = read_toml(path)
    if table not in content:
        raise ConfigError(
            f"configuration: {path} has no table [{table}]; it has {', '.join(sorted(content)) or 'nothing'}"
        )
    return from_table(cls, content[table], f"{path} [{table}]")


def described(*parts: Any) -> str:
    """Configurations as text, to tell whether a run that goes on is the same run: without what may change on the way
    (time, threads, tracker, intervals of logs and files), and without later keys that are at their defaults.
    """
    free = ("max_minutes", "threads", "log_every", "save_minutes", "tracker")
    return repr(
        [
            {
                f.name: dataclasses.asdict(part)[f.name]
                for f in dataclasses.fields(part)
                if f.name not in free and not (f.metadata.get("later") and getattr(part, f.name) == f.default)
            }
            for part in parts
        ]
    )
