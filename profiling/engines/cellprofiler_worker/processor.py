"""What a worker's process must look like before numpy loads, and whether it does: two traps, of numbers and of time.

Ties in RadialDistribution and in MaxIntensity's place follow the sorting routine that numpy picks for the processor at
hand; without AVX-512 it picks the same one everywhere. More BLAS threads than one make MeasureTexture tens of times
slower on a busy machine. A worker sets both for itself, whatever the user's shell says, and does not start where either
failed. Standard library at import: the client reads the variables from here, too.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys

#: Processor features that numpy must not use.
FEATURES_OFF = ("AVX512F", "AVX512CD", "AVX512_SKX", "AVX512_CLX", "AVX512_CNL", "AVX512_ICL")

#: Environment variables of a worker, read by numpy, the BLAS libraries and numba when they load.
VARIABLES = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1") | {
    "NPY_DISABLE_CPU_FEATURES": " ".join(FEATURES_OFF)
}


class WrongProcess(RuntimeError):
    """This process would give other numbers, or take tens of times longer."""


def prepare() -> None:
    """Sets the variables; numpy must not be loaded yet. Raises WrongProcess if it is."""
    if "numpy" in sys.modules:
        raise WrongProcess("numpy was loaded before the worker chose its processor features and threads")
    os.environ.update(VARIABLES)


def check() -> None:
    """Raises WrongProcess if numpy uses one of FEATURES_OFF, or a loaded library more than one thread."""
    used = importlib.import_module("numpy.core._multiarray_umath").__cpu_features__
    features = [name for name in FEATURES_OFF if used.get(name)]
    if features:
        raise WrongProcess(f"numpy uses {', '.join(features)}, which moves RadialDistribution where pixels tie")
    for library in importlib.import_module("threadpoolctl").threadpool_info():
        if library["num_threads"] != 1:
            name = os.path.basename(library["filepath"])
            raise WrongProcess(f"{name} uses {library['num_threads']} threads, expected 1: MeasureTexture would crawl")


def limit_memory(mib: float) -> None:
    """Lets this process allocate `mib` MiB of data at most; beyond it, an allocation raises MemoryError."""
    n = int(mib * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (n, n))
