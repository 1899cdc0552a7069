"""What each back end does when its file, disk, server or neighbors fail."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import MissingExtraError, StoreError, UsageError
from rmkit.ledger import Ledger, open_ledger
from rmkit.ledger.transfer import copy_ledger, snapshot
from rmkit.types import Event
from tests import postgres
from tests.postgres import BACK_ENDS, PASSWORD, raw_connection

ROOT = Path(__file__).parents[3]


def event(number: int = 0) -> Event:
    return Event(kind="judgment", actor="ada", payload={"number": number, "text": "x" * 200})


@pytest.fixture(params=BACK_ENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    create: Callable[[], str] = request.getfixturevalue("fresh_database")
    return create()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def child(code: str, *args: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, text=True, stdout=subprocess.PIPE, **options)


# ---- kill -9 while appending ----

APPENDER = """
import os, sys, threading
from rmkit.ledger import open_ledger
from rmkit.types import Event
ledger = open_ledger(sys.argv[1])
def append():
    while True:
        event = Event(kind="judgment", actor="ada", payload={"text": "x" * 500})
        seq = ledger.append(event)
        os.write(1, f"{seq} {event.id}\\n".encode())
for _ in range(4):
    threading.Thread(target=append).start()
"""


def kill_appender(url: str, rng: random.Random) -> dict[int, uuid.UUID]:
    """Acknowledged events of a process that was killed at a random moment after its first acknowledgement."""
    process = child(APPENDER, url)
    assert process.stdout
    first = process.stdout.readline()
    time.sleep(rng.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
    lines = (first + process.stdout.read()).splitlines()
    assert process.wait() == -signal.SIGKILL
    return {int(line.split()[0]): uuid.UUID(line.split()[1]) for line in lines}


def check_kills(url: str, n_kills: int) -> None:
    rng = random.Random(n_kills)
    acknowledged: dict[int, uuid.UUID] = {}
    for kill in range(1, n_kills + 1):
        acknowledged |= kill_appender(url, rng)
        with open_ledger(url) as ledger:
            stored = {record.seq: record.event.id for record in ledger.events()}
            assert acknowledged.items() <= stored.items()
            assert len(stored) - len(acknowledged) <= 4 * kill  # each thread had at most one append in flight
            assert list(stored) == list(range(1, len(stored) + 1))
    if "://" not in url:
        with raw_connection(url) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_no_acknowledged_event_is_lost_in_a_few_kills(url: str) -> None:
    check_kills(url, 1 if "://" in url else 3)  # starting a process with the driver takes a second


@pytest.mark.slow
def test_no_acknowledged_event_is_lost_in_fifteen_kills(url: str) -> None:
    check_kills(url, 15)


# ---- several processes at once ----

WRITER = """
import sys, time
from rmkit.ledger import open_ledger
from rmkit.types import Event
slowest = 0.0
with open_ledger(sys.argv[1]) as ledger:
    for i in range(int(sys.argv[2])):
        began = time.monotonic()
        ledger.append(Event(kind="judgment", actor=sys.argv[3], payload={"i": i}))
        slowest = max(slowest, time.monotonic() - began)
