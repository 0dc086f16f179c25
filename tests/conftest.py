"""Every test runs alone: no environment of the user's, no network, one thread, files only where pytest puts them."""

import os
from pathlib import Path

# Before numpy, torch or numba load: one thread each, so that numbers and times do not depend on the machine's load.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Compiled kernels of the tests are kept apart: the import hook loads some modules under names that only the tests know.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".cache" / "numba-tests"))
# Hub clients read these when they are imported: weights come from folders, never from a network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HOME"] = "/nonexistent/no-weights-of-the-users"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import ipaddress
import json
import socket
from typing import Any

import pytest

#: Read before `clean_environment` takes the variables away.
_DATA = os.environ.get("DOPAINT_DATA", "")


class NetworkUsed(RuntimeError):
    """A test tried to reach another machine."""


def _is_local(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0])
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the user's `DOPAINT_*` variables away, but where CellProfiler is; a test that needs one sets it."""
    for name in os.environ:
        if name.startswith("DOPAINT_") and name != "DOPAINT_CELLPROFILER_VENV":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection but those to this machine itself."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded(self: socket.socket, address: Any) -> None:
        if not _is_local(self.family, address):
            raise NetworkUsed(f"a test tried to reach {address!r}; tests work offline, put a fake in its place")
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        if not _is_local(self.family, address):
            raise NetworkUsed(f"a test tried to reach {address!r}; tests work offline, put a fake in its place")
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real development data; a test that asks for it is skipped where `DOPAINT_DATA` names none."""
    if not _DATA or not Path(_DATA).is_dir():
        pytest.skip("needs the development data: set DOPAINT_DATA to its folder")
    return Path(_DATA).resolve()


@pytest.fixture(scope="session")
def tiny_training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder of 24 random pictures (5 channels, 16 x 16), 3 compounds, 2 sources, 6 batches, 4 plates."""
    import numpy as np
    import pandas as pd

    folder = tmp_path_factory.mktemp("tiny_training")
    rng, n = np.random.default_rng(0), 24
    np.save(folder / "pictures.npy", rng.uniform(-1, 1, (n, 5, 16, 16)).astype(np.float16))
    source = [f"S{i % 2}" for i in range(n)]
    rows = pd.DataFrame(
        {
            "compound": [f"K{i % 3}" for i in range(n)],
            "source": source,
            "batch": [f"{s}B{i % 3}" for i, s in enumerate(source)],
            "plate": [f"{s}P{i % 4 // 2}" for i, s in enumerate(source)],
            "plate_format": 384,
            "row": rng.integers(0, 16, n),
            "column": rng.integers(0, 24, n),
            "seed": np.arange(n, dtype=np.uint64),
            "split": ["train"] * 18 + ["val"] * 6,
        }
    )
    rows.to_parquet(folder / "rows.parquet")
    np.save(folder / "compounds.npy", rng.standard_normal((3, 5)).astype(np.float32))
    pd.DataFrame({"compound": ["K0", "K1", "K2"]}).to_parquet(folder / "compounds.parquet")
    scale = {"low": [0.0] * 5, "high": [1.0] * 5}
    channels = ["DNA", "ER", "RNA", "AGP", "Mito"]
    (folder / "intensity.json").write_text(json.dumps({"channels": channels, "sources": {"S0": scale, "S1": scale}}))
    return folder
