"""The front door: one line for an error, status 2, and no traceback unless asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmkit.cli import main as cli
from rmkit.errors import DataError, UsageError


def test_an_unknown_command_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ingets"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rmkit: unknown command 'ingets'; did you mean 'ingest'? Known: quickstart, ")
    assert said.err.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(UsageError):
        cli.main(["--debug", "ingets"])


@pytest.mark.parametrize(("error", "status"), [(DataError("torn"), 2), (KeyboardInterrupt(), 130)])
def test_statuses(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "call", fail)
    assert cli.main(["doctor"]) == status


def test_every_target_can_be_imported() -> None:
    for group in cli.COMMANDS.values():
        for command in group.values():
            assert callable(command.load())


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    run = f"{sys.executable} -m rmkit --help | true"
    environment = os.environ | {"RMKIT_HOME": str(tmp_path)}
    done = subprocess.run(run, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr


def test_doctor_names_what_is_missing_and_how_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rmkit.cli import doctor

    known = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "streamlit" else known(name))
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "[ui]'" in said
    assert str(home) in said