print(slowest)
"""


@pytest.mark.slow
def test_many_processes_append_and_none_starves(url: str) -> None:
    processes = [child(WRITER, url, "40", f"writer{i}") for i in range(3)]
    slowest = [float(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert max(slowest) < 30  # the stated bound: wait_s, after which BusyError
    with open_ledger(url) as ledger:
        per_actor: dict[str, list[int]] = {}
        for record in ledger.events():
            per_actor.setdefault(record.event.actor, []).append(record.event.payload["i"])
    assert per_actor == {f"writer{i}": list(range(40)) for i in range(3)}


# ---- SQLite: files and disks ----


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot open the ledger .*set RMKIT_HOME"):
        open_ledger(tmp_path / "file" / "ledger.sqlite")


def test_a_directory_in_the_ledgers_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=f"cannot open the ledger: {path} is not a file"):
        open_ledger(path)


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"these are my notes, not a database\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="damaged or no ledger: bring a backup back with rmkit restore"):
        open_ledger(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with raw_connection(str(path)) as connection:
        connection.execute("CREATE TABLE bookmark (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not an rmkit ledger"):
        open_ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_reported_and_nothing_is_acknowledged(path: Path) -> None:
    with open_ledger(path) as ledger:
        ledger.append_many([event(i) for i in range(200)])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 4)
    with open_ledger(path) as ledger, pytest.raises(StoreError, match="rmkit restore"):
        list(ledger.events())


UNPRIVILEGED = """
import os, sys
from rmkit.errors import StoreError
from rmkit.ledger import open_ledger
from rmkit.types import Event
if os.geteuid() == 0:  # root may write anywhere
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    open_ledger(sys.argv[1]).append(Event(kind="judgment", actor="ada", payload={}))
except StoreError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("present", [True, False], ids=["present", "absent"])
def test_a_read_only_folder_is_a_store_error(present: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        if present:
            with open_ledger(path) as ledger:
                ledger.append(event())
        Path(folder).chmod(0o555)
        answer, _ = child(UNPRIVILEGED, str(path)).communicate()
        Path(folder).chmod(0o755)
        assert answer.startswith("refused: cannot ")
        assert answer.endswith("check that the folder exists and is writable, or set RMKIT_HOME\n")
        assert path.exists() == present
        if present:
            with open_ledger(path) as ledger:
                assert ledger.last_seq() == 1


FILLER = """
import resource, signal, sys
from rmkit.errors import StoreError
from rmkit.ledger import open_ledger
from rmkit.types import Event
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open_ledger(sys.argv[1]) as ledger:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    for i in range(1000):
        try:
            print(ledger.append(Event(kind="judgment", actor="ada", payload={"i": i, "text": "x" * 3000})))
        except StoreError as error:
            print("refused:", error)
            break
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(ledger.append(Event(kind="judgment", actor="ada", payload={"i": -1})))
"""


def test_a_full_disk_refuses_the_append_keeps_the_rest_and_goes_on_when_there_is_room(path: Path) -> None:
    """A limit on file size stands in for the disk: writing past it fails as on a full one."""
    answer, _ = child(FILLER, str(path)).communicate()
    *acknowledged, refusal, after = answer.splitlines()
    assert refusal.startswith(f"refused: cannot write the ledger {path}")
    assert refusal.endswith("nothing was stored: free disk space, then repeat")
    assert len(acknowledged) > 10
    assert after == str(len(acknowledged) + 1)
    with open_ledger(path) as ledger:
        assert [r.event.payload["i"] for r in ledger.events()] == [*range(len(acknowledged)), -1]


def test_every_commit_is_synced_to_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(path) as ledger:
        ledger.append(event())
        writer = ledger._writer  # type: ignore[attr-defined]
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# ---- PostgreSQL: server, line and secrets ----


@pytest.fixture
def postgres_url(fresh_database: Callable[[], str]) -> str:
    return fresh_database()


def end_connections(url: str) -> None:
    """Have the server end the ledger's connections, as a restart or a firewall would."""
    with raw_connection(url) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'rmkit'"
        ).fetchall()
    assert ended == [(True,), (True,)]


def test_a_lost_connection_is_replaced(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        assert ledger.append(event(0)) == 1
        assert ledger.last_seq() == 1
        end_connections(postgres_url)
        assert ledger.append(event(1)) == 2
        assert ledger.last_seq() == 2


def test_a_read_only_server_refuses_and_stores_nothing(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger, raw_connection(postgres_url) as admin:
        ledger.append(event(0))
        admin.execute("ALTER DATABASE ledger SET default_transaction_read_only = on").close()
        end_connections(postgres_url)
        try:
            with pytest.raises(StoreError, match=r"failed: .*read-only transaction.*; check the server"):
                ledger.append(event(1))
            assert ledger.last_seq() == 1
        finally:
            admin.execute("ALTER DATABASE ledger RESET default_transaction_read_only").close()


def test_a_seq_is_never_visible_before_a_lower_one(postgres_url: str) -> None:
    """An append that holds its seqs but has not committed keeps later ones from committing first."""
    with open_ledger(postgres_url, wait_s=20) as ledger, raw_connection(postgres_url) as slow:
        ledger.append(event(0))
        slow.execute("BEGIN").close()
        slow.execute("SELECT last_seq FROM rmkit.ledger FOR UPDATE").fetchall()
        slow.execute(
            "INSERT INTO rmkit.event VALUES (2, gen_random_uuid(), 'judgment', 'slow', now(), '{\"number\":1}', NULL)"
        ).close()
        slow.execute("UPDATE rmkit.ledger SET last_seq = 2").close()
        later = threading.Thread(target=ledger.append, args=(event(2),))
        later.start()
        time.sleep(0.2)
        assert [record.seq for record in ledger.events()] == [1]  # neither 2 nor, above all, 3
        slow.execute("COMMIT").close()
        later.join()
        assert [record.event.payload["number"] for record in ledger.events()] == [0, 1, 2]


def test_commits_wait_for_the_disk_even_where_the_database_says_otherwise(postgres_url: str) -> None:
    with raw_connection(postgres_url) as admin:
        admin.execute("ALTER DATABASE ledger SET synchronous_commit = off").close()
        try:
            with open_ledger(postgres_url) as ledger:
                asked = "SELECT current_setting('synchronous_commit')"
                setting = ledger._writer.run(lambda cursor: cursor.execute(asked).fetchone())  # type: ignore[attr-defined]
                assert setting == ("on",)
        finally:
            admin.execute("ALTER DATABASE ledger RESET synchronous_commit").close()


@pytest.mark.parametrize(
    "broken",
    [
        lambda url: url.replace("ledger?", "nosuchdatabase?"),
        lambda url: url.replace("rmkit:", "nosuchuser:"),
        lambda url: url.replace("%40", "%41"),
        lambda url: url.replace("host=", "host=/nowhere"),
        lambda url: url.replace("rmkit:", "rmkit:x").replace("?", f"?password={PASSWORD.replace('@', '%40')}x&"),
    ],
    ids=["database", "user", "password", "host", "query"],
)
def test_a_failed_connection_never_shows_the_password(postgres_url: str, broken: Callable[[str], str]) -> None:
    with pytest.raises(StoreError, match="RMKIT_LEDGER") as caught:
        open_ledger(broken(postgres_url))
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_whatever_the_driver_quotes_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from adbc_driver_manager import AdbcStatusCode, OperationalError

    def connect(url: str) -> None:
        quoted = f"IO: cannot reach {url} as {PASSWORD} or s3cret query"
        raise OperationalError(quoted, status_code=AdbcStatusCode.IO)

    monkeypatch.setattr("adbc_driver_postgresql.dbapi.connect", connect)
    url = "postgresql://ada:s3cret%40word@host/db?sslpassword=s3cret%20query&connect_timeout=1"
    with pytest.raises(StoreError) as caught:
        open_ledger(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "postgresql://ada:***@host/db?sslpassword=***&connect_timeout=1 as *** or ***" in shown
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cret@word@host/db",
        "postgresql://user:s3cret/word@host/db",
        "postgresql://user:s3cret:word@host/db",
        "postgresql://user:s3cret#word@host/db",
        "postgresql://user:s3cret?word@host/db",
        "postgresql://user:pw@host:s3cret/db",
    ],
    ids=["at", "slash", "colon", "hash", "question", "port"],
)
def test_a_url_that_libpq_might_split_otherwise_is_refused_unquoted(url: str) -> None:
    with pytest.raises(UsageError, match="percent-encoded") as caught:
        open_ledger(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_neither_name_nor_database_holds_the_password(postgres_url: str) -> None:
    with open_ledger(postgres_url) as ledger:
        ledger.append(event())
        assert ledger.where == "postgresql://rmkit@/ledger"
        assert "s3cret" not in repr(ledger)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '.*\[postgres\]'"):
        open_ledger("postgresql://host/db")


# ---- whole ledgers ----


@pytest.fixture
def filled(url: str) -> Iterator[Ledger]:
    with open_ledger(url) as ledger:
        ledger.append_many([event(i) for i in range(12)])
        yield ledger


def test_a_snapshot_is_one_plain_file_with_the_same_seqs(filled: Ledger, tmp_path: Path) -> None:
    snapshot(filled, tmp_path / "copy.sqlite")
    assert [p.name for p in tmp_path.glob("copy*")] == ["copy.sqlite"]
    with open_ledger(tmp_path / "copy.sqlite") as copy:
        assert list(copy.events()) == list(filled.events())
        assert copy.append(event(12)) == 13


def test_a_ledger_moves_to_the_other_back_end_and_a_repeat_goes_on(
    filled: Ledger, tmp_path: Path, fresh_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmkit.ledger.transfer.CHUNK", 5)
    there = fresh_database("elsewhere") if Path(filled.where).exists() else str(tmp_path / "elsewhere.sqlite")
    with open_ledger(there) as target:
        target.append_many([record.event for record in filled.events(limit=3)])  # an interrupted first try
        assert copy_ledger(filled, target) == 12
        assert copy_ledger(filled, target) == 12
        assert list(target.events()) == list(filled.events())


def test_another_ledgers_events_are_not_mixed_in(filled: Ledger, tmp_path: Path) -> None:
    with open_ledger(tmp_path / "other.sqlite") as other:
        other.append(event(99))
        with pytest.raises(StoreError, match="use an empty ledger"):
            copy_ledger(filled, other)
        assert other.last_seq() == 1


def test_a_snapshot_that_cannot_be_written_is_a_store_error(path: Path, tmp_path: Path) -> None:
    with open_ledger(path) as ledger, pytest.raises(StoreError, match="cannot copy the ledger"):
        snapshot(ledger, tmp_path / "nowhere" / "copy.sqlite")


def test_sqlite_is_threadsafe_here() -> None:
    assert sqlite3.threadsafety == 3  # one reading connection is shared by threads


def test_a_missing_server_skips_unless_it_is_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.postgres.shutil.which", lambda name: None)
    monkeypatch.setattr("tests.postgres.DEBIAN", tmp_path)
    monkeypatch.delenv("RMKIT_REQUIRE_POSTGRES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"):
        postgres._programs()
    monkeypatch.setenv("RMKIT_REQUIRE_POSTGRES", "1")
    with pytest.raises(pytest.fail.Exception, match="demands it"):
        postgres._programs()
