"""Writes what harmonypy makes of three small screens, for tests/test_profiling_harmony_parity.py.

    python -m venv /tmp/oracle && /tmp/oracle/bin/pip install harmonypy==0.0.10 'pandas<3'
    /tmp/oracle/bin/python tests/golden/harmonypy/regenerate.py

harmonypy is under the GPL: it is no dependency and is not imported by any test. It runs here, in an environment of its
own, and only numbers are kept: the rows given, their batches, the starting centroids and the corrected rows. 0.0.10 is
the last version written in Python; later ones take no starting centroids.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from harmonypy import run_harmony

HERE = Path(__file__).resolve().parent
CLUSTERS = 6


def screen(seed: int, apart: float, shift: float, confounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Five kinds in three batches and two laboratories, 500 rows of ten components."""
    rng = np.random.default_rng(seed)
    n, d = 500, 10
    kind, batch, lab = rng.integers(0, 5, n), rng.integers(0, 3, n), rng.integers(0, 2, n)
    if confounded:
        batch = np.where(rng.random(n) < 0.6, kind % 3, batch)
    values = apart * rng.normal(size=(5, d))[kind] + shift * rng.normal(size=(3, d))[batch]
    values += 0.5 * shift * rng.normal(size=(2, d))[lab] + rng.normal(size=(n, d))
    values -= values.mean(axis=0)
    values = np.round(values, 4)
    # harmonypy divides a row by its largest entry before it scales it to length 1: a row without a positive entry would
    # be turned round, which is no part of the method
    assert (values.max(axis=1) > 0).all()
    return values, np.stack([batch, lab], axis=1)


def corrected(values: np.ndarray, batches: np.ndarray, columns: list[str], start: np.ndarray | None) -> np.ndarray:
    table = pd.DataFrame({"batch": batches[:, 0], "lab": batches[:, 1]}).astype(str)
    options = {} if start is None else {"cluster_fn": lambda data, count: start.copy()}
    made = run_harmony(
        values, table, columns, theta=2, nclust=CLUSTERS, max_iter_kmeans=200, epsilon_cluster=1e-5,
        epsilon_harmony=1e-4, verbose=False, random_state=3, **options,
    )  # fmt: skip
    return made.Z_corr.T.astype(np.float32)


def main() -> None:
    from sklearn.cluster import KMeans

    made: dict[str, np.ndarray] = {}
    for name, options, columns in (
        ("confounded", (1, 1.5, 2.0, True), ["batch"]),
        ("two_columns", (2, 2.0, 1.5, False), ["batch", "lab"]),
        ("apart", (3, 4.0, 1.5, False), ["batch"]),
    ):
        values, batches = screen(*options)
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        found = KMeans(CLUSTERS, n_init=10, max_iter=25, random_state=0).fit(unit).cluster_centers_
        start = np.round(found, 6)
        made |= {f"{name}_values": values, f"{name}_batches": batches[:, : len(columns)], f"{name}_start": start}
        made[f"{name}_same_start"] = corrected(values, batches, columns, start)
        made[f"{name}_own_start"] = corrected(values, batches, columns, None)
    np.savez_compressed(HERE / "harmonypy-0.0.10.npz", **made)


if __name__ == "__main__":
    main()
