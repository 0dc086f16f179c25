"""Runs that are stopped: what is finished is kept, a killed run goes on where it was and ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from painted_screen import screen, tables_of, write_folder
from quarters import ALL, Quarters, folder, folder_again

from profiling.engines.measurement import ObjectTable
from profiling.inputs import InvalidInput
from profiling.outcomes import Limits
from profiling.run import run
from profiling.shards import Finished, Shards


def test_finished_fields_are_not_measured_again_and_changed_ones_are(tmp_path: Path) -> None:
    fields, out = folder(tmp_path / "in"), tmp_path / "p.parquet"
    run(fields, Quarters(), out, ALL)
    first = dict(tables_of(tmp_path))
    again = Quarters()
    assert run(fields, again, out, ALL).kept == 8
    assert again.pictures == 0
    assert dict(tables_of(tmp_path)) == first
    tifffile.imwrite(fields.fields[2].planes["ER"].path, screen()[0].counts[0])
    assert run(folder_again(tmp_path), again, out, ALL).kept == 7
    assert again.pictures == 1
    run(fields, again, out, replace(ALL, limits=Limits(saturated_percent=9.0)))  # another rule: all of them anew
    assert again.pictures == 9


def test_an_engine_that_breaks_down_loses_its_batch_alone(tmp_path: Path) -> None:
    class Breaks(Quarters):
        def measure(self, pictures: np.ndarray, channels: Sequence[str], progress: object = None) -> list:
            if self.pictures == 6:
                raise InvalidInput("the engine is gone")
            return super().measure(pictures, channels, None)

    fields, whole = folder(tmp_path / "in"), tmp_path / "whole"
    whole.mkdir()
    with pytest.raises(InvalidInput, match="gone"):
        run(fields, Breaks(), tmp_path / "p.parquet", ALL)
    assert not list(tmp_path.glob("*.parquet"))
    engine = Quarters()
    assert run(fields, engine, tmp_path / "p.parquet", ALL).kept == 6
    assert engine.pictures == 2
    run(fields, Quarters(), whole / "p.parquet", ALL)
    assert dict(tables_of(tmp_path)) == dict(tables_of(whole))


_KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from quarters import ALL, Quarters, folder_again
from dataclasses import replace
from profiling.quality import InvalidQuality, QualityLimits
from profiling.run import run
class Slow(Quarters):
    def measure(self, pictures, channels, progress=None):
        time.sleep(0.3)
        return super().measure(pictures, channels)
run(folder_again(Path(sys.argv[3])), Slow(), Path(sys.argv[3]) / "p.parquet", replace(ALL, batch=1))
"""


def test_kill_9_and_again_gives_the_same_bytes(tmp_path: Path) -> None:
    write_folder(tmp_path / "in")
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", _KILLED, str(here), str(here.parent), str(tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, "NUMBA_DISABLE_JIT": "1"})
    kept = tmp_path / "p.fields"
    deadline = time.monotonic() + 200
    while len(list(kept.rglob("*.npz"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = len(list(kept.rglob("*.npz")))
    assert 2 <= finished < 8
    assert not list(tmp_path.glob("*.parquet"))
    (next(kept.rglob("*.npz")).parent / f"half.npz.{process.pid}.tmp").write_bytes(b"half a field")

    config, whole = replace(ALL, batch=1), tmp_path / "whole"
    whole.mkdir()
    assert run(folder_again(tmp_path), Quarters(), tmp_path / "p.parquet", config).kept == finished
    assert not list(kept.rglob("*.tmp"))
    run(folder_again(tmp_path), Quarters(), whole / "p.parquet", config)
    assert dict(tables_of(tmp_path)) == dict(tables_of(whole))


def test_a_damaged_shard_is_measured_anew(tmp_path: Path) -> None:
    fields, out = folder(tmp_path / "in"), tmp_path / "p.parquet"
    run(fields, Quarters(), out, ALL)
    shard = next((tmp_path / "p.fields").rglob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(InvalidInput, match="run the same command again"):
        run(fields, Quarters(), out, ALL)
    assert run(fields, Quarters(), out, ALL).kept == 7


def test_another_range_is_another_run(tmp_path: Path) -> None:
    fields = folder(tmp_path / "in")
    run(fields, Quarters(), tmp_path / "p.parquet", ALL)
    assert run(fields, Quarters(), tmp_path / "p.parquet", replace(ALL, bits="12")).kept == 0


def test_a_shard_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before the file is moved to its place leaves nothing that counts as finished."""
    shards = Shards(tmp_path)

    def ended(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    shards.save("0000", Finished("ok"))
    monkeypatch.setattr(Path, "replace", ended)
    with pytest.raises(KeyboardInterrupt):
        shards.save("ab12", Finished("ok"))
    assert not shards.has("ab12")
    assert shards.has("0000")


def test_a_shard_comes_back_as_it_went(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    table = ObjectTable(("a", "b"), np.array([[1.5, np.nan], [np.inf, -0.0]]))
    kept = Finished("ok", "", {"Cells": table}, {"Count_Cells": 2.0, "Odd": float("nan")})
    shards.save("ab12", kept)
    back = Shards(tmp_path).load("ab12")
    assert back is not None
    np.testing.assert_array_equal(back.objects["Cells"].values, table.values)
    assert (back.outcome, back.objects["Cells"].names) == ("ok", ("a", "b"))
    assert back.image["Count_Cells"] == 2.0
    assert shards.load("cd34") is None


def test_only_a_batch_of_pictures_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a batch is measured the next one may be read, and nothing beyond it."""
    import profiling.run as module

    read = 0
    real = module.read_field

    def counted(*arguments: object) -> np.ndarray:
        nonlocal read
        read += 1
        return real(*arguments)

    class Looks(Quarters):
        def measure(self, pictures: np.ndarray, channels: Sequence[str], progress: object = None) -> list:
            assert read <= self.pictures + 2 * 2
            return super().measure(pictures, channels, None)

    monkeypatch.setattr(module, "read_field", counted)
    run(folder(tmp_path / "in"), Looks(), tmp_path / "p.parquet", replace(ALL, batch=2))
    assert read == 8
