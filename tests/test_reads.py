"""Reads write nothing: every command that only looks leaves a home as it was, byte for byte, and disturbs nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import ingest
from labeling_ui.desk.answers import Answer
from labeling_ui.projects.definition import TaskDefinition
from labeling_ui.projects.people import Person, add_person
from labeling_ui.projects.project import create_project, open_project
from rmkit.cli import main as cli
from rmkit.errors import StoreError
from rmkit.ledger import Ledger, open_ledger
from rmkit.models.artifact import aliases
from rmkit.serve.auth import tokens as principals
from rmkit.training import command as train
from rmkit.types import Event
from tests.evaluation.registry.test_models_command import finished
from tests.exports import kind_rows, write_export
from tests.postgres import BACK_ENDS

ROOT = Path(__file__).parents[1]
ANNA, BEN = Person("anna", "annotator"), Person("ben", "annotator")
READS = {
    "label": "2 of 24",
    "label people": "anna",
    "models": "rude@prod",
    "models history": "rude@prod",
    "token list": "trainer",
    "datasets": "sums",
    "datasets sums": "v2",
    "diff sums@v1 sums@v2": "2 added",
    "branch sums": "main",
    "why sums-3": "Question 3",
    "ingest --rejects sums": "prompt",
    "judge bill": "judge one",
    "drift served --split-at 2026-01-03": "no drift",
    "leaderboard": "pairs",
    "verify rude@prod": "rude",
    "report sums -o {out}/report.html": "report.html",
    "export --verify {out}/export": "sums@v2",
    "doctor": "writable",
}
WRITER = """
import sys, time
from rmkit.ledger import open_ledger
from rmkit.types import Event
for turn in range(int(sys.argv[2])):
    with open_ledger(sys.argv[1]) as ledger:
        ledger.append_many([Event(kind="k", actor="a", payload={"n": n}) for n in range(5)])
        ledger.put("count", "k", {"turn": turn})
