"""The same batch on a local Ray cluster of two nodes, one of them killed: the same bytes. Needs the extra `cluster`."""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from service.batch.ask import BatchRequest
from service.batch.drive import run
from service.batch.inline import InlineExecutor
from service.batch.ray_data import Collector, RayConfig, RayExecutor, RayMissing, fitting, pools
from service.batch.room import FAKE
from service.batch.stages import Item
from service.batch.store import Store

GOOD = [f"{'C' * (1 + i // 3)}{('O', 'N', 'c1ccccc1')[i % 3]}" for i in range(16)]


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batch.ray_data.find_spec", lambda name: None)
    with pytest.raises(RayMissing, match=r"pip install 'dopaint\[cluster\]'"):
        RayExecutor()


def test_pools_follow_the_cluster() -> None:
    many = pools(RayConfig(), {"GPU": 8.0, "CPU": 96.0})
    assert many == {"gpus": 8, "painters": 8, "profilers": 87, "desks": 10}
    assert pools(RayConfig(), {"CPU": 2.0}) == {"gpus": 0, "painters": 1, "profilers": 1, "desks": 1}
    assert pools(RayConfig(painters=2, profilers=3, desks=1), {"CPU": 64.0})["profilers"] == 3


def test_one_actor_of_each_pool_fits_a_small_machine() -> None:
    assert fitting(RayConfig(), 64.0) == 1.0
    assert fitting(RayConfig(), 2.0) * (1.0 + 1.0 + 0.25) == pytest.approx(1.95)


def test_the_collector_puts_a_part_together_in_any_order(tmp_path: Path) -> None:
    from service.batch.drive import plan
    from service.batch.room import FakeBatchRoom

    source = tmp_path / "a.smi"
    source.write_text("CCO\nnot\nCCN\n")
    store = Store(str(tmp_path / "out"))
    plan(source, BatchRequest(model=FAKE, draws=40), store, room=FakeBatchRoom())
    collector = Collector(store, 40)

    def piece(row: int, start: int, stop: int, total: int) -> Item:
        return Item({"row": row, "part": 0, "start": start, "stop": stop, "total": total}, {})

    assert collector.add(piece(3, 32, 40, 40)) is None
    assert collector.add(Item({"row": 1, "part": 0, "failed": "x", "sentence": "y"}, {})) is None
    whole = collector.add(piece(3, 0, 32, 40))
    assert whole is not None
    part, compounds = whole
    assert part == 0
    assert sorted(len(pieces) for pieces in compounds) == [1, 2]
    assert [one.state for one in collector.entries[0]] == ["ready", "invalid", "ready"]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ports() -> dict[str, int]:
    """Free ones: a node whose agents choose theirs gives up when they take more than 15 s (ray-project/ray 65983)."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.socket() for _ in names]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = {name: int(one.getsockname()[1]) for name, one in zip(names, sockets, strict=True)}
    for one in sockets:
        one.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.parametrize("options", [{}, {"width": 0.2, "pilot": 3}], ids=["fixed", "adaptive"])
def test_two_nodes_one_killed_give_the_same_bytes(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'dopaint[cluster]'")
    from ray.cluster_utils import Cluster

    for name, value in (
        ("PYTHONPATH", os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH", "")]))),
        ("RAY_raylet_start_wait_time_s", "300"),
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_DATA_DISABLE_PROGRESS_BARS", "1"),
    ):
        monkeypatch.setenv(name, value)
    source = tmp_path / "a.smi"
    source.write_text("".join(f"{one}\n" for one in [*GOOD[:10], "not", "", GOOD[1], *GOOD[10:]]))
    request = BatchRequest(model=FAKE, draws=12, part=3, profiles="draws", **options)
    with InlineExecutor() as executor:
        run(source, request, Store(str(tmp_path / "inline")), executor)
    memory = 100 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": memory, "include_dashboard": False, **ports()},
    )
    second = cluster.add_node(num_cpus=2, object_store_memory=memory, **ports())
    killed = []

    def report(stage: str, done: int, total: int) -> None:
        if stage == "profile" and done >= total // 3 and not killed:
            killed.append(done)
            cluster.remove_node(second, allow_graceful=False)

    try:
        ray.init(address=cluster.address, log_to_driver=False)
        config = RayConfig(painter_cpus=0.5, profiler_cpus=0.5, profilers=2, desk_cpus=0.25)
        with RayExecutor(config) as executor:
            summary = run(source, request, Store(str(tmp_path / "ray")), executor, report=report)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert killed
    assert summary.outcomes["ok"] + summary.outcomes["out_of_domain"] == len(GOOD)
    assert digests(tmp_path / "ray") == digests(tmp_path / "inline")
