"""Writes scanorama.npz with the scanorama package itself (1.7.4, MIT; exact neighbours, so annoy is never called).

Run by hand, with the folder of scanorama, fbpca and intervaltree in PYTHONPATH.
"""

import sys
import types
from pathlib import Path

import numpy as np


def worlds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rows and batches: a shift of two batches; four batches of which one shares nothing; many small ones."""
    rng = np.random.default_rng(0)
    made = {}
    for name, batches, n, lonely in (("two", 2, 60, False), ("lonely", 4, 40, True), ("many", 7, 25, False)):
        kinds = 3.0 * rng.normal(size=(3, 12))
        rows, words = [], []
        for b in range(batches):
            shift = rng.normal(size=12)
            apart = 25.0 * rng.normal(size=12) if lonely and b == batches - 1 else 0.0
            size = n + 7 * b
            rows.append(kinds[rng.integers(0, 3, size)] + rng.normal(size=(size, 12)) + shift + apart)
            words += [f"b{b}"] * size
        order = rng.permutation(len(words))
        made[name] = (np.concatenate(rows)[order], np.array(words)[order])
    return made


def main() -> None:
    """Write the golden file beside this script."""
    for absent in ("annoy", "geosketch"):
        fake = types.ModuleType(absent)
        fake.AnnoyIndex = fake.gs = None
        sys.modules.setdefault(absent, fake)
    from scanorama import integrate

    out = {}
    for name, (values, batch) in worlds().items():
        names = sorted(set(batch))
        parts = [values[batch == b] for b in names]
        features = [[f"g{j:02d}" for j in range(values.shape[1])]] * len(parts)
        made, _ = integrate(parts, features, approx=False, verbose=False)
        result = np.empty((len(values), made[0].shape[1]))
        for b, part in zip(names, made, strict=True):
            result[batch == b] = part
        out |= {f"{name}_values": values, f"{name}_batch": batch, f"{name}_result": result}
    np.savez_compressed(Path(__file__).with_name("scanorama.npz"), **out)


if __name__ == "__main__":
    main()
