"""How much one client, and all of them, may ask for: waiting jobs, pictures, bytes; and how long results stay."""

from __future__ import annotations

from dataclasses import dataclass, fields

from service.errors import InvalidRequest, QueueFull, QuotaExceeded, StorageFull

DAY_S = 86_400.0
_BYTES_PER_PIXEL = 3.0  # zlib-compressed 16-bit channels, and the preview beside them
_BYTES_PER_ROW = 40_000  # the profile of a picture


@dataclass(frozen=True)
class OwnerRules:
    """What one client may have; None: as `Rules` says. `weight`: its share of the engine beside clients of weight 1."""

    max_waiting_jobs: int | None = None
    max_disk_bytes: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InvalidRequest(f"weight is {self.weight}: expected a positive number")


@dataclass(frozen=True)
class Rules:
    """Bounds of the queue and of the results, and the times of leases. Sizes are in bytes, times in seconds."""

    max_waiting_jobs: int = 100
    max_waiting_jobs_per_owner: int = 20
    max_rows_waiting: int = 200_000  # pictures of all unfinished jobs
    max_disk_bytes: int = 50_000_000_000
    max_disk_bytes_per_owner: int = 10_000_000_000
    min_free_bytes: int = 200_000_000  # of the disk, below which nothing new is accepted
    keep_s: float = 7 * DAY_S  # results, after the end of their job
    forget_s: float = 30 * DAY_S  # the record of an expired job
    lease_s: float = 60.0
    heartbeat_s: float = 10.0
    max_attempts: int = 3  # deaths of the process without any progress of the job between them
    max_active_jobs: int = 64
    max_active_jobs_per_owner: int = 4

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) > 0:
                raise InvalidRequest(f"rules.{one.name} is {getattr(self, one.name)}: expected a positive number")
        if self.heartbeat_s >= self.lease_s:
            raise InvalidRequest(f"rules.heartbeat_s is {self.heartbeat_s}: expected less than lease_s, {self.lease_s}")


@dataclass(frozen=True)
class Used:
    """What a client, or all of them, have now: jobs, pictures that are still to be made, bytes of results.

    `bytes` counts unfinished jobs by their estimate.
    """

    jobs_waiting: int
    jobs_running: int
    rows_waiting: int
    bytes: int


def estimated_bytes(rows: int, channels: int, side: int) -> int:
    """About how much `rows` pictures and their profiles take on disk."""
    return int(rows * (channels * side * side * _BYTES_PER_PIXEL + _BYTES_PER_ROW))


def admit(
    rules: Rules, owner_rules: OwnerRules, everyone: Used, owner: Used, rows: int, size: int, retry_after_s: float
) -> None:
    """Whether a job of `rows` pictures and `size` bytes may be queued.

    Raises:
        QueueFull: all clients together wait for too much. QuotaExceeded: this one does. StorageFull: its results, with
        those that are kept, would take more than all may.
    """
    mine = owner_rules.max_waiting_jobs or rules.max_waiting_jobs_per_owner
    if owner.jobs_waiting >= mine:
        raise QuotaExceeded(
            f"{owner.jobs_waiting} of your jobs are waiting, at most {mine} may: try again later", retry_after_s
        )
    if everyone.jobs_waiting >= rules.max_waiting_jobs:
        raise QueueFull(
            f"{everyone.jobs_waiting} jobs are waiting, at most {rules.max_waiting_jobs} may: try again later",
            retry_after_s,
        )
    if everyone.rows_waiting + rows > rules.max_rows_waiting and everyone.rows_waiting > 0:
        raise QueueFull(
            f"{everyone.rows_waiting} pictures are waiting and you ask for {rows}, at most {rules.max_rows_waiting} "
            "may wait: ask for fewer draws or molecules, or later",
            retry_after_s,
        )
    space = owner_rules.max_disk_bytes or rules.max_disk_bytes_per_owner
    if owner.bytes + size > space:
        raise QuotaExceeded(
            f"your results take {owner.bytes} bytes, these would take about {size} more, and {space} are yours: delete "
            "some predictions first",
            None,
        )
    if everyone.bytes + size > rules.max_disk_bytes:
        raise StorageFull(
            f"all results take {everyone.bytes} bytes, of {rules.max_disk_bytes} that they may: delete some, or ask "
            "when others have expired",
            3600.0,
        )
