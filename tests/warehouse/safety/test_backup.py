"""Backup while everything is in use; restore that verifies first and never loses what was there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rmkit.cli.main import call
from rmkit.errors import BusyError, DataError, StoreError
from rmkit.ledger import open_ledger
from rmkit.types import Event
from warehouse.events.sync import sync
from warehouse.safety.backup import backup, described
from warehouse.safety.restore import restore, verified
from warehouse.store import open_warehouse

ROOT = Path(__file__).parents[3]
UNIT = uuid.UUID(int=0xABC)


def vote(number: int = 0) -> Event:
    return Event(kind="judgment", actor="ada", payload={"unit": UNIT.hex, "ranks": [0, 1], "extra": {"n": number}})


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """home/ with 5 votes merged and 2 not yet, and backup/ of it; to be copied, not used."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RMKIT_LEDGER", raising=False)
        move_home(patch, folder / "home")
        with open_ledger() as ledger, open_warehouse() as connection:
            add_unit(connection)
            ledger.append_many([vote(i) for i in range(5)])
            sync(connection, ledger)
            ledger.append_many([vote(i) for i in range(5, 7)])
        backup(folder / "backup")
    return folder


@pytest.fixture
def used_home(home: Path, template: Path) -> Path:
    return Path(shutil.copytree(template / "home", home))


@pytest.fixture
def made(template: Path, tmp_path: Path) -> Path:
    """A backup of used_home."""
    return Path(shutil.copytree(template / "backup", tmp_path / "backup"))


def add_unit(connection: duckdb.DuckDBPyConnection) -> None:
    pair = "1 AS unit_id, ?::UUID AS h, 'pair' AS kind, 1 AS prompt_id, [11, 12] AS resp_ids"
    connection.execute(f"INSERT INTO unit BY NAME SELECT {pair}", [UNIT]).fetchall()


def move_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(folder))
    return folder


def ledger_numbers() -> list[int]:
    with open_ledger() as ledger:
        return [record.event.payload["extra"]["n"] for record in ledger.events()]


