"""cp_measure's own folder of packages: where it is, how it is made (`dopaint setup cpmeasure`), how it is imported.

cp_measure runs on our numpy, scipy and scikit-image, but centrosome, which it needs, declares an older Pillow than
ours, so the two cannot be installed side by side by their declarations. Nothing of centrosome that cp_measure calls
uses Pillow. The folder is seen by the engine's worker processes alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from profiling.engines import settings

VARIABLE = "DOPAINT_CP_MEASURE"
REQUIREMENTS = "requirements-cp_measure.txt"
_MARK = "dopaint-requirements.txt"  # written last: what this folder was made from


class CpMeasureMissing(ValueError):
    """cp_measure's folder is absent, or made from other pins than today's."""


def default_folder() -> Path:
    """`$DOPAINT_CP_MEASURE` if set; else beside the running virtual environment (`.venv` → `.venv-cp_measure`); outside
    of one, `~/.local/share/dopaint/cp_measure`."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix + "-cp_measure")
    return Path.home() / ".local/share/dopaint/cp_measure"


def pins() -> str:
    """The exact pins, as text."""
    return settings.find(REQUIREMENTS).read_text(encoding="utf-8")


def installed(folder: Path | None = None) -> Path:
    """The folder, made from exactly today's pins. Raises CpMeasureMissing."""
    folder = default_folder() if folder is None else folder
    mark = folder / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8") != pins():
        raise CpMeasureMissing(
            f"cp_measure is not installed in {folder}: run `dopaint setup cpmeasure`, or set {VARIABLE} to its folder"
        )
    return folder


def install(folder: Path | None = None, say: Callable[[str], None] = lambda _: None) -> Path:
    """Makes the folder, or leaves it alone if it is there already; 12 MB, seconds. Returns it.

    Raises:
        CpMeasureMissing: a folder in the way that is none of ours, or pip failed.
    """
    folder = default_folder() if folder is None else folder.expanduser().absolute()
    try:
        return installed(folder)
    except CpMeasureMissing:
        pass
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _MARK).is_file():
        raise CpMeasureMissing(f"{folder} exists and is none of ours: choose another folder with {VARIABLE}")
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    say(f"installing cp_measure into {folder} (wheels only)")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--only-binary", ":all:"]
    command = [*pip, "--no-deps", "--target", str(fresh), "-r", str(settings.find(REQUIREMENTS))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise CpMeasureMissing(f"pip failed: {last}; remedy: check the network and pip's index, then run it again")
    (fresh / _MARK).write_text(pins(), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder
