"""How often and for how much a key may ask: a bucket of requests in memory, and pictures a day in a small database.

Buckets live in one process: with several HTTP workers each of them has its share of the rate. The pictures of a day
are counted in SQLite, so they outlive a restart and hold over all workers.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from service.errors import TooMany
from service.keys import Key

MOST_BUCKETS = 10_000  # beyond, the one that was idle longest is forgotten: it is full again by then
DAY_S = 86_400

_META = sa.MetaData()
_USAGE = sa.Table(
    "usage",
    _META,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True),
    sa.Column("pictures", sa.Integer, nullable=False),
)


class Buckets:
    """One token bucket a key: `per_minute` tokens, refilled evenly; a full bucket allows a minute's worth at once."""

    def __init__(self, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`share`: of the rate that this process may spend."""
        self._share, self._clock = share, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when)
        self._lock = threading.Lock()

    def take(self, name: str, per_minute: int) -> None:
        """Takes one token. Raises `TooMany` when there is none; 0 a minute is no limit."""
        if per_minute <= 0:
            return
        full = max(1.0, per_minute * self._share)
        with self._lock:
            now = self._clock()
            tokens, then = self._levels.pop(name, (full, now))
            tokens = min(full, tokens + (now - then) * full / 60.0)
            enough = tokens >= 1.0
            self._levels[name] = (tokens - 1.0 if enough else tokens, now)
            while len(self._levels) > MOST_BUCKETS:
                self._levels.popitem(last=False)
        if not enough:
            wait = (1.0 - tokens) * 60.0 / full
            raise TooMany(
                f"more than {per_minute} requests a minute: come back in {math.ceil(wait)} s, or ask for a higher rate",
                wait,
            )


class Usage:
    """Pictures asked for, by owner and day (UTC)."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        file.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{file}", connect_args={"timeout": 30})
        _META.create_all(self._engine)

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def charge(self, key: Key, pictures: int) -> None:
        """Counts pictures for today. Raises `TooMany` when that passes the quota, and counts nothing then."""
        day, rest = divmod(self._clock(), DAY_S)
        with self._engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO usage (owner, day, pictures) VALUES (?, ?, ?) "
                "ON CONFLICT (owner, day) DO UPDATE SET pictures = pictures + excluded.pictures",
                (key.id, int(day), pictures),
            )
            used = int(connection.scalar(_of(key.id, int(day))) or 0)
            if 0 < key.pictures_a_day < used:
                connection.rollback()
                raise TooMany(
                    f"{pictures} pictures asked for, {max(0, key.pictures_a_day - used + pictures)} of "
                    f"{key.pictures_a_day} a day are left: ask for fewer, or come back after 0:00 UTC",
                    DAY_S - rest,
                )

    def refund(self, key: Key, pictures: int) -> None:
        """Gives pictures of today back: the request was not queued after all."""
        with self._engine.begin() as connection:
            connection.execute(
                _USAGE.update()
                .where(_USAGE.c.owner == key.id, _USAGE.c.day == int(self._clock() // DAY_S))
                .values(pictures=sa.func.max(0, _USAGE.c.pictures - pictures))
            )

    def today(self, owner: str) -> int:
        """Pictures that this owner asked for today."""
        with self._engine.connect() as connection:
            return int(connection.scalar(_of(owner, int(self._clock() // DAY_S))) or 0)


def _of(owner: str, day: int) -> sa.Select[tuple[int]]:
    return sa.select(_USAGE.c.pictures).where(_USAGE.c.owner == owner, _USAGE.c.day == day)
