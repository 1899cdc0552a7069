"""The completion script: bash accepts it, and it completes commands, sub-verbs, options and their choices."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rmkit.cli import completion
from rmkit.cli.main import COMMANDS


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "rmkit"
    path.write_text(completion.script("bash"))
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in ("rmkit", *words))
    code = (
        f'source "{script}"; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _rmkit; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    ran = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_bash_accepts_the_script(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["quick"], ["quickstart"]),
        (["models", "pro"], ["promote"]),
        (["label", "people", "re"], ["remove"]),
        (["score", "--prec"], ["--precision"]),
        (["score", "--precision", "b"], ["bf16"]),
        (["score", "models/a", "x.jsonl", "--sp"], ["--split"]),
        (["token", "create", "ci", "--scope", "met"], ["metrics"]),
        (["score", "-o", "no/such"], []),
    ],
)
def test_words_are_completed(script: Path, words: list[str], offered: list[str]) -> None:
    assert completed(script, *words) == offered


def test_all_commands_are_in_it() -> None:
    places = dict(completion.words({name: command for group in COMMANDS.values() for name, command in group.items()}))
    for name in places["rmkit"]:
        assert places[f"rmkit {name}"], name


def test_zsh_runs_the_same_function() -> None:
    assert completion.script("zsh").endswith(completion.script("bash"))
