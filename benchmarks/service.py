"""The service under load: predictions a minute, status calls while it paints, packing, shares, memory.

A server of its own with a key for each client; closed-loop clients (ask, wait, ask again) each with other molecules and
seeds; a prober in a process of its own that asks for the status of a running job 20 times a second. Packing is compared
with one request at a time on the same machine in the same run. Memory is watched over many jobs with the fake room.
Prints a table, then one JSON line.

    python benchmarks/service.py [--clients 1,8,64] [--seconds 120] [--draws 4] [--fake] [--jobs 1000]

`--fake`: a room that paints blobs and takes --batch-ms for each batch, in place of the shipped model and CellProfiler.
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The script's own folder must not stand before the package: it holds a file of its name.
sys.path[:] = [one for one in sys.path if Path(one).resolve() != Path(__file__).resolve().parent]

import httpx
import numpy as np
import pandas as pd

from service.fake import FakeRoom
from service.jobs import Desk
from service.keys import Keys
from service.library import library
from service.quota import Rules
from service.serve import work
from service.settings import Settings

POLL_S, PROBE_HZ = 1.0, 20
FAKE = ("CCO", "CCCO", "CCCCO", "CCCCCO", "CCN", "CCCN", "CCCCN", "CCCCCN")


class TimedRoom(FakeRoom):
    """The fake room, with a cost like a network's: each batch takes the same time, however few pictures it holds."""

    def __init__(self, batch_s: float) -> None:
        super().__init__()
        self._batch_s = batch_s

    def paint(self, vector: np.ndarray, rows: pd.DataFrame, tick: Any) -> np.ndarray:
        """Batches of one compound."""
        time.sleep(self._batch_s * -(-len(rows) // self.card.micro_batch))
        return super().paint(vector, rows, tick)

    def paint_rows(self, vectors: np.ndarray, rows: pd.DataFrame, progress: Any) -> np.ndarray:
        """One full batch of any compounds."""
        time.sleep(self._batch_s)
        parts = [FakeRoom.paint(self, vectors[i], rows.iloc[[i]], lambda _: None) for i in range(len(rows))]
        return np.concatenate(parts)


def serve(folder: Path, options: argparse.Namespace, packed: bool) -> None:
    """The server's process: prints its port, serves until its standard input ends."""
    import threading

    import uvicorn

    from service.app import make_app
    from service.engine import load_room
    from service.serve import bound

    settings = Settings(
        port=0, auth="required", data=str(folder), keys=str(folder / "keys.json"), max_waiting_jobs=10_000
    )
    rules = Rules(
        max_waiting_jobs=10_000,
        max_waiting_jobs_per_owner=10_000,
        max_rows_waiting=10**8,
        min_free_bytes=1,
        keep_s=60.0,
    )
    room = TimedRoom(options.batch_ms / 1000) if options.fake else None
    desk = Desk(
        folder,
        (lambda: room) if room is not None else (lambda: load_room(workers=options.workers)),
        None if packed else work,
        rules=rules,
    )
    server = uvicorn.Server(uvicorn.Config(make_app(desk, settings, web=False), log_level="error", lifespan="on"))

    def until_closed() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=until_closed, daemon=True).start()
    with bound(settings) as made:
        sys.stdout.write(f"{made.getsockname()[1]}\n")
        sys.stdout.flush()
        server.run(sockets=[made])


class Server:
    """A server's process, ready to answer."""

    def __init__(self, options: argparse.Namespace, clients: int, packed: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dopaint-bench-")
        folder = Path(self._folder.name)
        keys = Keys(folder / "keys.json")
        self.keys = [keys.add(f"client-{i}", per_minute=10**6)[1] for i in range(clients + 1)]
        command = [sys.executable, __file__, "--serve", str(folder), *(() if packed else ("--alone",))]
        command += ["--batch-ms", str(options.batch_ms), "--workers", str(options.workers)]
        self._process = subprocess.Popen(
            command + (["--fake"] if options.fake else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        while httpx.get(f"{self.url}/v1/health/ready", timeout=120).status_code != 200:
            time.sleep(0.1)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def rss_mib(self) -> float:
        """Memory of its process."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def counters(self) -> dict[str, float]:
        """Its metrics, by name without labels."""
        text = httpx.get(f"{self.url}/metrics", headers=headers(self.keys[-1]), timeout=120).text
        lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        return {line[0]: float(line[-1]) for line in lines if len(line) >= 2}

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._folder.cleanup()


def headers(key: str) -> dict[str, str]:
    """Of a request by the holder of a key."""
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Seen:
    """What one client saw."""

    waits: list[float] = field(default_factory=list)  # seconds of each finished prediction
    open_since: float | None = None


async def client(server: Server, number: int, molecules: list[str], draws: int, until: float, seen: Seen) -> None:
    """Asks, waits, asks again. A prediction that is not finished at the end is cancelled."""
    async with httpx.AsyncClient(base_url=server.url, headers=headers(server.keys[number]), timeout=120) as http:
        turn = 0
        while time.monotonic() < until:
            smiles = molecules[(number * 7 + turn) % len(molecules)]
            body = {"smiles": smiles, "draws": draws, "seed": 1000 * number + turn}
            began = seen.open_since = time.monotonic()
            place = (await http.post("/v1/predictions", json=body)).raise_for_status().headers["location"]
            while True:
                await asyncio.sleep(POLL_S)
                status = (await http.get(place)).raise_for_status().json()["status"]
                if status not in ("queued", "running"):
                    break
                if time.monotonic() >= until:
                    await http.post(f"{place}/cancel")
                    return
            if status != "done":
                raise RuntimeError(f"{place} is {status}")
            seen.waits.append(time.monotonic() - began)
            seen.open_since = None
            turn += 1


def probe(port: int, key: str, place: str, seconds: float) -> list[float]:
    """Milliseconds of status calls at a steady rate: late answers do not keep later questions from being asked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    start = time.monotonic()
    for i in range(int(seconds * PROBE_HZ)):
        due = start + i / PROBE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
        connection.request("GET", place, headers=headers(key))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"status call: {answer.status}")
        found.append(1000 * (time.monotonic() - due))  # from when it was due, so that waiting counts
    return found


async def load(server: Server, clients: int, molecules: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All clients at once for some seconds, and the prober beside them."""
    async with httpx.AsyncClient(base_url=server.url, headers=headers(server.keys[-1]), timeout=120) as http:
        body = {"smiles": molecules[0], "draws": 1000, "seed": 77}
        long_one = (await http.post("/v1/predictions", json=body)).raise_for_status().headers["location"]
    command = [sys.executable, __file__, "--probe", str(server.port), server.keys[-1], long_one, str(options.seconds)]
    prober = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    began = time.monotonic()
    seen = [Seen() for _ in range(clients)]
    until = began + options.seconds
    await asyncio.gather(*(client(server, i, molecules, options.draws, until, one) for i, one in enumerate(seen)))
    elapsed = time.monotonic() - began
    told, _ = await prober.communicate()
    calls = json.loads(told)
    async with httpx.AsyncClient(base_url=server.url, headers=headers(server.keys[-1]), timeout=120) as http:
        await http.post(f"{long_one}/cancel")
    finished = sum(len(one.waits) for one in seen)
    waits = [statistics.mean(one.waits) if one.waits else elapsed for one in seen]
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "finished": finished,
        "predictions_a_minute": round(60 * finished / elapsed, 2),
        "status_p50_ms": round(float(np.percentile(calls, 50)), 1),
        "status_p99_ms": round(float(np.percentile(calls, 99)), 1),
        "status_calls": len(calls),
        "wait_mean_s": round(statistics.mean(waits), 2),
        "longest_wait_to_mean": round(max(waits) / statistics.mean(waits), 2),
    }


def throughput(options: argparse.Namespace, packed: bool, clients: int, molecules: list[str]) -> dict[str, Any]:
    """Only the clients, without the long job and the prober: for the comparison of packed with one at a time."""
    server = Server(options, clients, packed)
    try:
        seen = [Seen() for _ in range(clients)]
        began = time.monotonic()

        async def all_of_them() -> None:
            until = began + options.seconds
            await asyncio.gather(
                *(client(server, i, molecules, options.draws, until, one) for i, one in enumerate(seen))
            )

        asyncio.run(all_of_them())
        elapsed = time.monotonic() - began
        finished = sum(len(one.waits) for one in seen)
        return {"finished": finished, "predictions_a_minute": round(60 * finished / elapsed, 2)}
    finally:
        server.close()


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """The server's memory over many small jobs, with the fake room."""
    fake = argparse.Namespace(**{**vars(options), "fake": True, "batch_ms": 0.0})
    server = Server(fake, 1)
    try:
        curve = []
        with httpx.Client(base_url=server.url, headers=headers(server.keys[0]), timeout=300) as http:
            for n in range(options.jobs):
                body = {"smiles": FAKE[n % len(FAKE)], "draws": 1, "seed": n}
                answer = http.post("/v1/predictions?wait=60", json=body).raise_for_status().json()
                if answer["status"] != "done":
                    raise RuntimeError(str(answer)[:300])
                if (n + 1) % max(1, options.jobs // 10) == 0:
                    curve.append(round(server.rss_mib(), 1))
        # The first tenth fills caches and pools; after it nothing may grow with the number of jobs.
        return {"jobs": options.jobs, "room": "fake", "rss_mib": curve, "growth": round(curve[-1] / curve[0] - 1, 4)}
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--batch-ms", type=float, default=50.0)
    parser.add_argument("--fake", action="store_true")
    parser.add_argument("--skip", default="", help="parts to leave out: load, packing, memory")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options, not options.alone)
        return
    if options.probe is not None:
        port, key, place, seconds = options.probe
        sys.stdout.write(json.dumps(probe(int(port), key, place, float(seconds))))
        return
    skip = options.skip.split(",")
    drugs = library().query("kind == 'drug'")["smiles"].tolist()
    molecules = list(FAKE) if options.fake else [str(one) for one in drugs[:64]]
    found: dict[str, Any] = {"benchmark": "service", "room": "fake" if options.fake else "simulation-128, cellprofiler"}
    found |= {"draws": options.draws, "workers": options.workers}
    if "load" not in skip:
        found["load"] = []
        for n in map(int, options.clients.split(",")):
            server = Server(options, n)
            try:
                row = asyncio.run(load(server, n, molecules, options)) | {"rss_mib": round(server.rss_mib(), 0)}
                row["batch_fill"] = server.counters().get("dopaint_batch_fill")
            finally:
                server.close()
            found["load"].append(row)
            print(
                f"{n:3d} clients {row['predictions_a_minute']:8.2f} predictions a minute, status p50 "
                f"{row['status_p50_ms']:6.1f} ms, p99 {row['status_p99_ms']:6.1f} ms, mean wait "
                f"{row['wait_mean_s']:6.1f} s, longest {row['longest_wait_to_mean']:.2f} of the mean"
            )
    if "packing" not in skip:
        packed, alone = (throughput(options, which, 8, molecules) for which in (True, False))
        ratio = packed["predictions_a_minute"] / max(alone["predictions_a_minute"], 1e-9)
        found["packing"] = {"clients": 8, "packed": packed, "one_at_a_time": alone, "ratio": round(ratio, 2)}
        print(f"packed {packed['predictions_a_minute']}, one at a time {alone['predictions_a_minute']}: {ratio:.2f}")
    if "memory" not in skip:
        found["memory"] = memory(options)
        print(f"memory over {options.jobs} jobs (fake room), MiB: {found['memory']['rss_mib']}")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    load_average = [round(one, 1) for one in os.getloadavg()]
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": load_average,
    }
    print(json.dumps(found | {"commit": commit.stdout.strip(), **machine}))


if __name__ == "__main__":
    main()
