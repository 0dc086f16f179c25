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
