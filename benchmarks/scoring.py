"""Normalising, selecting, sub-profile scoring, mAP, Harmony and scores of labels: ours beside pycytominer, a pandas
loop, copairs, harmony-pytorch, harmonypy and scikit-learn.

    python benchmarks/scoring.py [--full] [--only TASK ...] [--harmonypy PYTHON] [--no-memory]
                                                                                 table, then one JSON line

Same seeded inputs for both sides, one warm-up on a small table, one thread for BLAS; seconds are of the processor
(`process_time`, all threads together), so that other work on the machine does not count. `--full` takes the sizes of
the goals: mAP on 20,000 x 500 (goal 5x), normalise and select 100,000 x 3,700 (3x and half the memory), 116,000
profiles x 500 labels (50x a pandas loop, whose time is measured on a part and scaled). Without it the tables are
smaller; ratios, not seconds, then carry over. The answers are compared, not only the times. harmonypy is under the GPL
and so no dependency: `--harmonypy` names the interpreter of an environment that has it.
"""

import argparse
import json
import platform
import subprocess
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from profiling.harmony import HarmonyConfig, harmonise
from profiling.metrics import average_precision, roc_auc
from profiling.normalise import fit, transform
from profiling.profiles import Profiles
from profiling.retrieval import Pairing, average_precisions
from profiling.select import SelectConfig, select
from profiling.subprofile import biosimilarity, build

SMALL: dict[str, tuple[int, ...]] = {
    "map": (3000, 200),
    "select": (12_000, 1400),
    "labels": (10_000, 400, 100, 3),
    "harmony": (2000, 30),
    "scores": (2000, 60),
}
FULL: dict[str, tuple[int, ...]] = {
    "map": (20_000, 500),
    "select": (100_000, 3700),
    "labels": (116_000, 700, 500, 3),
    "harmony": (20_000, 50),
    "scores": (20_000, 500),
}
WARM: dict[str, tuple[int, ...]] = {
    "map": (200, 20),
    "select": (300, 20),
    "labels": (200, 30, 10, 2),
    "harmony": (300, 8),
    "scores": (100, 10),
}
NOWHERE = float("nan")
MEMORY = True  # measure memory too, in a second run


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Answer, processor seconds, and peak of memory taken in MiB (in a second run, because tracing costs time)."""
    start = time.process_time()
    answer = work()
    seconds = time.process_time() - start
    if not MEMORY:
        return answer, seconds, NOWHERE
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


def bench_map(n: int, k: int) -> list[dict[str, Any]]:
    """Replicate mAP: ours beside copairs."""
    from copairs.map import average_precision

    p, _ = screen(n, k, 1)
    columns = (["Metadata_compound"], [], [], ["Metadata_compound"])
    pairing = Pairing(("compound",), (), (), ("compound",))
    ours, own, peak = measured(lambda: average_precisions(p, pairing))
    theirs, other, other_peak = measured(lambda: average_precision(p.meta, p.values, *columns, progress_bar=False))
    want = theirs.loc[ours["Metadata_Query"], "average_precision"].to_numpy()
    off = float(np.abs(ours["average_precision"] - want).max())
    return [row(f"mAP {n} x {k}", own, other, peak, other_peak, "copairs", off)]


def bench_select(n: int, k: int) -> list[dict[str, Any]]:
    """MAD-robustise to DMSO, then select: ours beside pycytominer, which gets a table in one block, as it likes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer import feature_select, normalize

    p, control = screen(n, k, 2)
    config = SelectConfig(blocklist=(), variance=None, outlier=None, absolute=False)
    table = pd.DataFrame(p.values, columns=list(p.names), copy=False)
    table.insert(0, "Metadata_Plate", p.meta["Metadata_Plate"])
    table.insert(1, "Metadata_DMSO", control)
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
    return [row(f"normalise + select {n} x {k}", own, other, peak, other_peak, "pycytominer", off)]


def bench_labels(n: int, k: int, labels: int, loop: int) -> list[dict[str, Any]]:
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
    times = []
    for _ in range(50):
        start = time.perf_counter()
        biosimilarity(queries[0], sub)
        times.append(time.perf_counter() - start)
    made = row(f"sub-profiles {n} x {labels}", own, other * n / loop, peak, other_peak, "pandas loop", off)
    return [made | {"one_profile_us": float(np.median(times)) * 1e6}]


HARMONYPY = """
import sys, time, numpy as np, pandas as pd
from harmonypy import run_harmony
x = np.load(sys.argv[1])
table = pd.DataFrame({"b": x["batch"].astype(str)})
options = dict(theta=2, lamb=1, nclust=30, max_iter_kmeans=20, epsilon_cluster=1e-5, epsilon_harmony=1e-4)
options["verbose"] = False
try:
    run_harmony(x["values"][:300], table[:300], ["b"], ncores=1, **options); options["ncores"] = 1
except TypeError:
    pass
start = time.process_time()
made = run_harmony(x["values"], table, ["b"], **options).Z_corr
print(time.process_time() - start)
np.save(sys.argv[2], made if made.shape == x["values"].shape else made.T)
"""


