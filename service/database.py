"""The database of the jobs: SQLite with a write-ahead log, or PostgreSQL by URL; its two tables; what its errors mean.

A write transaction of SQLite takes the lock at once (BEGIN IMMEDIATE), so that what it read is still true when it
writes; PostgreSQL locks the job's row instead.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.errors import Damaged, InvalidRequest, StorageFull
from service.faults import point

META = sa.MetaData()
JOBS = sa.Table(
    "jobs",
    META,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(32), unique=True, nullable=False),
    sa.Column("place", sa.String(32), nullable=False),  # the data folder that holds its files
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),  # SHA-256 of what never changes
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("mark", sa.Integer, nullable=False),  # `done` when the present attempt began
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("started", sa.Float(53)),
    sa.Column("finished", sa.Float(53)),
    sa.Column("expires", sa.Float(53)),
    sa.Column("rows", sa.Integer, nullable=False),  # pictures that were asked for
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("stage", sa.String(255), nullable=False),
    sa.Column("problem", sa.Text),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("last_event", sa.Integer, nullable=False),
    sa.Column("worker", sa.String(64)),
    sa.Column("lease_until", sa.Float(53)),
    sa.UniqueConstraint("place", "owner", "idempotency_key", name="one_job_a_key"),
    sa.Index("jobs_by_state", "place", "state", "owner"),
)
EVENTS = sa.Table(
    "events",
    META,
    sa.Column("job", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", sa.String(160), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.UniqueConstraint("job", "kind", "subject", name="nothing_happens_twice"),
)

BUSY_S = 30.0
SYNCHRONOUS = "FULL"  # a committed job outlives a power failure; see SQLite's "PRAGMA synchronous"


class Database:
    """Connections to one database. Safe to call from several threads and processes."""

    def __init__(self, url: str) -> None:
        """Opens `url` and makes the tables that are missing.

        Raises `InvalidRequest` for a URL that cannot be used, `Damaged` for a database that cannot be read.
        """
        try:
            self._url = sa.make_url(url)
            kind = self._url.get_backend_name()
        except sa.exc.ArgumentError as error:
            raise InvalidRequest(
                "database: not a URL: expected sqlite:///file or postgresql+pg8000://user@host/name"
            ) from error
        if kind not in ("sqlite", "postgresql"):
            raise InvalidRequest(f"database: {kind!r} is not supported: expected sqlite or postgresql+pg8000")
        self.is_sqlite = kind == "sqlite"
        try:
            self._writer = self._engine("BEGIN IMMEDIATE", 1 if self.is_sqlite else 8)
            self._reader = self._engine("BEGIN", 8) if self.is_sqlite else self._writer
        except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
            raise InvalidRequest(
                "database: the PostgreSQL driver is not installed: pip install 'dopaint[postgres]'"
            ) from error
        with translated():
            META.create_all(self._writer, checkfirst=True)

    @staticmethod
    def of_file(file: Path) -> Database:
        """SQLite in a file; its folder is made."""
        file.parent.mkdir(parents=True, exist_ok=True)
        return Database(f"sqlite:///{file}")

    @contextmanager
    def write(self, what: str) -> Iterator[sa.Connection]:
        """One transaction that may write: all of it or nothing. `what` names it at the fault points."""
        point(f"{what}: beginning")
        with translated(), self._writer.begin() as connection:
            yield connection
            point(f"{what}: committing")
        point(f"{what}: committed")

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One transaction that only reads."""
        with translated(), self._reader.connect() as connection:
            yield connection

    def check(self) -> str | None:
        """What is wrong with a SQLite file's structure or columns; None when nothing is. PostgreSQL checks itself."""
        try:
            with self._reader.connect() as connection:
                for table in META.sorted_tables:
                    found = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
                    if missing := sorted(set(table.columns.keys()) - found):
                        return f"table {table.name} has no column {missing[0]}"
                if not self.is_sqlite:
                    return None
                lines = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars().all()
        except sa.exc.DatabaseError as error:
            return str(error.orig)
        return None if lines == ["ok"] else str(lines[0])

    def close(self) -> None:
        """Closes every connection."""
        self._reader.dispose()
        self._writer.dispose()

    def _engine(self, begin: str, size: int) -> sa.Engine:
        if not self.is_sqlite:
            return sa.create_engine(self._url, pool_size=size, max_overflow=8, pool_pre_ping=True)
        made = sa.create_engine(
            self._url,
            connect_args={"timeout": BUSY_S, "check_same_thread": False},
            poolclass=sa.pool.QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=2 * BUSY_S,
        )
        sa.event.listen(made, "connect", _configure)
        sa.event.listen(made, "begin", lambda connection: connection.exec_driver_sql(begin))
        return made


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute(f"PRAGMA synchronous={SYNCHRONOUS}")
    cursor.close()


@contextmanager
def translated() -> Iterator[None]:
    """The database's errors as ours: `StorageFull`, or `Damaged` for one that cannot be read, written or reached."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.DatabaseError) as error:
        if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError):
            raise
        raise _ours(error.orig) from error
    except sa.exc.TimeoutError as error:
        raise Damaged("the job store is busy: ask again in a few seconds", 5.0) from error
    except sqlite3.DatabaseError as error:
        raise _ours(error) from error


def _ours(error: BaseException | None) -> Exception:
    words = str(error)
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_FULL or "disk is full" in words or "53100" in words:
        return StorageFull("no space is left for the job store: free some, or ask later", 30.0)
    if "locked" in words:
        return Damaged("the job store is locked by another program: ask again in a few seconds", 5.0)
    return Damaged("the job store cannot be used; the service rebuilds it from its files when it starts again", 60.0)
