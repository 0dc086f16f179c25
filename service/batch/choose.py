"""From the machine options of `dopaint batch` to an executor, and to what is said before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.batch.drive import Summary
from service.batch.inline import InlineExecutor
from service.batch.local import LocalExecutor
from service.batch.machine import LocalConfig, gpus, resolved
from service.batch.plan import Plan
from service.batch.room import FAKE
from service.errors import UnknownName

EXECUTORS = ("local", "ray", "inline")


@dataclass(frozen=True)
class Machine:
    """Where a run takes place; nothing here changes a result. Empty and 0: chosen (`service.batch.machine`)."""

    executor: str = "local"
    address: str | None = None
    devices: tuple[str, ...] = ()
    painters: int = 0
    profilers: int = 0
    desks: int = 0

    @property
    def local(self) -> LocalConfig:
        """For this machine's processes."""
        return LocalConfig(self.painters, self.profilers, self.desks, self.devices)


def executor_of(machine: Machine) -> Any:
    """The executor by name. Raises `UnknownName`, and `RayMissing` where Ray is not installed."""
    if machine.executor == "local":
        return LocalExecutor(machine.local)
    if machine.executor == "inline":
        return InlineExecutor(device=(machine.devices or gpus() or ("cpu",))[0])
    if machine.executor == "ray":
        from service.batch.ray_data import RayConfig, RayExecutor

        return RayExecutor(RayConfig(machine.address, machine.painters, machine.profilers, machine.desks))
    raise UnknownName(f"executor {machine.executor!r} does not exist: expected one of {', '.join(EXECUTORS)}")


def forecast(plan: Plan, machine: Machine) -> list[str]:
    """What is known before anything is painted: counts, design, and the cost where this machine's rates are known."""
    counts, request = plan.document["counts"], plan.request
    refused = sum(counts["invalid"].values())
    reasons = ", ".join(f"{n} {reason}" for reason, n in counts["invalid"].items())
    upto = "up to " if request.adaptive else ""
    lines = [
        f"{counts['rows']} entries: {counts['compounds']} compounds, {counts['duplicates']} duplicates, "
        f"{refused} refused" + (f" ({reasons})" if reasons else ""),
        f"design {plan.document['design']['hash'][:12]}: {upto}{request.draws} draws of each compound, "
        f"{upto}{plan.most_pictures} pictures with the control's",
    ]
    basis = plan.document["engine"]
    if basis["basis"] == "declared":
        lines.append(
            f"engine {basis['engine']!r} is scored against a library of {basis['library_engine']!r}: equal to "
            f"{basis['tolerance']:g}, {basis['evidence']}"
        )
    if request.model == FAKE or not plan.compounds or machine.executor == "ray":
        return lines
    from service import cost

    local = resolved(machine.local)
    painting_gpus = sum(one != "cpu" for one in local.devices)
    device = "cpu-core" if not painting_gpus else known_gpu()
    try:
        shape = cost.shape_of(request.model, request.steps)
        rates = cost.rates_of(shape, device, request.engine)
    except UnknownName as error:
        return [*lines, f"no forecast of the time: {error}"]
    cores = max(1, local.profilers)
    found = cost.estimate(
        shape,
        plan.compounds,
        request.draws,
        rates,
        cost.Machines(painting_gpus, cores),
        pictures_kept=request.pictures,
        profiles_kept=request.profiles,
        entries=int(counts["rows"]),
    )
    return [*lines, *cost.lines(found)]


def known_gpu() -> str:
    """The table's name of this machine's first GPU, or torch's name where the table has none."""
    import torch

    from service.cost import load_devices

    name = torch.cuda.get_device_name(0)
    wanted = name.lower().replace(" ", "-")
    return next((one for one in load_devices()["device"] if one.split("-")[0] in wanted.split("-")), name)


def timings_document(executor: Any, summary: Summary) -> dict[str, Any]:
    """What `--timings` writes: of a run that painted, by task."""
    on_gpu = any(one != "cpu" for one in getattr(getattr(executor, "config", None), "devices", ()) or ())
    found: dict[str, Any] = executor.timings.document(
        executor=executor.name,
        gpu=on_gpu,
        seconds=round(summary.seconds, 3),
        pictures=summary.pictures,
        evidence=summary.manifest["evidence"],
        **{name: getattr(executor, name) for name in ("start_s",) if hasattr(executor, name)},
    )
    return found