def bench_harmony(n: int, k: int, harmonypy: str = "") -> list[dict[str, Any]]:
    """Harmony, at most 10 rounds: ours beside harmony-pytorch and harmonypy (one thread). `difference` is 1 - the
    smallest correlation of a component: all start from k-means of their own."""
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

    def apart(want: np.ndarray) -> float:
        return 1 - min(float(np.corrcoef(mine[:, j], want[:, j])[0, 1]) for j in range(k))

    want, other, other_peak = measured(lambda: harmonize(values, batches, "Metadata_Batch", **options))
    rows = [row(f"Harmony {n} x {k}", own, other, peak, other_peak, "harmony-pytorch", apart(want))]
    if harmonypy:
        with tempfile.TemporaryDirectory() as folder:
            given, made = Path(folder) / "given.npz", Path(folder) / "made.npy"
            np.savez(given, values=values, batch=batch)
            command = [harmonypy, "-c", HARMONYPY, str(given), str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = float(done.stdout.split()[-1])
            rows.append(row(f"Harmony {n} x {k}", own, seconds, peak, NOWHERE, "harmonypy", apart(np.load(made))))
    return rows


def bench_scores(n: int, m: int) -> list[dict[str, Any]]:
    """AP of each sample and ROC-AUC of each label for n samples and m labels: ours beside scikit-learn's loops."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(5)
    scores, truth = rng.normal(size=(n, m)), np.zeros((n, m), dtype=bool)
    truth[np.arange(n), rng.integers(0, m, n)] = True
    truth |= rng.random((n, m)) < 0.01

    def ours() -> np.ndarray:
        return np.concatenate([average_precision(scores, truth), roc_auc(scores, truth)])

    def theirs() -> np.ndarray:
        samples = [average_precision_score(t, s) for s, t in zip(scores, truth, strict=True)]
        return np.array([*samples, *(roc_auc_score(truth[:, j], scores[:, j]) for j in range(m))])

    mine, own, peak = measured(ours)
    want, other, other_peak = measured(theirs)
    off = float(np.abs(mine - want).max())
    return [row(f"AP and ROC-AUC {n} x {m}", own, other, peak, other_peak, "scikit-learn", off)]


def row(task: str, own: float, other: float, peak: float, other_peak: float, oracle: str, off: float) -> dict[str, Any]:
    """One line of the table."""
    times, memory = other / own, other_peak / peak
    return {
        "task": task, "oracle": oracle, "seconds": own, "oracle_seconds": other, "times_faster": times,
        "mib": peak, "oracle_mib": other_peak, "times_smaller": memory, "difference": off,
    }  # fmt: skip


TASKS: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "map": bench_map,
    "select": bench_select,
    "labels": bench_labels,
    "harmony": bench_harmony,
    "scores": bench_scores,
}


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description="speed of scoring")
    parser.add_argument("--full", action="store_true", help="the sizes of the goals (needs about 20 GiB of memory)")
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), help="some of the tasks")
    parser.add_argument("--harmonypy", default="", help="an interpreter that can import harmonypy")
    parser.add_argument("--no-memory", action="store_true", help="one run of each side: seconds only")
    chosen = parser.parse_args()
    global MEMORY
    MEMORY = not chosen.no_memory
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for name in chosen.only:
            more = {"harmonypy": chosen.harmonypy} if name == "harmony" else {}
            TASKS[name](*WARM[name])
            rows += TASKS[name](*(FULL if chosen.full else SMALL)[name], **more)
    print(f"{'task':34} {'oracle':16} {'s':>8} {'oracle s':>9} {'x':>7} {'MiB':>7} {'oracle':>7} {'difference':>11}")
    for r in rows:
        print(
            f"{r['task']:34} {r['oracle']:16} {r['seconds']:8.2f} {r['oracle_seconds']:9.2f} {r['times_faster']:7.1f} "
            f"{r['mib']:7.0f} {r['oracle_mib']:7.0f} {r['difference']:11.2g}"
            + (f"   one profile {r['one_profile_us']:.0f} us" if "one_profile_us" in r else "")
        )
    names = ("numpy", "pandas", "copairs", "pycytominer", "harmony-pytorch", "scikit-learn")
    packages = {name: version(name) for name in names}
    plain = [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in r.items()} for r in rows]
    print(json.dumps({"rows": plain, "machine": platform.machine(), "packages": packages}))


if __name__ == "__main__":
    main()