def n_judgments() -> int:
    with open_warehouse(read_only=True) as connection:
        return int(connection.execute("SELECT count(*) FROM judgment").fetchall()[0][0])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_backup_comes_back_elsewhere_and_a_sync_brings_it_level(
    used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = backup(tmp_path / "backup")
    assert sorted(os.listdir(tmp_path / "backup")) == ["ledger.sqlite", "manifest.json", "warehouse.duckdb"]
    assert (manifest["ledger"]["n_events"], manifest["ledger"]["last_seq"]) == (7, 7)
    assert (manifest["warehouse"]["tables"]["judgment"], manifest["warehouse"]["tables"]["unit"]) == (5, 1)
    there = move_home(monkeypatch, tmp_path / "there")
    result = restore(tmp_path / "backup")
    assert result["restored"] == [there / "ledger.sqlite", there / "warehouse.duckdb"]
    assert result["set_aside"] == []
    assert (ledger_numbers(), n_judgments()) == (list(range(7)), 5)
    with open_ledger() as ledger, open_warehouse() as connection:
        report = sync(connection, ledger)
        assert (report.n_events, report.n_merged, report.behind) == (2, 2, 0)
    assert n_judgments() == 7
    assert not [path for path in there.iterdir() if "restoring" in path.name]


def test_a_backup_can_be_restored_twice(
    used_home: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restoring (and using what was restored) leaves the backup as it was."""
    before = contents(made)
    for name in ("one", "two"):
        move_home(monkeypatch, tmp_path / name)
        restore(made)
        assert call("sync", []) == 0
        assert n_judgments() == 7
    assert contents(made) == before


def test_rows_still_in_the_write_ahead_log_are_in_the_backup(
    used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os; from warehouse.store import open_warehouse\n"
        "with open_warehouse() as connection:\n"
        "    connection.execute(\"INSERT INTO rater VALUES (77, 'late', 'human')\").fetchall()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert (used_home / "warehouse.duckdb.wal").stat().st_size > 0
    manifest = backup(tmp_path / "backup")
    assert not (tmp_path / "backup" / "warehouse.duckdb.wal").exists()
    assert manifest["warehouse"]["tables"]["rater"] == 2
    move_home(monkeypatch, tmp_path / "there")
    restore(tmp_path / "backup")
    with open_warehouse(read_only=True) as connection:
        assert connection.execute("SELECT name FROM rater WHERE rater_id = 77").fetchall() == [("late",)]


def test_without_a_warehouse_the_ledger_alone_is_backed_up(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger() as ledger:
        ledger.append(vote(3))
    manifest = backup(tmp_path / "backup")
    assert manifest["warehouse"] is None
    move_home(monkeypatch, tmp_path / "there")
    assert restore(tmp_path / "backup")["restored"] == [tmp_path / "there" / "ledger.sqlite"]
    assert ledger_numbers() == [3]


def test_without_a_ledger_the_warehouse_alone_is_backed_up(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_warehouse() as connection:
        add_unit(connection)
    assert backup(tmp_path / "backup")["ledger"] is None
    assert not (home / "ledger.sqlite").exists()
    move_home(monkeypatch, tmp_path / "there")
    assert restore(tmp_path / "backup")["restored"] == [tmp_path / "there" / "warehouse.duckdb"]


def test_an_empty_home_has_nothing_to_back_up(home: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing to back up"):
        backup(tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_never_overwrites(used_home: Path, tmp_path: Path) -> None:
    backup(tmp_path / "backup")
    before = contents(tmp_path / "backup")
    with pytest.raises(StoreError, match="exists already; name a new folder"):
        backup(tmp_path / "backup")
    assert contents(tmp_path / "backup") == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        backup(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot write"):
        backup(tmp_path / "file" / "below")


def test_a_failing_backup_leaves_no_trace(used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("warehouse.safety.backup.shutil.copyfileobj", full)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match="No space left on device; free space"):
        backup(tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert ledger_numbers() == list(range(7))


def test_a_backup_waits_for_the_warehouses_holder_and_then_says_busy(
    used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding("warehouse"):
        monkeypatch.setattr(
            "warehouse.safety.backup.open_warehouse", lambda path, **k: open_warehouse(path, wait_s=0.2, **k)
        )
        with pytest.raises(BusyError, match="held by another process"):
            backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


@contextlib.contextmanager
def holding(what: str) -> Iterator[None]:
    """Another process that has this home's ledger or warehouse open."""
    code = (
        "import sys\nfrom rmkit.ledger import open_ledger\nfrom warehouse.store import open_warehouse\n"
        f"with open_{what}():\n    print('open', flush=True)\n    sys.stdin.read()\n"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        yield
        process.communicate("")


# ---- restore refuses ----


def test_a_home_in_use_is_not_overwritten(used_home: Path, made: Path) -> None:
    before = contents(used_home)
    with pytest.raises(StoreError, match=r"ledger.sqlite and .*warehouse.duckdb exist already; .*--force"):
        restore(made)
    assert contents(used_home) == before


def test_force_keeps_the_former_files(used_home: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger() as ledger:
        ledger.append(vote(99))  # work done after the backup
    set_aside = restore(made, force=True)["set_aside"]
    assert ledger_numbers() == list(range(7))
    [former] = [path for path in set_aside if path.name.startswith("ledger.sqlite.replaced-")]
    monkeypatch.setenv("RMKIT_LEDGER", str(former))
    assert ledger_numbers() == [*range(7), 99]
    monkeypatch.delenv("RMKIT_LEDGER")
    restore(made, force=True)
    assert len([path for path in used_home.iterdir() if ".replaced-" in path.name]) == 4


def test_force_takes_the_place_of_damaged_files_and_keeps_them(used_home: Path, made: Path) -> None:
    (used_home / "ledger.sqlite").write_bytes(b"scrambled" * 1000)
    (used_home / "warehouse.duckdb").write_bytes(b"scrambled" * 1000)
    set_aside = restore(made, force=True)["set_aside"]
    assert {path.read_bytes() for path in set_aside} == {b"scrambled" * 1000}
    assert (ledger_numbers(), n_judgments()) == (list(range(7)), 5)


@pytest.mark.parametrize("what", ["warehouse", pytest.param("ledger", marks=pytest.mark.slow)])
def test_force_does_not_pull_files_from_under_another_process(
    used_home: Path, made: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.safety.restore.RELEASE_WAIT_S", 0.2)
    with holding(what), pytest.raises(BusyError):
        restore(made, force=True)
    assert not [path for path in used_home.iterdir() if ".replaced-" in path.name]
    assert (ledger_numbers(), n_judgments()) == (list(range(7)), 5)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("ledger.sqlite", torn, r"ledger.sqlite is damaged: \d+ bytes, .* expected \d+"),
        ("warehouse.duckdb", flipped, "warehouse.duckdb is damaged"),
        ("warehouse.duckdb", Path.unlink, "warehouse.duckdb is damaged: 0 bytes, sha256 no file"),
        ("manifest.json", Path.unlink, "is no complete backup"),
        ("manifest.json", torn, "is no complete backup"),
        ("manifest.json", lambda path: path.write_text("[]"), "is no complete backup"),
    ],
    ids=["torn", "flipped", "missing", "no-manifest", "torn-manifest", "other-manifest"],
)
@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
def test_a_damaged_backup_is_refused_before_anything_is_touched(
    used_home: Path, made: Path, name: str, harm: Callable[[Path], Any], message: str, force: bool
) -> None:
    harm(made / name)
    before = contents(used_home)
    with pytest.raises(DataError, match=message):
        restore(made, force=force)
    assert contents(used_home) == before


def test_a_folder_that_is_not_there_is_no_backup(home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no complete backup"):
        restore(tmp_path / "nowhere")
    assert not home.exists()


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_backup_from_a_newer_rmkit_is_refused(home: Path, template: Path, tmp_path: Path) -> None:
    for name in ("format", "ledger"):
        shutil.copytree(template / "backup", tmp_path / name)
    rewrite(tmp_path / "format", lambda manifest: manifest.update(format=9))
    newer = tmp_path / "ledger" / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    rewrite(tmp_path / "ledger", lambda manifest: manifest["ledger"].update(described(newer)))
    for name in ("format", "ledger"):
        with pytest.raises(StoreError, match="newer rmkit"):
            restore(tmp_path / name)
        assert not (home / "ledger.sqlite").exists()
        assert not (home / "warehouse.duckdb").exists()


# ---- a ledger on a server ----


def test_a_postgres_ledger_is_backed_up_and_filled_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_database: Callable[[str], str]
) -> None:
    monkeypatch.setenv("RMKIT_LEDGER", fresh_database("ledger"))
    with open_ledger() as ledger, open_warehouse() as connection:
        add_unit(connection)
        ledger.append_many([vote(i) for i in range(5)])
        sync(connection, ledger)
    assert backup(tmp_path / "backup")["ledger"]["n_events"] == 5
    assert "s3cret" not in (tmp_path / "backup" / "manifest.json").read_text()

    move_home(monkeypatch, tmp_path / "there")
    monkeypatch.setenv("RMKIT_LEDGER", fresh_database("elsewhere"))
    assert restore(tmp_path / "backup")["ledger_filled"]
    assert (ledger_numbers(), n_judgments()) == (list(range(5)), 5)
    with open_ledger() as ledger, open_warehouse() as connection:
        assert ledger.append(vote(5)) == 6
        assert sync(connection, ledger).n_events == 1  # the cursor still fits

    with pytest.raises(StoreError, match="use an empty ledger"):
        restore(tmp_path / "backup", force=True)
    assert ledger_numbers() == list(range(6))
    assert n_judgments() == 6

    monkeypatch.delenv("RMKIT_LEDGER")  # and from the server to a file
    move_home(monkeypatch, tmp_path / "third")
    restore(tmp_path / "backup")
    assert ledger_numbers() == list(range(5))


# ---- while in use ----

APPENDER = f"""
import os, time
from rmkit.ledger import open_ledger
from rmkit.types import Event
with open_ledger() as ledger:
    number = 0
    while True:
        payload = {{"unit": "{UNIT.hex}", "ranks": [0, 1], "extra": {{"n": number}}}}
        os.write(1, f"{{ledger.append(Event(kind='judgment', actor='ada', payload=payload))}}\\n".encode())
        number += 1
        time.sleep(0.002)
"""

SYNCER = """
import time
from rmkit.ledger import open_ledger
from warehouse.store import open_warehouse
from warehouse.events.sync import sync
with open_ledger() as ledger:
    while True:
        with open_warehouse() as connection:
            print(sync(connection, ledger).cursor, flush=True)
        time.sleep(0.05)
"""


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_backup_taken_in_full_use_is_consistent(
    used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(APPENDER), running(SYNCER):
        with open_ledger() as ledger:
            acknowledged = [record.event.id for record in ledger.events()]
        manifest = backup(tmp_path / "backup")
    move_home(monkeypatch, tmp_path / "there")
    restore(tmp_path / "backup")
    with open_ledger() as ledger, open_warehouse() as connection:
        events = [record.event.id for record in ledger.events()]
        assert len(events) == manifest["ledger"]["n_events"] >= len(acknowledged)
        assert events[: len(acknowledged)] == acknowledged
        report = sync(connection, ledger)
        # the warehouse had nothing that the ledger lacks: it only lagged behind
        assert report.n_known == 0
        assert report.n_merged == len(events) - manifest["warehouse"]["tables"]["judgment"]
        merged = connection.execute("SELECT event_id FROM judgment").fetchall()
        assert sorted(event_id for (event_id,) in merged) == sorted(events)


BACKER = """
import sys
from pathlib import Path
from warehouse.safety.backup import backup, described
print("ready", flush=True)
backup(Path(sys.argv[1]))
"""


def check_kills(home: Path, folder: Path, n_kills: int) -> None:
    rng = random.Random(n_kills)
    n_complete = 0
    for kill in range(n_kills):
        target = folder / f"backup{kill}"
        process = subprocess.Popen(
            [sys.executable, "-c", BACKER, str(target)], cwd=ROOT, text=True, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if target.exists():  # a folder of the asked name is complete
            assert verified(target)["ledger"]["n_events"] == 7
            n_complete += 1
    assert n_complete < n_kills  # some were really interrupted
    assert (ledger_numbers(), n_judgments()) == (list(range(7)), 5)
    backup(folder / "last")
    assert verified(folder / "last")


def test_three_kills_leave_no_half_backup(used_home: Path, tmp_path: Path) -> None:
    check_kills(used_home, tmp_path, 3)


@pytest.mark.slow
def test_twelve_kills_leave_no_half_backup(used_home: Path, tmp_path: Path) -> None:
    check_kills(used_home, tmp_path, 12)


def test_a_killed_restore_is_simply_repeated(
    used_home: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = move_home(monkeypatch, tmp_path / "there")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("warehouse.safety.restore.open_warehouse", killed)
        with pytest.raises(KeyboardInterrupt):
            restore(made)
    assert not (there / "ledger.sqlite").exists()
    restore(made)
    assert (ledger_numbers(), n_judgments()) == (list(range(7)), 5)


def test_the_commands(
    used_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "backup"
    assert call("backup", [str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 7 events, ")
    assert call("backup", [str(tmp_path / "second"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledger"]["n_events"] == 7
    assert call("restore", [str(target), "--force"]) == 0
    shown = capsys.readouterr().out
    assert f"restored {used_home / 'ledger.sqlite'}" in shown
    assert "kept the former" in shown
    move_home(monkeypatch, tmp_path / "there")
    assert call("restore", [str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["restored"][0] == str(tmp_path / "there" / "ledger.sqlite")


def planted(made: Path, name: str, statements: str) -> None:
    """Change a database of the backup, and the manifest with it."""
    path = made / name
    connect: Any = sqlite3.connect if name.endswith(".sqlite") else duckdb.connect
    with contextlib.closing(connect(str(path))) as connection:
        for statement in statements.split(";;"):
            connection.execute(statement)
        connection.commit()
    manifest = json.loads((made / "manifest.json").read_text())
    manifest[name.split(".")[0]] |= described(path)
    (made / "manifest.json").write_text(json.dumps(manifest))


ADMIN = '{"name":"evil","sha256":"00","scopes":["admin"]}'


@pytest.mark.parametrize(
    ("name", "statements", "told"),
    [
        (
            "ledger.sqlite",
            "CREATE TRIGGER later AFTER INSERT ON event BEGIN INSERT OR REPLACE INTO record "
            f"VALUES ('principal', 'token/evil', 1, '{ADMIN}', 'x'); END",
            "trigger later",
        ),
        ("ledger.sqlite", "DROP TRIGGER no_update", "trigger no_update"),
        (
            "ledger.sqlite",
            "DROP TRIGGER no_delete;;CREATE TRIGGER no_delete BEFORE DELETE ON event BEGIN SELECT 1; END",
            "trigger no_delete",
        ),
        ("ledger.sqlite", "CREATE VIEW notes AS SELECT * FROM record", "view notes"),
        (
            "ledger.sqlite",
            "ALTER TABLE record RENAME TO hidden;;CREATE VIEW record AS SELECT * FROM hidden",
            "table hidden, table record, view record",
        ),
        ("warehouse.duckdb", "CREATE MACRO lower(x) AS 'planted'", "macro lower"),
        ("warehouse.duckdb", "DROP TABLE tag;;CREATE VIEW tag AS FROM read_text('/etc/passwd')", "table tag, view tag"),
    ],
)
def test_what_rmkit_did_not_make_is_not_restored(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, statements: str, told: str
) -> None:
    """A trigger wrote a record that made its owner an admin, with the first vote after the restore."""
    home = move_home(monkeypatch, tmp_path / "there")
    planted(made, name, statements)
    with pytest.raises(StoreError, match=re.escape(told)):
        restore(made)
    assert not (home / "ledger.sqlite").exists()
    assert not (home / "warehouse.duckdb").exists()


def test_a_restore_tells_who_gets_in(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    move_home(monkeypatch, tmp_path / "there")
    planted(made, "ledger.sqlite", f"INSERT INTO record VALUES ('principal', 'token/evil', 1, '{ADMIN}', 'x')")
    assert call("restore", [str(made)]) == 0
    assert "lets in: token/evil;" in capsys.readouterr().out
