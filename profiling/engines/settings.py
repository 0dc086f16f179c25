"""Pipeline files and pins of the engines: where they lie, and by which name they are called."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
#: The checkout first; then where the wheel carries the same files.
FOLDERS = (_ROOT / "configs/profiling", _ROOT / "service/_data/configs/profiling")

#: Settings by name. `sim128`: 128 pixels a side, whole cells only; `jump`: the JUMP production measurements (3,518
#: object features on 5 channels); `jump8`: the same on 5 stains and 3 brightfield planes (5,795); `full`: `jump` with
#: Costes, Zernikes of intensity and advanced shapes (4,637).
SETTINGS = {
    "sim128": "cell_painting_128.cppipe",
    "jump": "cell_painting_jump.cppipe",
    "jump8": "cell_painting_jump_brightfield.cppipe",
    "full": "cell_painting_full.cppipe",
}


class InvalidSettings(ValueError):
    """No pipeline of that name, or not a pipeline file."""


def find(name: str) -> Path:
    """The file `name` of configs/profiling.

    Raises:
        InvalidSettings: this installation has no such file.
    """
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise InvalidSettings(f"{name} not found in {' or '.join(map(str, FOLDERS))}: reinstall dopaint")


def pipeline(settings: str | Path) -> Path:
    """The pipeline file of a settings name, or a path to any .cppipe file.

    A .cppipe file is opened by CellProfiler's own loader, which evaluates parts of it as Python: open only files that
    you trust.

    Raises:
        InvalidSettings: an unknown name, or a path that is not a CellProfiler pipeline.
    """
    if isinstance(settings, str) and settings in SETTINGS:
        return find(SETTINGS[settings])
    path = Path(settings)
    if not path.is_file():
        raise InvalidSettings(
            f"settings: {str(settings)!r} is neither one of {', '.join(sorted(SETTINGS))} nor an existing .cppipe file"
        )
    with path.open("rb") as file:
        if not file.readline().startswith(b"CellProfiler Pipeline"):
            raise InvalidSettings(
                f"settings: {path} is not a CellProfiler pipeline file (its first line says otherwise)"
            )
    return path.absolute()
