"""Recipes of embedders: tables of a TOML file as frozen dataclasses. An unknown key is an error; a file that says
`extends = "other.toml"` is that file with its own keys in place of the other's.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from profiling.embedders.embedding import InvalidEmbedder

C = TypeVar("C")


class InvalidRecipe(InvalidEmbedder):
    """A recipe that is missing, is not TOML, lacks a table, or has a key or a value that its table does not know."""


def read_recipe(path: Path) -> dict[str, Any]:
    """The tables of a TOML file and of what it extends. Raises InvalidRecipe."""
    return _extended(path, ())


def _extended(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in before:
        raise InvalidRecipe(f"recipe: {path} extends itself; take the line out of one of the files")
    if not path.is_file():
        raise InvalidRecipe(f"recipe: {path} is not a file; give one such as configs/embedders/dino_boc_small.toml")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidRecipe(f"recipe: {path} is not valid TOML ({error}); correct the file") from error
    base = content.pop("extends", None)
    if base is None:
        return content
    whole = _extended(path.parent / str(base), (*before, path.resolve()))
    for key, value in content.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        # another kind of objective or network has other keys: nothing of the old table is kept
        same = both and value.get("kind", whole[key].get("kind")) == whole[key].get("kind")
        whole[key] = whole[key] | value if same else value
    return whole


def from_table(cls: type[C], table: dict[str, Any], where: str) -> C:
    """The dataclass `cls` from a table: lists become tuples, whole numbers floats where floats are wanted.

    Raises InvalidRecipe for an unknown key or a value of another type.
    """
    hints = get_type_hints(cls)
    names = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - names):
        raise InvalidRecipe(f"{where}: unknown key {', '.join(unknown)}; expected some of {', '.join(sorted(names))}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        wanted = hints[key]
        if isinstance(value, list):
            value = tuple(map(float, value)) if wanted == tuple[float, ...] else tuple(value)
        elif wanted is float and type(value) is int:
            value = float(value)
        if wanted in (int, float, str, bool) and type(value) is not wanted:
            raise InvalidRecipe(
                f"{where}: {key} = {value!r} is a {type(value).__name__}, expected {wanted.__name__}; correct the value"
            )
        values[key] = value
    return cls(**values)


def table_of(tables: dict[str, Any], name: str, cls: type[C], where: str) -> C:
    """Table `[name]` as `cls`; a missing table is one of defaults."""
    return from_table(cls, tables.get(name, {}), f"{where} [{name}]")


def as_table(part: Any) -> dict[str, Any]:
    """A dataclass as JSON values, to be read back by `from_table`."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(part).items()}
