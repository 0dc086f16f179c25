"""A PostgreSQL server of our own for the tests, in a temporary folder, on a free port of the loopback, gone afterwards.

    python tests/postgres_server.py     installs PostgreSQL where it is missing (Debian, as root), then runs its tests

Needs the programs initdb and pg_ctl (Debian: apt-get install -y postgresql) and the extra `postgres`.
"""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "dopaint"


def programs() -> Path | None:
    """The folder with initdb and pg_ctl, the newest; None where there is none."""
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    return next((folder for folder in reversed(found) if (folder / "pg_ctl").is_file()), None)


def why_not() -> str:
    """What is missing; empty when nothing is."""
    if programs() is None:
        return "PostgreSQL is not installed: python tests/postgres_server.py installs it"
    if importlib.util.find_spec("pg8000") is None:
        return "the extra `postgres` is not installed"
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _has_user("postgres")):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


@contextmanager
def server() -> Iterator[str]:
    """URL of a fresh server, without the name of a database."""
    folder = Path(tempfile.mkdtemp(prefix="dopaint-postgres-"))
    bin_folder = programs()
    assert bin_folder is not None
    try:
        prefix: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            prefix = ["runuser", "-u", "postgres", "--"]
        data = folder / "data"

        def run(*command: str) -> None:
            done = subprocess.run([*prefix, *command], capture_output=True, text=True, cwd=folder, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        run(str(bin_folder / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "--no-sync", "--no-instructions")
        port = _free_port()
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        control = str(bin_folder / "pg_ctl")
        run(control, "-D", str(data), "-l", str(folder / "log"), "-o", settings, "-w", "-t", "120", "start")
        try:
            yield f"postgresql+pg8000://{USER}@127.0.0.1:{port}"
        finally:
            run(control, "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(url: str) -> str:
    """URL of a new database of the server."""
    import sqlalchemy as sa

    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{url}/{name}"


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> int:
    """Installs what is missing and runs the tests that want a server."""
    if programs() is None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"], env=environment, check=True
        )
    tests = Path(__file__).resolve().parent
    files = [str(tests / "test_service_store.py"), str(tests / "test_service_postgres.py")]
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *files], cwd=tests.parent, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
