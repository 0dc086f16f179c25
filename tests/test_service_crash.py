"""Killed at any moment: what was finished is there, once, and the rest goes on. See tests/crash_*.py for the protocol.

The quick tests kill at a sample of the moments; the slow ones at every change of persistent state of a whole service,
and 500 workers of the job store.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def run(script: str, *arguments: str | Path) -> dict:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(TESTS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    assert not done.stderr, done.stderr[-3000:]
    return found


@pytest.mark.timeout(300)
def test_a_sample_of_moments_of_a_service(tmp_path: Path) -> None:
    found = run("crash_service.py", tmp_path, "60")
    assert found["points"] >= 60
    assert found["names"] >= 60
    assert found["killed"] >= 3
    assert (found["lost"], found["double"], found["differ"]) == (0, 0, 0)


@pytest.mark.timeout(300)
def test_a_few_workers_of_the_job_store(tmp_path: Path) -> None:
    found = run("crash_store.py", tmp_path / "store", "25")
    assert found["kills"] == 25
    assert (found["lost"], found["double"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_moment_of_a_service(tmp_path: Path) -> None:
    found = run("crash_service.py", tmp_path, "1")
    assert found["killed"] >= 60
    assert found["killed_at_names"] >= 50
    assert (found["lost"], found["double"], found["differ"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_500_workers_of_the_job_store(tmp_path: Path) -> None:
    found = run("crash_store.py", tmp_path / "store", "500")
    assert found["kills"] == 500
    assert (found["lost"], found["double"]) == (0, 0)
