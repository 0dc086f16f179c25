"""Normalising, selecting, sub-profile scoring and mAP: ours beside pycytominer, a pandas loop, copairs and
harmony-pytorch.

    python benchmarks/scoring.py [--full]     table, then one JSON line

Same seeded inputs for both sides, one warm-up on a small table, one thread for BLAS; seconds are of the processor
(`process_time`, all threads together), so that other work on the machine does not count. `--full` takes the sizes of
the goals: mAP on 20,000 x 500 (goal 5x), normalise and select 100,000 x 3,700 (3x and half the memory), 116,000
profiles x 500 labels (50x a pandas loop, whose time is measured on a part and scaled). Without it the tables are
smaller; ratios, not seconds, then carry over. The answers are compared, not only the times.
"""

import argparse
import json
import platform
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from profiling.harmony import HarmonyConfig, harmonise
from profiling.normalise import fit, transform
from profiling.profiles import Profiles
from profiling.retrieval import Pairing, average_precisions
from profiling.select import SelectConfig, select
from profiling.subprofile import biosimilarity, build

SMALL = {"map": (3000, 200), "select": (5000, 500), "labels": (10_000, 400, 100), "loop": 3, "harmony": (2000, 30)}
FULL = {
    "map": (20_000, 500),
    "select": (100_000, 3700),
    "labels": (116_000, 700, 500),
    "loop": 3,
    "harmony": (20_000, 50),
}


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Answer, processor seconds, and peak of memory taken in MiB (in a second run, because tracing costs time)."""
    start = time.process_time()
    answer = work()
    seconds = time.process_time() - start
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return answer, seconds, peak


def screen(n: int, k: int, seed: int) -> tuple[Profiles, np.ndarray]:
    """Wells of n / 8 compounds (8 replicates) and an eighth DMSO, features with correlated blocks."""
    rng = np.random.default_rng(seed)
    factors = max(2, k // 10)
    values = rng.normal(size=(n, factors)) @ rng.normal(size=(factors, k)) / np.sqrt(factors) + rng.normal(size=(n, k))
    meta = pd.DataFrame({"Metadata_Plate": [f"p{i}" for i in rng.integers(0, max(2, n // 384), n)]})
    meta["Metadata_compound"] = [f"c{i}" for i in rng.integers(0, n // 8, n)]
    return Profiles(meta, values, tuple(f"Cells_f{i}" for i in range(k))), rng.random(n) < 0.125


def bench_map(n: int, k: int) -> dict[str, Any]:
    """Replicate mAP: ours beside copairs."""
    from copairs.map import average_precision

    p, _ = screen(n, k, 1)
    columns = (["Metadata_compound"], [], [], ["Metadata_compound"])
    pairing = Pairing(("compound",), (), (), ("compound",))
    ours, own, peak = measured(lambda: average_precisions(p, pairing))
    theirs, other, other_peak = measured(lambda: average_precision(p.meta, p.values, *columns, progress_bar=False))
    want = theirs.loc[ours["Metadata_Query"], "average_precision"].to_numpy()
    off = float(np.abs(ours["average_precision"] - want).max())
    return row(f"mAP {n} x {k}", own, other, peak, other_peak, "copairs", off)


def bench_select(n: int, k: int) -> dict[str, Any]:
    """MAD-robustise to DMSO, then select: ours beside pycytominer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer import feature_select, normalize

    p, control = screen(n, k, 2)
    config = SelectConfig(blocklist=(), variance=None, outlier=None, absolute=False)
    table = pd.concat([p.meta.assign(Metadata_DMSO=control), pd.DataFrame(p.values, columns=list(p.names))], axis=1)
    operations = ["drop_na_columns", "frequency_threshold", "correlation_threshold"]

    def ours() -> tuple[str, ...]:
        return select(transform(p, fit(p, control, epsilon=1e-18)), config).names

    def theirs() -> list[str]:
        done = normalize(table, features=list(p.names), samples="Metadata_DMSO == True", method="mad_robustize")
        kept = feature_select(done, features=list(p.names), operation=operations)
        return [c for c in kept.columns if c.startswith("Cells_")]

    mine, own, peak = measured(ours)
    want, other, other_peak = measured(theirs)
    off = float(len(set(mine) ^ set(want)))
    return row(f"normalise + select {n} x {k}", own, other, peak, other_peak, "pycytominer", off)


