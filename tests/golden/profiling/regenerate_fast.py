"""Writes tests/golden/profiling/fast/*.npz: what the real CellProfiler says about painted fields.

    .venv/bin/python tests/golden/profiling/regenerate_fast.py [settings …]

The engine `fast` is held against them. Each file holds `picture` uint16 [5, h, w] (multiples of 16, as a 12-bit camera
gives, or of 64; 65535 stands for 1), the label
images `labels/<object>`, and the columns `values/<object>` float32 [n, k] with `names/<object>` (UTF-8 text, one name a
line), `values/Image` float64 [k]. Stock modules: our kernels are off. float32 keeps 6e-8 relative, below the 1e-6 that
is asked of the engine. Scenes are painted with the simulator's painter from a seeded generator.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from causal.painter import CHANNELS, N_UNIFORM, STATE, noise_tiles, paint_cells
from profiling.engines import CellProfilerEngine, FieldMeasurement

OUT = Path(__file__).resolve().parent / "fast"
#: Settings → objects whose labels and columns are kept (sim128 makes its nuclei in two steps).
OBJECTS = {
    "sim128": ("AllNuclei", "Nuclei", "Cells", "Cytoplasm"),
    "jump": ("Nuclei", "Cells", "Cytoplasm"),
    "full": ("Nuclei", "Cells", "Cytoplasm"),
}
#: Settings → scenes. `jump` keeps cells that the frame cuts.
SCENES = {
    "sim128": ("sparse", "crowded", "touching", "border", "tiny", "noise", "empty"),
    "jump": ("field384", "border"),
    "full": ("large",),
}


def _grid(rng: np.random.Generator, size: int, across: int, jitter: float, n: int) -> np.ndarray:
    """`n` of the places of a jittered grid, (y, x)."""
    step = size / across
    places = [((i + 0.5) * step, (j + 0.5) * step) for i in range(across) for j in range(across)]
    chosen = rng.permutation(len(places))[:n]
    return np.array(places)[chosen] + rng.uniform(-jitter, jitter, (n, 2))


def scene(name: str) -> np.ndarray:
    """A painted field, uint16 [5, h, w]."""
    seed = 1 + ("sparse", "crowded", "touching", "border", "tiny", "noise", "field384", "large", "empty").index(name)
    rng = np.random.default_rng(seed)
    size, factor = 128, 1.0
    if name == "sparse":
        xy = _grid(rng, size, 3, 6.0, 3)
    elif name == "crowded":
        xy = _grid(rng, size, 5, 3.0, 24)
    elif name == "touching":  # pairs whose nuclei touch, and one row of three
        first = _grid(rng, size, 3, 3.0, 5)
        angle = rng.uniform(0, 2 * np.pi, 5)
        second = first + 13.0 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        xy = np.concatenate([first, second, first[:1] - (second - first)[:1]])
    elif name == "border":
        cut = [(2, 30), (4, 80), (40, 3), (90, 126), (125, 60), (120, 8)]
        xy = np.array([*cut, (60, 60), (64, 84), (92, 40), (28, 104)])
        xy = xy + rng.uniform(-1, 1, xy.shape)
    elif name == "tiny":
        xy, factor = _grid(rng, size, 5, 4.0, 14), 0.6
    elif name == "noise":
        xy = np.zeros((0, 2))
    elif name == "empty":  # one nucleus, which the frame cuts: no object remains
        size, xy = 64, np.array([(0.0, 32.0)])
    elif name == "field384":
        size, factor = 384, 1.7
        xy = _grid(rng, size, 8, 9.0, 52)
    elif name == "large":
        factor = 1.6
        xy = _grid(rng, size, 3, 3.0, 8)
    n = len(xy)
    state = rng.normal(0, 0.8, (n, len(STATE)))
    state[:, STATE.index("cell_area")] = np.log(factor) / 0.09 + rng.normal(0, 0.5, n)
    state[:, STATE.index("nucleus_area")] = np.log(factor) / 0.085 + rng.normal(0, 0.5, n)
    signal = np.zeros((5, size, size), np.float32)
    noise = rng.random((n, N_UNIFORM)).astype(np.float32)
    paint_cells(xy.astype(np.float32), state, noise, noise_tiles(), size, signal)
    background = np.array([0.02, 0.03, 0.035, 0.03, 0.025])[:, None, None]
    ideal = background + 0.16 * signal
    camera = ideal + np.sqrt(ideal * 2e-4 + 2e-6) * rng.standard_normal(ideal.shape)
    if factor <= 1 and name != "border":
        return (np.clip(np.rint(camera * 4095), 0, 4095) * 16).astype(np.uint16)
    return (np.clip(np.rint(camera * 1023), 0, 1023) * 64).astype(np.uint16)


def archive(picture: np.ndarray, field: FieldMeasurement) -> dict[str, np.ndarray]:
    """The arrays of one file."""
    out = {"picture": picture}
    for name, table in field.objects.items():
        out[f"labels/{name}"] = field.masks[name]
        out[f"values/{name}"] = table.values.astype(np.float32)
        out[f"names/{name}"] = np.frombuffer("\n".join(table.names).encode(), np.uint8)
    out["values/Image"] = np.array(list(field.image.values()))
    out["names/Image"] = np.frombuffer("\n".join(field.image).encode(), np.uint8)
    return out


def main(chosen: list[str]) -> None:
    OUT.mkdir(exist_ok=True)
    for settings in chosen or SCENES:
        with CellProfilerEngine(
            settings, workers=1, timeout_s=300.0, kernels=False, masks=True, objects=OBJECTS[settings]
        ) as engine:
            for name in SCENES[settings]:
                picture = scene(name)
                [field] = engine.measure((picture / 65535.0).astype(np.float32)[None], CHANNELS)
                if field.outcome == "failed":
                    raise ValueError(f"{settings} {name}: CellProfiler says {field.reason}")
                target = OUT / f"{settings}_{name}.npz"
                np.savez_compressed(target, **archive(picture, field))
                counts = {k: len(v.values) for k, v in field.objects.items()}
                sys.stdout.write(f"{target.name}: {counts}, {target.stat().st_size / 1e3:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
