"""Where `configs` and `models` lie: beside the rooms in a checkout, inside the package when installed."""

from pathlib import Path
from typing import Literal

_ROOM = Path(__file__).resolve().parent

#: In order of preference. An editable install has both; the checkout wins, so that an edited config counts at once.
_ROOTS = (_ROOM.parent, _ROOM / "_data")


class MissingResource(ValueError):
    """The installation has no such folder of data."""


def path(name: Literal["configs", "models"]) -> Path:
    """The folder of shipped configs or models, absolute.

    Raises:
        MissingResource: neither the checkout nor the installed package has it.
    """
    for root in _ROOTS:
        # Beside an installed package lie other people's packages: a checkout is known by its pyproject.toml.
        if root == _ROOM / "_data" or (root / "pyproject.toml").is_file():
            folder = root / name
            if folder.is_dir():
                return folder
    raise MissingResource(
        f"resource {name!r} not found: looked in {', '.join(str(root / name) for root in _ROOTS)}; "
        "reinstall dopaint, or run from a checkout that has the folder"
    )
