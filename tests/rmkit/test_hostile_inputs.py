"""Folders, files and disks that no honest rmkit wrote or filled: one line and status 2, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from rmkit.cli import main as cli
from rmkit.config import read_object, read_toml
from rmkit.errors import ConfigError, DataError, StoreError
from rmkit.ids import file_sha256
from rmkit.ledger import open_ledger
from rmkit.models.artifact import folder as artifact
from rmkit.paths import warehouse_path
from rmkit.training import command as train
from tests.exports import kind_rows, write_export
from warehouse.store import open_warehouse

DEEP = "[" * 100_000


def one_line(capsys: pytest.CaptureFixture[str], status: int, expected: int = 2) -> str:
    said = capsys.readouterr()
    assert status == expected, said.err
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    train.train("lexical", str(write_export(folder / "data", kind_rows(120))), output=folder / "model")
    return folder / "model"


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def edited(model: Path, **changes: Any) -> None:
    """The card with other values and a fingerprint that follows from them, as somebody who knows rmkit would write."""
    card = json.loads((model / artifact.CARD).read_text()) | changes
    with contextlib.suppress(DataError, AttributeError):
        card["fingerprint"] = artifact.fingerprint(card)
    (model / artifact.CARD).write_text(json.dumps(card))


def recompressed(model: Path) -> None:
    """A zip bomb's form: weights that take more memory than disk."""
    with zipfile.ZipFile(model / artifact.WEIGHTS) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(model / artifact.WEIGHTS, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in members.items():
            new.writestr(name, data)
    edited(model, files={artifact.WEIGHTS: file_sha256(model / artifact.WEIGHTS)})


def endless(model: Path) -> None:
    (model / "golden.jsonl").unlink()
    (model / "golden.jsonl").symlink_to("/dev/zero")


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "deep card": (lambda m: (m / artifact.CARD).write_text(DEEP), "cannot be read as JSON"),
    "a list for a card": (lambda m: (m / artifact.CARD).write_text("[1]"), "expected a JSON object, got a list of 1"),
    "binary card": (lambda m: (m / artifact.CARD).write_bytes(b"\xff\xfe\x00"), "cannot be read as JSON"),
    "files as text": (lambda m: edited(m, files="weights.npz"), "files: expected dict, got 'weights.npz'"),
    "a file outside": (lambda m: edited(m, files={"../../etc/passwd": "0"}), "lists a file outside itself"),
    "no name": (lambda m: edited(m, name=None), "name: expected str, got None"),
    "config as list": (lambda m: edited(m, config=[1]), "config: expected dict, got a list of 1"),
    "a huge hash": (lambda m: edited(m, config={"hash_bits": 60}), "hash_bits"),
    "temperature as text": (lambda m: edited(m, temperature="warm"), "could not convert string to float"),
    "infinite temperature": (lambda m: edited(m, temperature=1e400), "Out of range float"),
    "a hash that is no text": (lambda m: edited(m, files={artifact.WEIGHTS: 7}), "says 7..."),
    "compressed weights": (recompressed, "is compressed, as rmkit never writes it"),
    "deep golden scores": (lambda m: (m / "golden.jsonl").write_text(DEEP), "golden.jsonl cannot be read"),
    "a golden prompt that is no text": (
        lambda m: (m / "golden.jsonl").write_text('{"prompt": 7, "response": [1], "score": 1}\n'),
        "",
    ),
    "golden scores without end": (
        endless,
        "golden.jsonl is missing",
    ),
    "deep calibration": (lambda m: (m / "calibration.json").write_text(DEEP), "calibration.json cannot be read"),
    "a list for a calibration": (lambda m: (m / "calibration.json").write_text("[1]"), "calibration.json cannot be"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_verify_tells_a_hostile_artifact_in_one_line(
    harm: str, model: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, why = HARMS[harm]
    change(model)
    assert cli.main(["verify", str(model), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["same"] is False
    assert why in result["checks"][-1]["detail"]


@pytest.mark.parametrize("harm", HARMS)
def test_scoring_refuses_what_verify_refuses(
    harm: str, model: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    HARMS[harm][0](model)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hi", "response": "hello"}\n')
    arguments = ["score", str(model), str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out")]
    assert HARMS[harm][1] in one_line(capsys, cli.main(arguments))


def test_a_warehouse_whose_first_writer_was_killed_holds_no_data_yet(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ingest killed in its first second: the file is there, its tables are not."""
    home.mkdir()
    duckdb.connect(str(warehouse_path())).close()
    assert "holds no data yet; bring some in with: rmkit ingest FILE" in one_line(capsys, cli.main(["datasets"]))


@pytest.mark.parametrize(
    ("name", "command"), [("warehouse.duckdb", "datasets"), ("ledger.sqlite", "sync"), ("ledger.sqlite", "models")]
)
def test_a_pipe_in_the_place_of_a_store_is_refused(
    name: str, command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir()
    os.mkfifo(home / name)
    assert "is not a file; move it away" in one_line(capsys, cli.main([command]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (DEEP, "cannot be read as JSON"),
        ("[]", "expected a JSON object, got a list of 0"),
        ('{"format": "1", "ledger": null, "warehouse": null}', "format: expected int, got '1'"),
        ('{"format": 1, "ledger": [], "warehouse": null}', "ledger: expected dict or null, got a list of 0"),
        ('{"format": 1, "ledger": {"bytes": 1}, "warehouse": null}', "lacks one of bytes, sha256, n_events"),
        ('{"format": 1, "ledger": {"bytes": 1, "sha256": 5, "n_events": 1}, "warehouse": null}', "lacks one of"),
        ('{"format": 1, "ledger": {"bytes": 1, "sha256": "00", "n_events": 1}, "warehouse": null}', "is damaged"),
    ],
)
def test_odd_restore_manifests(
    text: str, why: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "manifest.json").write_text(text)
    assert why in one_line(capsys, cli.main(["restore", str(tmp_path / "backup")]))


def test_a_pipe_among_an_exports_files(
    home: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_export(tmp_path / "export", kind_rows(4))
    [rows] = folder.glob("*.parquet")
    rows.unlink()
    os.mkfifo(rows)
    out = str(tmp_path / "out")
    for command in (["score", str(model), str(folder), "-o", out], ["export", "--verify", str(folder)]):
        assert f"{rows.name} is not a file" in one_line(capsys, cli.main(command))


def test_a_warehouse_with_a_broken_block(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whichever block it is, and whether it is met at the opening or by a query."""
    with open_warehouse():
        pass
    whole, n_damaged = warehouse_path().read_bytes(), 0
    for place in range(12_288, len(whole), 262_144):
        warehouse_path().write_bytes(whole[: place + 99] + bytes([whole[place + 99] ^ 1]) + whole[place + 100 :])
        with contextlib.suppress(StoreError), open_warehouse() as connection:  # a block that nothing has read
            connection.execute("PRAGMA database_size")
            continue
        assert "is damaged (Corrupt database file" in one_line(capsys, cli.main(["datasets"]))
        n_damaged += 1
    assert n_damaged >= 2


def test_a_ledger_with_broken_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_ledger():
        pass
    path = home / "ledger.sqlite"
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE event", b"CREATE T\xb5BLE event"))
    for command in ("models", "sync"):
        assert "bring a backup back" in one_line(capsys, cli.main([command]))


def test_an_export_whose_rows_are_none(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hashes that fit again do not make a file Parquet."""
    folder = write_export(tmp_path / "export", kind_rows(4))
    [rows] = folder.glob("*.parquet")
    rows.write_bytes(b"no Parquet")
    facts = {"files": {rows.name: {"sha256": file_sha256(rows)}}, "ref": "toy@v1", "digest": "0", "rows_digest": "0"}
    (folder / "manifest.json").write_text(json.dumps(facts | {"complete": True}))
    assert "cannot be read as rows" in one_line(capsys, cli.main(["export", "--verify", str(folder)]))
    (folder / "manifest.json").write_text(json.dumps(facts))
    assert "no 'complete' in it" in one_line(capsys, cli.main(["export", "--verify", str(folder)]))


@pytest.mark.parametrize("text", ["a = " + DEEP, "a = " + "9" * 5000, "a = 1\na = 2", "\ud800"])
def test_a_toml_that_cannot_be_read_is_a_config_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"odd\.toml cannot be read as TOML"):
        read_toml(tmp_path / "odd.toml")


def test_an_object_has_its_keys_or_says_which_not(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text('{"n": 1, "name": null}')
    assert read_object(path, raises=DataError, hint="x", keys={"n": int}) == {"n": 1, "name": None}
    with pytest.raises(DataError, match=r"facts\.json: no 'ref' in it; write it again"):
        read_object(path, raises=DataError, hint="write it again", keys={"ref": str})
    with pytest.raises(DataError, match=r"name: expected str, got None"):
        read_object(path, raises=DataError, hint="", keys={"name": str})


def test_a_lone_surrogate_in_an_id_is_scored_and_shown(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a\\ud800", "prompt": "hi", "response": "hello"}\n')
    arguments = ["-m", "rmkit", "score", str(model), str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out")]
    environment = os.environ | {"RMKIT_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    [line] = (tmp_path / "out").read_text().splitlines()
    assert json.loads(line)["id"] == "a\ud800"


FULL = """
import resource, signal, sys
from rmkit.cli import main as cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
status = cli.main(["--help"])
import rmkit.training.command, rmkit.scoring.command, sklearn.linear_model, pyarrow.parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
raise SystemExit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("command", "limit"), [("train", 3000), pytest.param("score", 0, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_is_said_in_one_line(command: str, limit: int, model: Path, tmp_path: Path) -> None:
    """No file may grow beyond `limit` bytes: the system's own error, wherever the library meets it."""
    data = write_export(tmp_path / "data", kind_rows(120))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "hi", "response": "hello"}\n' * 40)
    out = tmp_path / "out"
    arguments = {
        "train": ["train", "lexical", "--data", str(data), "-o", str(out)],
        "score": ["score", str(model), str(tmp_path / "rows.jsonl"), "-o", str(out)],
    }[command]
    child = [sys.executable, "-c", FULL, str(limit), *arguments]
    environment = os.environ | {"RMKIT_HOME": str(tmp_path / "home")}
    done = subprocess.run(child, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert not out.exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/1"), "the disk is full"),
        (Exception("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(28, "No space left on device", "/x/y"), "the disk is full (/x/y)"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (MemoryError(), "out of memory"),
        (RecursionError(), "nested too deeply"),
    ],
)
def test_the_machines_faults_are_one_line(
    error: Exception, said: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str, arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "call", fail)
    assert said in one_line(capsys, cli.main(["doctor"]))


def test_our_own_mistakes_keep_their_traceback(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "call", lambda name, arguments: {}[name])
    with pytest.raises(KeyError):
        cli.main(["doctor"])
