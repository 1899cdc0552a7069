"""A real PostgreSQL for tests: started once per test process in a temporary folder, stopped by its pid.

Without the server's programs the tests that need it are skipped, or fail where RMKIT_REQUIRE_POSTGRES=1 (`make test`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "s3cret@word"  # needs percent-encoding in a URL on purpose
BACK_ENDS = ("sqlite", "postgres")
DEBIAN = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """The folder of a running server's socket; its superuser is rmkit with PASSWORD."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="rmkit-pg-"))
    demoted = _demoted(folder)
    try:
        _initialize(programs, folder, demoted)
        server = _start(programs, folder, demoted)
        try:
            yield folder
        finally:
            server.send_signal(signal.SIGQUIT)  # "immediate": nothing in this folder is worth a checkpoint
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def fresh_database(postgres_server: Path) -> Iterator[Callable[..., str]]:
    """Gives the URL of a database without a ledger; the same name again is emptied, which is faster than a new one."""
    from adbc_driver_postgresql import dbapi

    admins: dict[str, Any] = {}

    def create(name: str = "ledger") -> str:
        if name not in admins:
            with dbapi.connect(url(postgres_server, "postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}").close()
            admins[name] = dbapi.connect(url(postgres_server, name), autocommit=True)
        admins[name].execute("DROP SCHEMA IF EXISTS rmkit CASCADE").close()
        return url(postgres_server, name)

    yield create
    for admin in admins.values():
        admin.close()


def url(folder: Path, database: str) -> str:
    return f"postgresql://rmkit:{PASSWORD.replace('@', '%40')}@/{database}?host={folder}"


@contextlib.contextmanager
def raw_connection(ledger_url: str) -> Iterator[Any]:
    """A connection past the ledger's interface, committing each statement, closed at the end."""
    if "://" in ledger_url:
        from adbc_driver_postgresql import dbapi

        connection = dbapi.connect(ledger_url, autocommit=True)
    else:
        connection = sqlite3.connect(ledger_url, isolation_level=None)
    with contextlib.closing(connection):
        yield connection


def _programs() -> Path:
    """The folder of initdb and postgres; the calling test is skipped, or fails, where something is missing."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else sorted(DEBIAN.glob("*/bin"))
    for folder in reversed(folders):
        if (folder / "initdb").exists() and find_spec("adbc_driver_postgresql"):
            return folder
    message = "no PostgreSQL server or driver; run: apt-get install postgresql; pip install -e '.[postgres]'"
    if os.environ.get("RMKIT_REQUIRE_POSTGRES") == "1":
        pytest.fail(f"{message} (RMKIT_REQUIRE_POSTGRES=1 demands it)")
    pytest.skip(message)


def _demoted(folder: Path) -> dict[str, Any]:
    """Arguments of subprocess that give up root, as which PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return {"cwd": folder}
    shutil.chown(folder, "postgres", "postgres")
    return {"cwd": folder, "user": "postgres", "group": "postgres", "extra_groups": []}


def _initialize(programs: Path, folder: Path, demoted: dict[str, Any]) -> None:
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    options = ["-U", "rmkit", "--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8"]
    command = [programs / "initdb", "-D", folder / "data", "--pwfile", folder / "password", *options]
    subprocess.run(command, check=True, capture_output=True, **demoted)


def _start(programs: Path, folder: Path, demoted: dict[str, Any]) -> subprocess.Popen[bytes]:
    from adbc_driver_postgresql import dbapi

    with (folder / "log").open("wb") as log:
        # Only a socket in our folder: no port that could be taken. Clients are killed in tests, never the server's
        # machine, so it need not wait for the disk.
        server = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-F"],
            stdout=log,
            stderr=log,
            **demoted,
        )
    for _ in range(300):
        try:
            dbapi.connect(url(folder, "postgres")).close()
            return server
        except dbapi.Error:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    server.kill()
    pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-500:]}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many ledger tests ran on each back end: a suite that skipped one must not look whole."""
    for back_end in BACK_ENDS:
        ran = {
            outcome: sum(
                "/test_ledger" in report.nodeid and f"[{back_end}" in report.nodeid
                for report in terminalreporter.stats.get(outcome, [])
            )
            for outcome in ("passed", "failed", "error", "skipped")
        }
        if any(ran.values()):
            counts = ", ".join(f"{n} {outcome}" for outcome, n in ran.items() if n)
            terminalreporter.write_line(f"ledger tests on {back_end}: {counts}")
