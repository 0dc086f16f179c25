"""Golden fields of tests/golden/profiling/fast, and how far values are from them: for the tests of the families."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent / "golden/profiling/fast"
FIELDS = sorted(path.stem for path in FOLDER.glob("*.npz"))
CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = ("Nuclei", "Cells", "Cytoplasm")


@dataclass(frozen=True)
class Golden:
    """settings: of the pipeline. pictures: by channel, [0, 1]. labels: by object. columns: owner → feature → values."""

    settings: str
    pictures: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    columns: Mapping[str, Mapping[str, np.ndarray]]


def load(field: str) -> Golden:
    """One golden field by the stem of its file."""
    with np.load(FOLDER / f"{field}.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    planes = (arrays["picture"] / 65535.0).astype(np.float32)
    labels = {name[7:]: a.astype(np.int32) for name, a in arrays.items() if name.startswith("labels/")}
    columns = {}
    for owner in (*labels, "Image"):
        names = arrays[f"names/{owner}"].tobytes().decode().split("\n")
        values = arrays[f"values/{owner}"].astype(float)
        columns[owner] = dict(zip(names, values.T, strict=True))
    return Golden(field.split("_")[0], dict(zip(CHANNELS, planes, strict=True)), labels, columns)


def far(
    golden: Golden, owner: str, names: Sequence[str], values: np.ndarray, tolerance: float
) -> dict[str, tuple[float, float]]:
    """Columns with a value further than `tolerance` relative from CellProfiler's: name → the worst (ours, theirs)."""
    assert values.shape[-1] == len(names)
    out = {}
    for name, ours in zip(names, values.T, strict=True):
        theirs = golden.columns[owner][name]
        assert np.shape(ours) == np.shape(theirs), name
        ours, theirs = np.atleast_1d(ours), np.atleast_1d(theirs)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(ours - theirs) / np.abs(theirs)
        error[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
        error[np.isnan(error)] = np.inf
        if (error > tolerance).any():
            worst = int(np.argmax(error))
            out[name] = (float(ours[worst]), float(theirs[worst]))
    return out
