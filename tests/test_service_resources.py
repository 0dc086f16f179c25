"""Shipped data is found in a checkout and in an installed package, and its absence is said plainly."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from service import resources


def loaded_from(room: Path) -> ModuleType:
    """The module as if `room` were the installed `service`."""
    room.mkdir(parents=True)
    shutil.copy(str(resources.__file__), room / "resources.py")
    spec = importlib.util.spec_from_file_location("copied_resources", room / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_checkout_wins_over_the_copy_in_the_package(tmp_path: Path) -> None:
    module = loaded_from(tmp_path / "service")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "configs").mkdir()
    (tmp_path / "service" / "_data" / "configs").mkdir(parents=True)
    assert module.path("configs") == tmp_path / "configs"


def test_installed_package_ignores_folders_of_other_packages(tmp_path: Path) -> None:
    module = loaded_from(tmp_path / "site-packages" / "service")
    (tmp_path / "site-packages" / "models").mkdir()
    (tmp_path / "site-packages" / "service" / "_data" / "models").mkdir(parents=True)
    assert module.path("models") == tmp_path / "site-packages" / "service" / "_data" / "models"


def test_absence_names_the_places_and_the_remedy(tmp_path: Path) -> None:
    module = loaded_from(tmp_path / "service")
    with pytest.raises(
        ValueError, match=r"'models' not found: looked in .*models, .*_data/models; reinstall"
    ) as caught:
        module.path("models")
    assert type(caught.value).__name__ == "MissingResource"


def test_this_checkout_has_configs() -> None:
    assert (resources.path("configs") / "library" / "drugs.csv").is_file()