def bench_labels(n: int, k: int, labels: int, loop: int) -> dict[str, Any]:
    """Biosimilarity of n profiles to all labels: ours beside a pandas loop over `loop` profiles, scaled."""
    rng = np.random.default_rng(3)
    names = [f"f{i}" for i in range(k)]
    references = rng.normal(size=(labels * 5, k)) + np.repeat(rng.normal(size=(labels, k)), 5, axis=0)
    sub = build(references, [f"label {i // 5}" for i in range(labels * 5)], names)
    queries = rng.normal(size=(n, k))
    frame = pd.DataFrame(queries[:loop], columns=names)
    medians = [pd.Series(sub.values[j, m], index=np.array(names)[m]) for j, m in enumerate(sub.mask)]

    def theirs() -> np.ndarray:
        return np.array([[frame.iloc[i][list(v.index)].corr(v) for v in medians] for i in range(loop)])

    mine, own, peak = measured(lambda: biosimilarity(queries, sub))
    want, other, other_peak = measured(theirs)
    off = float(np.abs(mine[:loop] - want).max())
    single = min(measured(lambda: biosimilarity(queries[0], sub))[1] for _ in range(5))
    made = row(f"sub-profiles {n} x {labels}", own, other * n / loop, peak, other_peak, "pandas loop", off)
    return made | {"one_profile_us": single * 1e6}


def bench_harmony(n: int, k: int) -> dict[str, Any]:
    """Harmony, at most 10 rounds: ours beside harmony-pytorch (both float, one thread)."""
    from harmony import harmonize

    rng = np.random.default_rng(4)
    batch = rng.integers(0, 6, n)
    values = (
        3 * rng.normal(size=(8, k))[rng.integers(0, 8, n)] + rng.normal(size=(6, k))[batch] + rng.normal(size=(n, k))
    )
    batches = pd.DataFrame({"Metadata_Batch": [f"b{b}" for b in batch]})
    config = HarmonyConfig(clusters=30, cluster_rounds=20)
    options = {"n_clusters": 30, "max_iter_clustering": 20, "n_jobs": 1, "verbose": False}
    mine, own, peak = measured(lambda: harmonise(values, batches, config=config).values)
    want, other, other_peak = measured(lambda: harmonize(values, batches, "Metadata_Batch", **options))
    off = 1 - min(float(np.corrcoef(mine[:, j], want[:, j])[0, 1]) for j in range(k))
    return row(f"Harmony {n} x {k}", own, other, peak, other_peak, "harmony-pytorch", off)


def row(task: str, own: float, other: float, peak: float, other_peak: float, oracle: str, off: float) -> dict[str, Any]:
    """One line of the table."""
    times, memory = other / own, other_peak / peak
    return {
        "task": task, "oracle": oracle, "seconds": own, "oracle_seconds": other, "times_faster": times,
        "mib": peak, "oracle_mib": other_peak, "times_smaller": memory, "difference": off,
    }  # fmt: skip


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description="speed of scoring")
    parser.add_argument("--full", action="store_true", help="the sizes of the goals (needs about 20 GiB of memory)")
    size = FULL if parser.parse_args().full else SMALL
    warnings.simplefilter("ignore")
    bench_map(200, 20)
    with threadpool_limits(1):
        rows = [
            bench_map(*size["map"]),
            bench_select(*size["select"]),
            bench_labels(*size["labels"], size["loop"]),
            bench_harmony(*size["harmony"]),
        ]
    print(f"{'task':34} {'oracle':16} {'s':>8} {'oracle s':>9} {'x':>7} {'MiB':>7} {'oracle':>7} {'difference':>11}")
    for r in rows:
        print(
            f"{r['task']:34} {r['oracle']:16} {r['seconds']:8.2f} {r['oracle_seconds']:9.2f} {r['times_faster']:7.1f} "
            f"{r['mib']:7.0f} {r['oracle_mib']:7.0f} {r['difference']:11.2g}"
        )
    packages = {name: version(name) for name in ("numpy", "pandas", "copairs", "pycytominer", "harmony-pytorch")}
    print(json.dumps({"rows": rows, "machine": platform.machine(), "packages": packages}))


if __name__ == "__main__":
    main()