"""


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was worked in: two versions, a project with answers, a model, a token, a bill and served rewards."""
    folder = tmp_path_factory.mktemp("used")
    home, file = folder / "home", folder / "sums.jsonl"
    rows: list[dict[str, Any]] = [
        {"id": f"sums-{n}", "prompt": f"Question {n}: {n} + {n}?", "chosen": f"{2 * n}", "rejected": f"no: {n}"}
        for n in range(14)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMKIT_HOME", str(home))
        patch.delenv("RMKIT_LEDGER", raising=False)
        for part in ([*rows[:12], {"id": "bad", "prompt": "", "chosen": "a"}], rows):
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
            ingest(file, dataset="sums")
        data = write_export(folder / "data", kind_rows(60))
        model = train.train("lexical", str(data), output=home / "models" / "rude", values={"hash_bits": 8})
        assert cli.main(["export", "sums", "-o", str(folder / "export")]) == 0
        with open_ledger() as ledger:
            _fill(ledger, home / "models" / "rude", model["fingerprint"])
        finished(home, model["fingerprint"], 30)
    return home


def _fill(ledger: Ledger, model: Path, fingerprint: str) -> None:
    add_person(ledger, "anna", role="annotator")
    task = TaskDefinition(
        name="t", kind="pairwise", title="T", question="Q?", gold_share=0.0, repeat_share=0.0, overlap=2
    )
    desk = create_project(ledger, "sums", task=task, data="sums@v1").desk(ledger)
    for _ in range(2):
        (hold,) = desk.open(ANNA)
        desk.submit(ANNA, hold.id, Answer(better=0))
    aliases.promote(ledger, "rude@prod", model, fingerprint)
    principals.create(ledger, "trainer")
    call = {"prompt_tokens": 10, "completion_tokens": 2, "usd": 0.5, "generator": "m", "purpose": "judge one"}
    ledger.put("call", "one", call)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for day in (0, 4):
        scored = [{"response": f"r{n}", "chars": 20 + n, "value": n / 7} for n in range(60)]
        one = [{"prompt": f"p{n}", "source": "s", "completions": [score]} for n, score in enumerate(scored)]
        payload = {"request_id": f"{day}", "model": "served", "fingerprint": "f", "items": one}
        ledger.append(Event(kind="reward", actor="t", time=start + timedelta(days=day), payload=payload))


@pytest.fixture
def home_of_its_own(used_home: Path, home: Path, tmp_path: Path) -> Path:
    shutil.copytree(used_home, home)
    shutil.copytree(used_home.parent / "export", tmp_path / "export")
    return home


def contents(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every file and folder below with the time of its last change and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


def arguments(command: str, out: Path) -> list[str]:
    return command.format(out=out).split()


@pytest.mark.parametrize("at_work", [False, True], ids=["alone", "beside-a-writer"])
@pytest.mark.parametrize("command", READS)
def test_a_read_leaves_the_home_as_it_was(
    command: str, at_work: bool, home_of_its_own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = open_ledger() if at_work else None
    if writer is not None:
        writer.append(Event(kind="note", actor="a", payload={}))  # so that it holds a log open
    before = contents(home_of_its_own)
    assert cli.main(arguments(command, tmp_path)) == 0
    assert READS[command] in capsys.readouterr().out
    after = contents(home_of_its_own)
    for state in (before, after) if at_work else ():
        del state["ledger.sqlite-shm"]  # memory that the writer and its readers share, not data
    assert after == before
    if writer is not None:
        writer.close()


@pytest.mark.parametrize("command", ["label", "label people", "models", "models history", "token list", "judge bill"])
def test_a_read_of_an_empty_home_makes_none(
    command: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(command, tmp_path)) == 0
    assert capsys.readouterr().out.strip()
    assert not home.exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_system_sees_no_file_of_the_home_opened_for_writing(home_of_its_own: Path, tmp_path: Path) -> None:
    """Beside the test above: a file that was written and put back, or only opened, would escape it."""
    trace, home = tmp_path / "trace", str(home_of_its_own)
    calls = "trace=open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,ftruncate,utimensat"
    code = "import sys; from rmkit.cli import main as cli; [cli.main(c.split()) for c in sys.argv[1:]]"
    quick = [
        command for command in READS if command.split()[0] in ("label", "models", "token", "judge", "datasets", "why")
    ]
    ran = subprocess.run(
        ["strace", "-f", "-qq", "-s", "300", "-e", calls, "-o", str(trace), sys.executable, "-c", code, *quick],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in ran.stderr:
        pytest.skip("this machine does not let strace watch")
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in trace.read_text().splitlines() if home in line]
    assert any("ledger.sqlite" in line for line in lines)
    assert any("warehouse.duckdb" in line for line in lines)
    writes = ("O_WRONLY", "O_RDWR", "O_CREAT", "rename", "unlink", "mkdir", "truncate", "utimens", "creat(")
    assert not [line for line in lines if any(word in line for word in writes)]


# ---- the ledger, opened to be read ----


@pytest.fixture(params=BACK_ENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "odd # ?name" / "ledger.sqlite")
    create: Callable[[], str] = request.getfixturevalue("fresh_database")
    return create()


def test_a_ledger_opened_to_be_read_shows_all_and_takes_nothing(url: str) -> None:
    with open_ledger(url, read_only=True) as absent:
        assert (absent.last_seq(), list(absent.events()), absent.record("a", "b"), absent.record_kinds()) == (
            0,
            [],
            None,
            [],
        )
        assert absent.counts(0, 9) == {}
    with open_ledger(url) as ledger:
        ledger.append_many([Event(kind="k", actor="a", payload={"n": n}) for n in range(3)])
        ledger.put("record", "key", {"v": 1})
        with open_ledger(url, read_only=True) as reader:
            assert [one.event.payload["n"] for one in reader.events()] == [0, 1, 2]
            ledger.append(Event(kind="k", actor="a", payload={"n": 3}))
            assert (reader.last_seq(), reader.counts(0, 9)) == (4, {"k": 4})
            assert [(one.key, one.value) for one in reader.records("record")] == [("key", {"v": 1})]
            with pytest.raises(StoreError, match="read only"):
                reader.append(Event(kind="k", actor="a", payload={}))
            with pytest.raises(StoreError, match="read only"):
                reader.put("record", "key", {"v": 2})
    with open_ledger(url, read_only=True) as reader:
        assert (reader.last_seq(), reader.record_kinds()) == (4, ["record"])


def test_what_a_killed_writer_left_in_the_log_is_read_and_left_there(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = WRITER + "    ledger = open_ledger(sys.argv[1]); ledger.append(Event(kind='k', actor='a', payload={}))\n"
    code += "    import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    killed = subprocess.run([sys.executable, "-c", code, str(path), "1"], env=_environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    before = contents(tmp_path)
    assert {"ledger.sqlite-wal", "ledger.sqlite-shm"} <= set(before)
    with open_ledger(path, read_only=True) as reader:
        assert (reader.last_seq(), len(list(reader.events()))) == (6, 6)
    assert contents(tmp_path) == before


def test_reads_are_whole_while_writers_come_and_go(tmp_path: Path) -> None:
    """Each writer opens and closes the ledger, so that its log appears, is taken into the file and goes away."""
    path = tmp_path / "ledger.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), "60"], env=_environment()) for _ in range(2)]
    seen = [0]
    with open_ledger(path, read_only=True) as reader:
        while any(writer.poll() is None for writer in writers):
            seen.append(reader.last_seq())
            first = max(0, seen[-1] - 20)
            listed = [one.seq for one in reader.events(first, limit=seen[-1] - first)]
            assert listed == list(range(first + 1, seen[-1] + 1))
        assert reader.last_seq() == 2 * 60 * 5
    assert seen == sorted(seen)
    assert all(number % 5 == 0 for number in seen)  # no half commit
    assert {writer.returncode for writer in writers} == {0}
    assert len(set(seen)) > 10


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


# ---- the listing of projects, while people work ----


class Overtaken:
    """A ledger in which another process goes on between a look at events and what is done about them."""

    def __init__(self, ledger: Ledger, meanwhile: Callable[[], object]) -> None:
        self._ledger = ledger
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def get(self, ids: Any) -> Any:
        found = self._ledger.get(ids)
        self._meanwhile()
        return found


@pytest.fixture
def ledger(home_of_its_own: Path) -> Iterator[Ledger]:
    with open_ledger() as opened:
        yield opened


def test_a_desk_opens_although_another_closes_the_hold_meanwhile(ledger: Ledger) -> None:
    project = open_project(ledger, "sums")
    other = project.desk(ledger)
    (hold,) = other.open(BEN)
    ledger.append(other._event(hold, Answer(better=0), active_ms=None, wall_ms=None))
    assert project.desk(ledger, read_only=True).progress()["answered"] == 3  # two of before and this one
    record = ledger.record("assignment", f"sums/{hold.key}")
    assert record is not None
    assert (record.version, record.value["event"]) == (1, None)  # looking has closed nothing
    overtaken: Any = Overtaken(ledger, lambda: other._mend(store=True))
    assert project.desk(overtaken).progress()["answered"] == 3


def test_the_listing_never_fails_while_people_work(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    desk, ended, failures = open_project(ledger, "sums").desk(ledger), threading.Event(), []

    def work(person: Person) -> None:
        try:
            while not ended.is_set():
                (hold,) = desk.open(person) or (desk.undo(person, desk.history(person)[-1].id),)
                desk.submit(person, hold.id, Answer(better=0))
        except Exception as error:
            failures.append(error)

    people = [threading.Thread(target=work, args=(person,)) for person in (ANNA, BEN)]
    for person in people:
        person.start()
    try:
        assert [cli.main(["label"]) for _ in range(40)] == [0] * 40
    finally:
        ended.set()
        for person in people:
            person.join()
    assert not failures
    assert capsys.readouterr().err == ""
