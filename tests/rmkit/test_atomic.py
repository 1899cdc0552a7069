"""Drafts take their name in one step; what a killed writer leaves is removed, or gets its name back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmkit import atomic
from rmkit.errors import StoreError

WRITER = """
import os, signal, sys
from pathlib import Path
from rmkit import atomic
target = Path(sys.argv[1])
with atomic.draft_folder(target) as draft:
    (draft / "text").write_text("half")
    print("drafting", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def write(target: Path, text: str, *, replace: bool = True) -> None:
    with atomic.draft_folder(target) as draft:
        (draft / "text").write_text(text)
        atomic.put(draft, target, replace=replace)


def writer(target: Path, what: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "drafting\n"
    return child


@pytest.fixture(params=["exchange", "two renames"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchanged", lambda one, other: False)
    return str(request.param)


def test_a_folder_is_replaced_and_nothing_else_is_left(tmp_path: Path, each_way: str) -> None:
    for text in ("one", "two"):
        write(tmp_path / "model", text)
        assert (tmp_path / "model" / "text").read_text() == text
        assert os.listdir(tmp_path) == ["model"]


def test_at_every_system_call_the_name_means_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "model", "one")
    seen = []
    for name in ("rename", "fsync", "close", "open"):
        real = getattr(os, name)

        def spied(*arguments: object, real: object = real, **options: object) -> object:
            seen.append((tmp_path / "model" / "text").read_text())
            return real(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(os, name, spied)
    write(tmp_path / "model", "two")
    monkeypatch.undo()
    assert sorted(set(seen)) == ["one", "two"]  # reading it never failed


def test_without_replace_what_is_there_stays(tmp_path: Path) -> None:
    write(tmp_path / "model", "one")
    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/model: Directory not empty"):
        write(tmp_path / "model", "two", replace=False)
    assert (tmp_path / "model" / "text").read_text() == "one"
    assert os.listdir(tmp_path) == ["model"]


def test_a_draft_of_a_killed_writer_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    writer(tmp_path / "model", "die").wait()
    with writer(tmp_path / "model", "live") as living:
        assert len(os.listdir(tmp_path)) == 1  # the second writer swept the first one's
        atomic.sweep(tmp_path)
        [draft] = tmp_path.iterdir()
        assert (draft / "text").read_text() == "half"
        living.kill()
    atomic.sweep(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_former_folder_gets_its_name_back(tmp_path: Path) -> None:
    """As a kill between the two renames leaves it where the file system cannot exchange names."""
    (tmp_path / f".model.0a1b2c3d{atomic.FORMER}").mkdir()
    (tmp_path / f".model.0a1b2c3d{atomic.FORMER}" / "text").write_text("one")
    (tmp_path / f".model.0a1b2c3d{atomic.DRAFT}").mkdir()
    (tmp_path / ".model.0a1b2c3d.mine").mkdir()  # not ours
    atomic.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".model.0a1b2c3d.mine", "model"]
    assert (tmp_path / "model" / "text").read_text() == "one"


def test_a_former_folder_goes_where_the_new_one_has_the_name(tmp_path: Path) -> None:
    write(tmp_path / "model", "two")
    (tmp_path / f".model.0a1b2c3d{atomic.FORMER}").mkdir()
    atomic.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["model"]


def test_sweeping_reaches_as_deep_as_told_and_follows_no_link(tmp_path: Path) -> None:
    left = f"x/y/.model.0a1b2c3d{atomic.DRAFT}"
    (tmp_path / "home" / left).mkdir(parents=True)
    (tmp_path / "other" / left).mkdir(parents=True)
    (tmp_path / "home" / "link").symlink_to(tmp_path / "other")
    atomic.sweep(tmp_path / "home", depth=2)
    assert (tmp_path / "home" / left).exists()
    atomic.sweep(tmp_path / "home", depth=4)
    assert not (tmp_path / "home" / left).exists()
    assert (tmp_path / "other" / left).exists()


def test_a_file_keeps_its_old_content_when_the_new_cannot_be_written(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "facts.json", "old")
    with pytest.raises(FileNotFoundError), atomic.draft_file(tmp_path / "facts.json") as draft:
        draft.write_text((tmp_path / "absent").read_text())
    assert (tmp_path / "facts.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["facts.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "large disk", "one")
    (tmp_path / "model").symlink_to("large disk")
    write(tmp_path / "model", "two")
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "large disk" / "text").read_text() == "two"


def test_the_faults_of_other_files_are_not_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic.draft_folder(tmp_path / "model"):
        (tmp_path / "input").read_text()
    with pytest.raises(StoreError, match=r"cannot write .*model: No space"), atomic.draft_folder(tmp_path / "model"):
        raise OSError(28, "No space left on device")


def test_what_utf8_cannot_hold_becomes_an_escape_of_json(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "facts.json", json.dumps({"id": "a\ud800ü"}, ensure_ascii=False))
    assert (tmp_path / "facts.json").read_bytes() == b'{"id": "a\\ud800\xc3\xbc"}'
    assert json.loads((tmp_path / "facts.json").read_text()) == {"id": "a\ud800ü"}
